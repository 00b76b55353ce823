package fanout

import "sync"

// A run is a raw Frame with messages of one Outbox, to which others are added while it is corked. It
// is used again when it has been written.
var runs = sync.Pool{New: func() any { return &Frame{raw: true} }}

func takeRun() *Frame { return runs.Get().(*Frame) }

func putRun(f *Frame) {
	if cap(f.text) <= batchBytes {
		f.text = f.text[:0]
		f.seen.Store(0)
		runs.Put(f)
	}
}

// SendDirect is Send for the text of a message that no other Outbox has. It does not keep the text.
func (o *Outbox) SendDirect(text []byte) bool {
	o.mu.Lock()
	corked := o.cork.in && !o.closed && o.form < ownForms
	if corked && o.addToRunLocked(text) {
		o.mu.Unlock()
		o.afterAppend(false)
		return true
	}
	o.mu.Unlock()
	if corked {
		o.Uncork() // otherwise the client would be too slow
	}
	return o.Send(NewDirect(text, o.form))
}

// SendNow is SendDirect for a message after which no other is expected soon, such as the answer to the
// only command of a client. If nothing else is queued, the caller writes it itself, as a flusher
// would, which is cheaper than to start one. SendNow does not wait: what the socket does not accept
// at once is left to a drain.
func (o *Outbox) SendNow(text []byte) bool {
	o.mu.Lock()
	if o.form >= ownForms || !o.idleLocked() {
		o.mu.Unlock()
		return o.SendDirect(text)
	}
	o.sendUnlock(text)
	return true
}

// sendUnlock writes a message to a socket that is idle.
func (o *Outbox) sendUnlock(text []byte) {
	o.drains = true // so that nothing else writes; what is queued meanwhile is written afterwards
	o.mu.Unlock()

	run := takeRun()
	p := appendWire(run.text, text, o.form)
	run.text = p
	o.writeOwn(p, taken{
		o:    o,
		size: int64(len(p)),
	})
	o.flusher.sent.messages.Add(1)
	o.flusher.sent.bytes.Add(uint64(len(p)))
	putRun(run)
}

// OpenNow is Open, and SendNow for the text.
func (o *Outbox) OpenNow(g *Gate, text []byte) bool {
	o.mu.Lock()
	if o.form >= ownForms || o.closed || !o.idleLocked() {
		o.mu.Unlock()
		return o.Open(g, NewDirect(text, o.form))
	}
	g.open = true
	o.sendUnlock(text)
	return true
}

// ShutNow is Shut, and writes f as SendNow does.
func (o *Outbox) ShutNow(g *Gate, f *Frame) bool {
	o.mu.Lock()
	if f == nil || f.list || !g.open || o.form >= ownForms || o.closed || !o.idleLocked() {
		o.mu.Unlock()
		return o.Shut(g, f)
	}
	g.open = false
	o.drains = true // so that the flusher is not called
	o.appendLocked(f)
	o.writeUnlock(nil)
	return true
}

// ReleaseNow is Release, and writes what is queued as SendNow does.
func (o *Outbox) ReleaseNow() {
	o.mu.Lock()
	o.held = false
	if o.closed || !o.pendingLocked() || !o.writableLocked() {
		o.startLocked()
		o.mu.Unlock()
		return
	}
	o.writeUnlock(nil)
}

// idleLocked reports whether the socket can be written to directly, and nothing is queued or being
// written. A flusher that runs can be writing what it has removed from the queue, to this socket or
// to another.
func (o *Outbox) idleLocked() bool {
	return o.rare == nil && !o.pendingLocked() && o.writableLocked()
}

// writableLocked reports whether the socket can be written to directly, and nothing is being written.
func (o *Outbox) writableLocked() bool {
	if _, guarded := o.direct.(Guarded); guarded {
		return false // its write can wait
	}
	return o.direct != nil && o.mustListLocked() && !o.flusher.runs()
}

func (f *flusher) runs() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running
}

// addToRunLocked adds a message to the run at the end of the queue, and begins one if there is none. It
// reports false if there would be too many bytes in the queue to write them later.
func (o *Outbox) addToRunLocked(text []byte) bool {
	run := o.cork.run
	waiting := o.waitingLocked()
	begins := run == nil || len(waiting) == 0 || waiting[len(waiting)-1] != run
	if begins {
		run = takeRun()
	}
	before := len(run.text)
	wire := appendWire(run.text, text, o.form)
	n := int64(len(wire) - before)
	run.text = wire[:before]
	if o.bytes+n >= min(batchBytes, int64(o.flusher.engine.cfg.MaxBytes/2)) {
		if begins {
			putRun(run)
		}
		return false
	}
	run.text = wire
	o.addLocked(n)
	if begins {
		run.made = clock()
		o.cork.run = run
		var chain *queue
		o.pushLocked(run, &chain)
		putQueues(chain)
	} else {
		o.flusher.sent.messages.Add(1) // the first one counts when the run is taken
	}
	return true
}
