package fanout

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
)

// Gate controls which frames of one subscription enter an Outbox: none before Open and none
// after Shut. The zero value is closed. The lock of the Outbox guards it, so that the check
// and the queueing are one step.
type Gate struct{ open bool }

// ControlKind names a slot for one control frame. A newer frame replaces the one in the
// slot, so a client that sends requests but never reads cannot fill memory.
type ControlKind uint8

const (
	Pong ControlKind = iota
	Heartbeat
	controlKinds
)

// control is what waits of each kind.
type control [controlKinds][]byte

// Outbox is the queue of the messages that are to be written to one connection, in order.
// Its methods do not block, except AwaitRoom. All methods are safe for concurrent use.
//
// While an Outbox is not empty, it has one owner, which is the only one to write. At first
// this is its flusher. If a write would have to wait, the flusher passes the Outbox to a
// drain, which is a separate goroutine that writes until the Outbox is empty.
type Outbox struct {
	// What every frame touches stands together.
	mu      sync.Mutex
	owned   bool
	held    bool // nothing is to be written yet
	closed  bool // nothing more goes in
	ended   bool // done is closed
	form    Form
	code    uint16       // of the goodbye; 0 while there is none
	queue   *queue       // nil while nothing waits
	bytes   atomic.Int64 // waiting or being written; changed under mu
	flusher *flusher
	direct  Direct   // nil if writes may wait
	control *control // nil while none waits

	writing int64  // of bytes: taken by the owner and not yet written, lists not counted
	lists   *lists // of bytes: those of lists; nil while there are none

	end    Endpoint // a Writer or a Puller
	onCut  func(code int, reason string)
	ending *ending // nil until it is closed, or somebody waits for its end

	prev, next *Outbox // among the engine's, under its lock
}

// ending is what only an Outbox that ends needs. It is kept apart since there may be
// very many that do not.
type ending struct {
	reason string        // of the goodbye
	done   chan struct{} // nil until somebody waits for it
}

// Hold prevents writing until Release. It must be called before anything is queued.
func (o *Outbox) Hold() {
	o.mu.Lock()
	o.held = true
	o.mu.Unlock()
}

// Release starts the writing.
func (o *Outbox) Release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held = false
	o.startLocked() // if only for a Close meanwhile
}

// Send queues f. It reports whether f was queued: it is not after Close, nor if the limit
// is exceeded, which disconnects the client. A frame of any size is accepted if the Outbox
// contains only lists.
func (o *Outbox) Send(f *Frame) bool {
	o.mu.Lock()
	ok, cut := o.appendLocked(f)
	o.flusher.start()
	o.mu.Unlock()
	o.settle(cut)
	return ok
}

// SendThrough queues f if g is open. Many calls for the same event are followed by one
// Engine.Flush, which starts the writing.
func (o *Outbox) SendThrough(g *Gate, f *Frame) bool {
	o.mu.Lock()
	if !g.open {
		o.mu.Unlock()
		return false
	}
	ok, cut := o.appendLocked(f)
	o.mu.Unlock()
	o.settle(cut)
	return ok
}

// Open queues f and opens g in one step, so that frames that pass g follow f.
func (o *Outbox) Open(g *Gate, f *Frame) bool {
	o.mu.Lock()
	ok, cut := o.appendLocked(f)
	o.flusher.start()
	g.open = ok
	o.mu.Unlock()
	o.settle(cut)
	return ok
}

// Shut closes g. If g was open and f is not nil, it queues f in the same step, so that
// frames that have passed g precede f. It reports whether g was open.
func (o *Outbox) Shut(g *Gate, f *Frame) bool {
	o.mu.Lock()
	was, cut := g.open, false
	g.open = false
	if was && f != nil {
		_, cut = o.appendLocked(f)
		o.flusher.start()
	}
	o.mu.Unlock()
	o.settle(cut)
	return was
}

// settle does what an append may have made necessary, outside the lock.
func (o *Outbox) settle(cut bool) {
	if cut {
		o.onCut(codeSlowConsumer, "slow consumer")
	}
	if e := o.flusher.engine; e.Waiting() > e.cfg.MaxTotal {
		e.relieve()
	}
}

func (o *Outbox) appendLocked(f *Frame) (ok, cut bool) {
	if o.closed {
		return false, false
	}
	n := int64(len(f.Bytes(o.form)))
	waiting := o.bytes.Load()
	if f.list {
		o.addListLocked(f, n)
	} else {
		if waiting+n > int64(o.flusher.engine.cfg.MaxBytes) && o.overLocked(waiting, n) {
			o.cutLocked(codeSlowConsumer, "slow consumer")
			return false, true
		}
		o.addLocked(n)
	}
	if o.queue == nil {
		o.queue = queues.Get().(*queue)
	}
	o.queue.push(f)
	if waiting+n >= batchBytes {
		o.flusher.urgent.Store(true)
	}
	o.wakeLocked()
	return true, false
}

// overLocked reports whether n more bytes are too many beside those waiting. What
// is being written does not wait: a client that reads is not slow because a frame
// larger than the bound is on its way to it. Nor do lists count.
func (o *Outbox) overLocked(waiting, n int64) bool {
	queued := waiting - o.writing - o.lists.size()
	return queued > 0 && queued+n > int64(o.flusher.engine.cfg.MaxBytes)
}

