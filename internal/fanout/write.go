package fanout

import (
	"bytes"
	"slices"
	"sync"
	"time"
)

// batchBytes is how much one write joins. A larger frame is written alone.
const batchBytes = 64 << 10

// batch is what one write has: a frame as it is, or several joined. Connections
// that follow one another mostly wait for the same frames, so the last joining
// is kept.
type batch struct {
	joined *[]byte  // from scratch, or nil
	frames []*Frame // that joined has, in form
	form   Form
}

var scratch = sync.Pool{New: func() any { b := make([]byte, 0, batchBytes); return &b }}

// release lets go of all that b holds.
func (b *batch) release() {
	b.forget()
	if b.joined != nil {
		scratch.Put(b.joined)
		b.joined = nil
	}
}

// forget lets go of the frames.
func (b *batch) forget() {
	clear(b.frames)
	b.frames = b.frames[:0]
}

// takeLocked takes what o's next write is to have out of o, control frames
// first, up to batchBytes; p is valid until the next call.
func (b *batch) takeLocked(o *Outbox) (p []byte) {
	waiting := o.queue.waiting()
	total, n := 0, 0
	for _, f := range waiting {
		size := len(f.Bytes(o.form))
		if n > 0 && total+size > batchBytes {
			break
		}
		total += size
		n++
	}
	frames := waiting[:n]
	switch {
	case o.control != nil:
		b.start()
		for _, c := range o.control {
			*b.joined = append(*b.joined, c...)
		}
		o.control = nil
		if len(*b.joined)+total > batchBytes { // the next write has them
			frames, total = nil, 0
		}
		b.join(frames, o.form)
		b.forget() // what it has is this connection's alone
		p = *b.joined
	case n == 1:
		p = frames[0].Bytes(o.form)
	case n > 1:
		if b.form != o.form || !slices.Equal(b.frames, frames) {
			b.start()
			b.join(frames, o.form)
		}
		p = *b.joined
	}
	o.takenLocked(frames, int64(total))
	o.dequeueLocked(len(frames))
	return p
}

func (b *batch) start() {
	if b.joined == nil {
		b.joined = scratch.Get().(*[]byte)
	}
	*b.joined = (*b.joined)[:0]
	b.forget()
}

func (b *batch) join(frames []*Frame, form Form) {
	for _, f := range frames {
		*b.joined = append(*b.joined, f.Bytes(form)...)
	}
	b.frames, b.form = append(b.frames, frames...), form
}

// flush is o's turn in a pass of its flusher, its owner: one write of what
// waits, by a drain where it could have to wait.
func (o *Outbox) flush(b *batch) {
	o.mu.Lock()
	if !o.restLocked() {
		o.mu.Unlock()
		return
	}
	if puller, ok := o.puller(); ok {
		o.owned = false // before it is told, so that what comes now wakes it again
		o.mu.Unlock()
		puller.Wake()
		return
	}
	if o.direct == nil || o.queue == nil && o.closed { // Finish waits, too
		o.mu.Unlock()
		o.startDrain(nil)
		return
	}
	p := b.takeLocked(o)
	o.mu.Unlock()

	n, err := o.direct.TryWrite(p)
	if err == nil && n < len(p) {
		o.startDrain(bytes.Clone(p[n:]))
		return
	}
	o.mu.Lock()
	o.writtenLocked()
	if err != nil {
		o.owned = false
	} else if o.restLocked() {
		o.flusher.add(o)
	}
	o.mu.Unlock()
	if err != nil {
		o.end.(Socket).Broken()
		o.Lost(err)
	}
}

// puller returns o's endpoint if that is a Puller.
func (o *Outbox) puller() (p Puller, ok bool) {
	if o.direct == nil { // else it is a Writer: no need to look closer
		p, ok = o.end.(Puller)
	}
	return p, ok
}

// startDrain hands o over: rest is written before what waits.
func (o *Outbox) startDrain(rest []byte) {
	o.flusher.engine.running.Add(1)
	go o.drain(rest)
}

// drain writes until nothing waits, then releases o; at the end of a closed one
// it says goodbye.
func (o *Outbox) drain(p []byte) {
	e := o.flusher.engine
	defer e.running.Done()
	writer := o.end.(Writer)
	var b batch
	defer b.release()
	for {
		if len(p) > 0 {
			err := writeAll(writer, p, e.cfg.WriteTimeout)
			o.mu.Lock()
			o.writtenLocked()
			if err != nil {
				o.owned = false
			}
			o.mu.Unlock()
			if err != nil {
				o.Lost(err)
				return
			}
		}
		o.mu.Lock()
		if !o.restLocked() {
			o.mu.Unlock()
			return
		}
		p = b.takeLocked(o)
		code, reason := o.goodbyeLocked()
		o.mu.Unlock()
		if len(p) == 0 { // closed, and nothing waits
			writer.Finish(code, reason, e.cfg.WriteTimeout)
			o.mu.Lock()
			o.endLocked()
			o.owned = false
			o.mu.Unlock()
			return
		}
	}
}

// writeBytes is the most that one write with its own timeout has: a list of
// several megabytes takes a slow client that reads longer than the timeout.
const writeBytes = 256 << 10

// writeAll writes p in parts, each within timeout.
func writeAll(w Writer, p []byte, timeout time.Duration) error {
	for len(p) > 0 {
		n := min(len(p), writeBytes)
		if err := w.Write(p[:n], timeout); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
