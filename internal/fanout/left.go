package fanout

import "time"

var began = time.Now()

// clock returns a time in nanoseconds. Its differences are right also when the clock of the machine is
// set, and it costs less than time.Now.
func clock() int64 { return int64(time.Since(began)) }

// Left is what a client had not received when its connection was closed.
type Left struct {
	Bytes int64 // queued or being written
	// Oldest is how long the first of these bytes had waited, as far as that is known: of lists,
	// such as events that are replayed, it is not.
	Oldest time.Duration
}

// Left returns what was queued when the Outbox was closed or discarded, before anything was
// dropped.
func (o *Outbox) Left() Left {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e := o.endedLocked(); e != nil {
		return e.left
	}
	return Left{}
}

// noteLeftLocked is called before the Outbox is closed, and before anything is dropped. The
// first call counts.
func (o *Outbox) noteLeftLocked() {
	e := o.endingLocked()
	if e.noted {
		return
	}
	e.noted = true
	e.left.Bytes = o.bytes
	made := o.rare.made
	if made == 0 {
		made = firstMade(o.waitingLocked())
	}
	if made != 0 {
		e.left.Oldest = time.Duration(clock() - made)
	}
}

// firstMade returns when the first of the frames was made whose time is known, or 0.
func firstMade(frames []*Frame) int64 {
	for _, f := range frames {
		if f.made != 0 {
			return f.made
		}
	}
	return 0
}
