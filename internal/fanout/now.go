package fanout

import "bytes"

// SendNow is Send for a frame after which no other is expected soon, such as the answer to the only
// command of a client. If nothing else is queued, the caller writes the frame itself, as a flusher
// would, which is cheaper than to start one. SendNow does not wait: what the socket does not accept
// at once is left to a drain.
func (o *Outbox) SendNow(f *Frame) bool {
	o.mu.Lock()
	p := f.Bytes(o.form)
	if !o.idleLocked() || f.list || len(p) == 0 {
		o.mu.Unlock()
		return o.Send(f)
	}
	o.drains = true // so that nothing else writes; what is queued meanwhile is written afterwards
	o.mu.Unlock()

	n, err := o.direct.TryWrite(p)
	o.mu.Lock()
	switch {
	case err != nil:
		o.drains = false
		o.mu.Unlock()
		o.end.(Socket).Broken()
		o.Lost(err)
		return true
	case n < len(p):
		if !o.ended {
			size := int64(len(p))
			r := o.rareLocked()
			r.writing = size
			r.made = f.made
			o.addLocked(size)
		}
		o.mu.Unlock()
		o.startDrain(bytes.Clone(p[n:]))
	default:
		o.drains = false
		if o.pendingLocked() {
			o.startLocked()
		}
		o.mu.Unlock()
	}
	o.flusher.sent.messages.Add(1)
	o.flusher.sent.bytes.Add(uint64(len(p)))
	return true
}

// idleLocked reports whether the socket can be written to directly, and nothing is queued or being
// written. A flusher that runs can be writing what it has removed from the queue, to this socket or
// to another.
func (o *Outbox) idleLocked() bool {
	if _, guarded := o.direct.(Guarded); guarded {
		return false // its write can wait
	}
	return o.direct != nil && o.rare == nil && o.mustListLocked() && !o.pendingLocked() && !o.flusher.runs()
}

func (f *flusher) runs() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running
}
