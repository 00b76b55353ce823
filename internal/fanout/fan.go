package fanout

// ownForms is the number of the forms of pushy's protocol.
const ownForms = BareDeflate + 1

// Fan queues one frame for many receivers, as SendThrough does for one. What all deliveries have in
// common, it does once for many of them: it counts bytes, wakes the flushers and takes queues. A Fan is
// not safe for concurrent use.
type Fan struct {
	engine *Engine
	frame  *Frame
	sizes  [ownForms]int64 // of frame in pushy's forms; 0 if it is not known yet
	limit  int64           // fewer queued bytes need no check
	free   *queue          // a chain, see takeQueue
	lanes  []lane          // one for each flusher
	warm   uint16          // see Touch
}

// lane is what a Fan has not passed to one flusher yet.
type lane struct {
	bytes int64
	woken int
	list  [64]*Outbox
}

// Fan returns a Fan for a frame. Its Flush must be called, and the Fan is not used after that.
func (e *Engine) Fan(f *Frame) *Fan {
	fan, ok := e.fans.Get().(*Fan)
	if !ok {
		fan = &Fan{
			engine: e,
			limit:  min(int64(e.cfg.MaxBytes), batchBytes-1),
			lanes:  make([]lane, len(e.flushers)),
		}
	}
	fan.frame = f
	return fan
}

// Touch loads what the next Send for o needs into the processor's cache. The loads of several calls
// overlap, but those of several calls of Send do not, because each of these locks its Outbox. With
// many connections, this saves more time than it takes.
func (fan *Fan) Touch(o *Outbox) { fan.warm |= o.lane }

// Send is SendThrough for the frame. The writing starts at the latest with Flush.
func (fan *Fan) Send(o *Outbox, g *Gate) bool {
	f := fan.frame
	size := int64(0)
	if o.form < ownForms {
		size = fan.sizes[o.form]
	}
	o.mu.Lock()
	if size == 0 || o.closed || !g.open || o.bytes+size > fan.limit {
		return fan.sendUnlock(o, g)
	}
	l := &fan.lanes[o.lane]
	o.bytes += size
	l.bytes += size
	o.pushLocked(f, &fan.free)
	if o.mustListLocked() {
		o.listed = true
		l.list[l.woken] = o
		l.woken++
	}
	o.mu.Unlock()
	if l.woken == len(l.list) {
		fan.pass(l, &fan.engine.flushers[o.lane])
	}
	return true
}

// sendUnlock is Send for the first receiver with a form, one with a form of another protocol, one
// with many queued bytes, one that does not receive the frame, and for a frame that is not an
// ordinary one. It unlocks o.
func (fan *Fan) sendUnlock(o *Outbox, g *Gate) bool {
	f := fan.frame
	ok, slow := o.appendThroughLocked(g, f)
	o.mu.Unlock()
	o.afterAppend(slow)
	if o.form < ownForms && f.omit == nil && !f.list {
		fan.sizes[o.form] = int64(len(f.Bytes(o.form)))
	}
	return ok
}

// pass passes what the lane has to its flusher.
func (fan *Fan) pass(l *lane, to *flusher) {
	if l.bytes == 0 {
		return
	}
	to.waiting.Add(l.bytes)
	l.bytes = 0
	if l.woken > 0 {
		to.add(l.list[:l.woken]...)
		clear(l.list[:l.woken])
		l.woken = 0
	}
	if e := fan.engine; e.Waiting() > e.cfg.MaxTotal {
		e.disconnectLargest()
	}
}

// Flush starts to write, see Engine.Flush.
func (fan *Fan) Flush() {
	e := fan.engine
	for i := range fan.lanes {
		fan.pass(&fan.lanes[i], &e.flushers[i])
	}
	putQueues(fan.free)
	fan.free = nil
	fan.frame = nil
	fan.sizes = [ownForms]int64{}
	e.fans.Put(fan)
	e.Flush()
}
