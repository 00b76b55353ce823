package fanout

import (
	"bytes"
	"sync"
	"time"
)

// corkTick is the interval at which a flusher looks at the outboxes that are corked. One that it
// sees twice is uncorked.
const corkTick = time.Millisecond

// cork is the state of an Outbox between Cork and Uncork. The Outbox's lock guards it, except at and
// seen, which the lock of corks guards.
type cork struct {
	in bool // the caller of Cork writes, see Outbox.drains
	// alone means that no pass of the flusher can be writing what it has removed from the queue.
	alone bool
	seen  bool   // by a tick
	at    uint32 // one more than its index in corks.list, or 0
	run   *Frame // the last run of the queue, see SendDirect, or nil
}

// corks has the outboxes of one flusher that are corked.
type corks struct {
	mu    sync.Mutex
	list  []*Outbox
	armed bool        // the timer runs
	timer *time.Timer // nil before the first Cork
}

// Cork delays what is queued until Uncork, which writes all of it at once. The reader of a connection
// calls it while it handles a message after which others have arrived already: it is cheaper to write
// their answers together. Cork has no effect if something is queued or being written. If Uncork does
// not follow within about two milliseconds, because a message takes long, or if there is enough for a
// full write, the flusher writes as if Cork had not been called.
func (o *Outbox) Cork() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.direct == nil || o.closed || !o.mustListLocked() || o.pendingLocked() {
		return
	}
	o.drains = true // so that nothing else writes
	o.cork.in = true
	o.cork.alone = !o.flusher.runs()
	o.flusher.corks.add(o)
}

// Uncork writes what has been queued since Cork. It does not wait: what the socket does not accept at
// once is left to a drain. A write that can wait, and the close frame, are left to the flusher.
func (o *Outbox) Uncork() {
	o.mu.Lock()
	if !o.cork.in {
		o.mu.Unlock()
		return
	}
	_, guarded := o.direct.(Guarded)
	// While the Outbox was corked, no pass has taken anything from it. So a pass that writes its bytes
	// has begun before Cork.
	alone := o.cork.alone || !o.flusher.runs()
	run := o.cork.run
	o.uncorkLocked()
	if guarded || !alone || !o.pendingLocked() || o.closed && len(o.waitingLocked()) == 0 {
		if o.pendingLocked() {
			o.startLocked()
		}
		o.mu.Unlock()
		return
	}
	o.writeUnlock(run)
}

// writeUnlock writes what is queued, and unlocks o, which is to be written to by nothing else. run is
// the last run of the queue, or nil.
func (o *Outbox) writeUnlock(run *Frame) {
	o.drains = true
	b := ownBatches.Get().(*batch)
	p, size := b.takeLocked(o, true)
	t := taken{
		o:       o,
		size:    size,
		counted: o.rare != nil,
		made:    b.made,
	}
	if !t.counted {
		o.addLocked(-size)
	}
	o.mu.Unlock()
	written := o.writeOwn(p, t)
	o.flusher.sent.add(b)
	single := len(b.frames) == 1 && b.frames[0] == run
	b.release()
	ownBatches.Put(b)
	if written && single {
		putRun(run)
	}
}

// ownBatches has the batches of goroutines that write for one Outbox.
var ownBatches = sync.Pool{New: func() any { return new(batch) }}

// uncorkLocked ends the effect of Cork. If something is queued, the caller has to see that it is
// written.
func (o *Outbox) uncorkLocked() {
	o.cork.in = false
	o.cork.run = nil
	o.drains = false
	o.flusher.corks.remove(o)
}

// drainLocked is called before a drain starts for a write of the flusher during which Cork can have
// been called: Uncork must not write beside the drain.
func (o *Outbox) drainLocked() {
	if o.cork.in {
		o.uncorkLocked()
	}
	o.drains = true
}

// writeOwn writes p, which was taken from o, for a goroutine that has set o.drains. It reports whether
// the socket has accepted all of it.
func (o *Outbox) writeOwn(p []byte, t taken) bool {
	n, err := o.direct.TryWrite(p)
	o.mu.Lock()
	switch {
	case err != nil:
		o.drains = false
		o.mu.Unlock()
		o.end.(Socket).Broken()
		o.Lost(err)
		return false
	case n < len(p):
		t.unwrittenLocked()
		o.mu.Unlock()
		o.startDrain(bytes.Clone(p[n:]))
		return false
	default:
		if t.counted {
			o.writtenLocked()
		}
		o.drains = false
		if o.pendingLocked() {
			o.startLocked()
		}
		o.mu.Unlock()
		return true
	}
}

func (c *corks) add(o *Outbox) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, o)
	o.cork.at = uint32(len(c.list))
	o.cork.seen = false
	if c.armed {
		return
	}
	c.armed = true
	if c.timer == nil {
		c.timer = time.AfterFunc(corkTick, c.tick)
	} else {
		c.timer.Reset(corkTick)
	}
}

func (c *corks) remove(o *Outbox) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, last := int(o.cork.at), len(c.list)
	if at == 0 {
		return
	}
	moved := c.list[last-1]
	c.list[at-1] = moved
	moved.cork.at = uint32(at)
	o.cork.at = 0
	c.list[last-1] = nil
	c.list = c.list[:last-1]
}

// tick uncorks the outboxes that the last tick has seen, too.
func (c *corks) tick() {
	for _, o := range c.late() {
		o.mu.Lock()
		if o.cork.in {
			o.uncorkLocked()
			if o.pendingLocked() {
				o.startLocked()
			}
		}
		o.mu.Unlock()
	}
}

// late returns the outboxes that the last tick has seen, and starts the timer again if there are any
// others.
func (c *corks) late() []*Outbox {
	c.mu.Lock()
	defer c.mu.Unlock()
	var late []*Outbox
	for _, o := range c.list {
		if o.cork.seen {
			late = append(late, o)
		}
		o.cork.seen = true
	}
	c.armed = len(c.list) > 0
	if c.armed {
		c.timer.Reset(corkTick)
	}
	return late
}
