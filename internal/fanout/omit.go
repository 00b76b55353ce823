package fanout

import "time"

// Omit says when a Frame is omitted for a connection that is slow. It is immutable.
type Omit struct {
	// Latest is a key, or "". Once scanFrom frames are queued, a queued frame with the same key
	// that came through the same Gate is removed when this one is queued.
	Latest string
	// Droppable means that the frame is not queued while more than a quarter of
	// Config.MaxBytes is queued, unless it takes the place of another one.
	Droppable bool
	// Notice renders what the client is told of the frames that it does not receive.
	Notice Notice
}

// Notice renders the message that says how many frames a client has not received.
type Notice interface {
	// Dropped returns the message. It is called with locks of the Engine, and must not block.
	Dropped(count int64) *Frame
}

// NewOmittable is NewFrame for a message that a slow client need not receive. Only
// Outbox.SendThrough omits it.
func NewOmittable(text []byte, o *Omit) *Frame {
	f := NewFrame(text)
	f.omit = o
	return f
}

const (
	// scanFrom is the number of queued frames from which older frames are replaced: fewer of
	// them are not worth a search.
	scanFrom = 8
	// noticePause is the least time between two notices of one Gate.
	noticePause = time.Second
)

// omitted counts the frames of one Gate that the client has not received. The Outbox's lock
// guards it.
type omitted struct {
	count  int64 // since the last notice
	notice Notice
	listed bool // the gate is in marks.gates
	paused bool // the last notice is less than noticePause ago
}

// omitLocked applies f.omit, and reports whether f is omitted itself. Otherwise f must be
// appended next.
func (o *Outbox) omitLocked(g *Gate, f *Frame) bool {
	if o.closed || o.form.IsForeign() && len(f.Bytes(o.form)) == 0 {
		return false // appendLocked does not queue it
	}
	o.queueLocked()
	key := latestKey{
		gate:   g,
		latest: f.omit.Latest,
	}
	replaced := key.latest != "" && o.replaceLocked(key)
	if f.omit.Droppable && !replaced && o.queuedLocked(o.bytes) > int64(o.flusher.engine.cfg.MaxBytes/4) {
		o.countLocked(g, f)
		return true
	}
	if key.latest != "" {
		o.rareLocked().marks.note(o.queue, key)
	}
	return false
}

// replaceLocked removes the queued frame with a key, and reports whether there was one.
func (o *Outbox) replaceLocked(key latestKey) bool {
	if o.rare == nil {
		return false // no frame with a key is queued
	}
	m := &o.rare.marks
	if m.index == nil {
		if len(o.queue.waiting()) < scanFrom {
			return false
		}
		// Until now, a key could be queued several times. All but the newest are removed.
		noted := m.noted
		m.noted = nil
		m.index = make(map[latestKey]int, len(noted))
		for _, n := range noted {
			if n.at >= m.gone {
				o.removeLocked(n.key)
				m.index[n.key] = n.at
			}
		}
	}
	return o.removeLocked(key)
}

// removeLocked removes the frame with a key from the queue, if the index has it.
func (o *Outbox) removeLocked(key latestKey) bool {
	m := &o.rare.marks
	at, found := m.find(key)
	if !found {
		return false
	}
	f := *m.place(o.queue, at)
	o.countLocked(key.gate, f)
	o.addLocked(-int64(len(f.Bytes(o.form))))
	m.remove(o.queue, at)
	return true
}

// countLocked counts a frame that the client does not receive. Frames are queued, and when all of
// them have been taken, the client is told.
func (o *Outbox) countLocked(g *Gate, f *Frame) {
	o.flusher.dropped.Add(1)
	if g.omitted == nil {
		g.omitted = &omitted{notice: f.omit.Notice}
	}
	g.omitted.count++
	o.listLocked(g)
}

func (o *Outbox) listLocked(g *Gate) {
	if !g.omitted.listed {
		g.omitted.listed = true
		m := &o.rareLocked().marks
		m.gates = append(m.gates, g)
	}
}

// backlogTakenLocked queues the notices when the last frame of the queue has been taken.
func (o *Outbox) backlogTakenLocked() {
	gates := o.rare.marks.reset()
	o.releaseRareLocked()
	for _, g := range gates {
		g.omitted.listed = false
		if !g.omitted.paused {
			o.noticeLocked(g)
		}
	}
}

// noticeLocked queues the notice of a gate, unless the subscription has ended. Notices count as
// queued, but are never refused: there is at most one a second and subscription.
func (o *Outbox) noticeLocked(g *Gate) {
	if o.closed || !g.open {
		g.omitted = nil
		return
	}
	f := g.omitted.notice.Dropped(g.omitted.count)
	g.omitted.count = 0
	g.omitted.paused = true
	time.AfterFunc(noticePause, func() { o.pauseEnded(g) })
	o.addLocked(int64(len(f.Bytes(o.form))))
	if o.queue != nil {
		o.queue.push(f)
	} else {
		var chain *queue
		o.pushLocked(f, &chain)
		putQueues(chain)
	}
	o.startLocked()
}

// pauseEnded permits the next notice of a gate.
func (o *Outbox) pauseEnded(g *Gate) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case g.omitted == nil: // the subscription or the connection has ended
	case g.omitted.count == 0:
		g.omitted = nil
	case g.omitted.listed: // frames are queued before the notice
		g.omitted.paused = false
	case len(o.waitingLocked()) > 0:
		o.queueLocked()
		g.omitted.paused = false
		o.listLocked(g)
	default:
		o.noticeLocked(g)
	}
}

// Dropped returns the number of frames that were omitted for slow connections so far.
func (e *Engine) Dropped() uint64 {
	var n uint64
	for i := range e.flushers {
		n += e.flushers[i].dropped.Load()
	}
	return n
}