// Control queues bytes of the transport itself, which are written before the queued frames.
// They replace queued bytes of the same kind.
func (o *Outbox) Control(kind ControlKind, wire []byte) {
	o.mu.Lock()
	if !o.closed {
		if o.control == nil {
			o.control = new(control)
		}
		o.control[kind] = wire
		o.startLocked()
	}
	o.mu.Unlock()
}

// Close writes what is queued and then a close frame with code and reason. Nothing can be
// queued after it. It reports whether this was the first call of Close.
func (o *Outbox) Close(code int, reason string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.closeLocked(code, reason)
	o.startLocked()
	return true
}

// Discard drops what is queued and ends the Outbox without a close frame, for a connection
// that is lost. A Write that is in progress ends by itself.
func (o *Outbox) Discard() {
	o.mu.Lock()
	o.dropLocked()
	o.closed = true
	o.endLocked()
	o.mu.Unlock()
}

// Done returns a channel that is closed when nothing more will be written: after Finish,
// after a failed write, or after Discard.
func (o *Outbox) Done() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.endingLocked()
	if e.done == nil {
		e.done = make(chan struct{})
		if o.ended {
			close(e.done)
		}
	}
	return e.done
}

func (o *Outbox) endingLocked() *ending {
	if o.ending == nil {
		o.ending = &ending{}
	}
	return o.ending
}

func (o *Outbox) goodbyeLocked() (code int, reason string) {
	if o.code == 0 {
		return 0, ""
	}
	return int(o.code), o.ending.reason
}

func (o *Outbox) closeLocked(code int, reason string) {
	o.closed, o.code = true, uint16(code)
	o.endingLocked().reason = reason
}

// cut gives the connection up: what waits is dropped, the goodbye is all that
// is still written. It reports whether there was something to give up.
func (o *Outbox) cut(code int, reason string) bool {
	o.mu.Lock()
	first := !o.closed
	had := o.bytes.Load() > 0
	o.cutLocked(code, reason)
	o.mu.Unlock()
	if first {
		o.onCut(code, reason)
	}
	return had
}

func (o *Outbox) cutLocked(code int, reason string) {
	o.dropLocked()
	if !o.closed {
		o.closeLocked(code, reason)
	}
	o.startLocked()
}

func (o *Outbox) dropLocked() {
	o.dropListsLocked()
	o.dequeueLocked(len(o.queue.waiting()))
	o.control = nil
	o.writing = 0
	o.addLocked(-o.bytes.Load())
}

func (o *Outbox) addLocked(n int64) {
	o.bytes.Add(n)
	o.flusher.waiting.Add(n)
}

func (o *Outbox) endLocked() {
	if o.ended {
		return
	}
	o.ended = true
	if o.ending != nil && o.ending.done != nil {
		close(o.ending.done)
	}
	o.flusher.engine.forget(o)
}

// wakeLocked puts o on its flusher's list, if nobody writes for it yet;
// flusher.start must follow.
func (o *Outbox) wakeLocked() {
	if !o.owned && !o.held && !o.ended {
		o.owned = true
		o.flusher.add(o)
	}
}

func (o *Outbox) startLocked() {
	o.wakeLocked()
	o.flusher.start()
}

// restLocked reports whether there is more to do for o's owner, who is released
// from it if not.
func (o *Outbox) restLocked() bool {
	if !o.ended && (o.queue != nil || o.closed || o.control != nil) {
		return true
	}
	o.owned = false
	return false
}

// writtenLocked takes what was being written off what waits. A cut or Discard
// meanwhile has taken the whole sum off already.
func (o *Outbox) writtenLocked() {
	if o.writing > 0 {
		o.addLocked(-o.writing)
		o.writing = 0
	}
	if o.lists != nil {
		o.listsWrittenLocked()
	}
}

// Lost ends the Outbox because a write has failed or timed out.
func (o *Outbox) Lost(err error) {
	o.mu.Lock()
	first := !o.closed
	o.dropLocked()
	o.closed = true
	o.endLocked()
	o.mu.Unlock()
	if !first {
		return
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		o.onCut(codeSlowConsumer, "slow consumer")
	} else {
		o.onCut(codeLost, err.Error())
	}
}

// Goodbye is the close code and reason of a close frame.
type Goodbye struct {
	Code   int
	Reason string
}

// Take appends queued frames to dst for a Puller to write: at least one frame, and frames
// of up to limit bytes. Written then removes them from the queue. Take returns nothing
// before Release. When a closed Outbox is empty, each call returns its Goodbye.
func (o *Outbox) Take(dst []*Frame, limit int) (frames []*Frame, bye *Goodbye) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held {
		return dst, nil
	}
	waiting := o.queue.waiting()
	i, bytes := 0, 0
	for ; i < len(waiting) && (i == 0 || bytes < limit); i++ {
		bytes += len(waiting[i].Bytes(o.form))
	}
	frames = append(dst, waiting[:i]...)
	o.takenLocked(waiting[:i], int64(bytes))
	o.dequeueLocked(i)
	if i == 0 && o.code != 0 {
		bye = &Goodbye{}
		bye.Code, bye.Reason = o.goodbyeLocked()
	}
	return frames, bye
}

// Written reports that all frames of Take have been written.
func (o *Outbox) Written() {
	o.mu.Lock()
	o.writtenLocked()
	o.mu.Unlock()
}

// SaidGoodbye reports that the close frame has been sent, so Done is closed.
func (o *Outbox) SaidGoodbye() {
	o.mu.Lock()
	o.endLocked()
	o.mu.Unlock()
}
