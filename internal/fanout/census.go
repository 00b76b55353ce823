package fanout

import (
	"cmp"
	"slices"
)

// Census returns the bytes of memory of all queued frames. A frame that several outboxes share
// counts once, in each form that was needed. Census looks at each queued frame, so it must not be
// called for each event. Waiting costs nothing, and twice its result is never less.
func (e *Engine) Census() int64 {
	e.counting.Lock()
	defer e.counting.Unlock()
	e.censuses++
	var bytes int64
	for _, o := range e.outboxes() {
		o.mu.Lock()
		bytes += o.writingLocked()
		for _, f := range o.waitingLocked() {
			if f.seen.Swap(e.censuses) != e.censuses {
				bytes += f.memory()
			}
		}
		o.mu.Unlock()
	}
	return bytes
}

// memory returns the bytes of the Frame in the forms that it has.
func (f *Frame) memory() int64 {
	n := len(f.text)
	for i := range f.wire {
		if p := f.wire[i].Load(); p != nil {
			n += len(*p)
		}
	}
	for e := f.more.Load(); e != nil; e = e.next {
		n += e.Size()
	}
	return int64(n)
}

// outboxes returns the outboxes that have not ended.
func (e *Engine) outboxes() []*Outbox {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []*Outbox
	for o := e.first; o != nil; o = o.next {
		all = append(all, o)
	}
	return all
}

// Shed disconnects the outboxes with the most queued bytes until bytes of them, as Waiting counts,
// have been released. It returns how many it has disconnected.
func (e *Engine) Shed(bytes int64) (disconnected int) {
	type load struct {
		o     *Outbox
		bytes int64
	}
	var loads []load
	for _, o := range e.outboxes() {
		if n := o.Waiting(); n > 0 {
			loads = append(loads, load{
				o:     o,
				bytes: n,
			})
		}
	}
	slices.SortFunc(loads, func(a, b load) int { return cmp.Compare(b.bytes, a.bytes) })
	for _, l := range loads {
		if bytes <= 0 {
			break
		}
		if l.o.disconnect(codeSlowConsumer, "server buffers full") {
			disconnected++
			bytes -= l.bytes
		}
	}
	return disconnected
}
