package fanout

import (
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// Gate controls which frames of one subscription enter an Outbox: none before Open and none
// after Shut. The zero value is closed. The lock of the Outbox guards it, so that the check
// and the queueing are one step.
type Gate struct {
	open    bool
	omitted *omitted // nil while the client has nothing to be told of, see Omit
}

// ControlKind names a slot for one control frame. A newer frame replaces the one in the
// slot, so a client that sends requests but never reads cannot fill memory.
type ControlKind uint8

const (
	Pong ControlKind = iota
	Heartbeat
	controlKinds
)

// control has the queued control frame of each kind, or nil.
type control [controlKinds][]byte

// Outbox is the queue of the messages that are to be written to one connection, in order.
// Its methods do not block, except AwaitRoom. All methods are safe for concurrent use.
//
// While an Outbox is not empty, it has one owner, which is the only one to write. At first
// this is its flusher. If a write would have to wait, the flusher passes the Outbox to a
// drain, which is a separate goroutine that writes until the Outbox is empty.
type Outbox struct {
	// mu guards the fields down to ending. The fields that every frame uses come first, so
	// that they share cache lines.
	mu      sync.Mutex
	owned   bool
	held    bool // nothing is written before Release
	closed  bool // no frame is accepted any more
	ended   bool // done is closed
	form    Form
	code    uint16       // of the close frame; 0 while there is none
	queue   *queue       // nil while no frame is queued
	bytes   atomic.Int64 // queued or being written; changed under mu
	flusher *flusher
	direct  Direct   // nil if writes can block
	control *control // nil while no control frame is queued

	writing int64 // the part of bytes that the owner has taken and not yet written, without lists
	rare    *rare // nil while there are neither lists nor marks

	end          Endpoint // a Writer or a Puller
	onDisconnect func(code int, reason string)
	ending       *ending // nil until the Outbox is closed, a write has to wait, or Done is called

	prev, next *Outbox // in the engine's list, under the engine's lock
}

// ending has the fields that only an Outbox that ends needs, or one whose client reads slowly.
// They are separate to save memory in the outboxes of idle connections.
type ending struct {
	reason  string        // of the close frame
	done    chan struct{} // nil until Done is called
	writing int64         // Frame.made of the first Frame that is being written; 0 if that is not known
	left    Left
	noted   bool // left is set
}

// Waiting returns the bytes that are queued or being written.
func (o *Outbox) Waiting() int64 { return o.bytes.Load() }

// Form returns the form in which the transport needs its frames. It never changes.
func (o *Outbox) Form() Form { return o.form }

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
	o.startLocked() // also because Close may have been called before
}

// Send queues f. It reports whether f was queued: it is not after Close, nor if the limit
// is exceeded, which disconnects the client. A frame of any size is accepted if the Outbox
// contains only lists.
func (o *Outbox) Send(f *Frame) bool {
	o.mu.Lock()
	ok, slow := o.appendLocked(f)
	o.flusher.start()
	o.mu.Unlock()
	o.afterAppend(slow)
	return ok
}

// SendThrough queues f if g is open and f.Omit permits no omission. Many calls for the same event are followed by one
// Engine.Flush, which starts the writing.
func (o *Outbox) SendThrough(g *Gate, f *Frame) bool {
	o.mu.Lock()
	if !g.open {
		o.mu.Unlock()
		return false
	}
	if f.omit != nil && o.omitLocked(g, f) {
		o.mu.Unlock()
		return false
	}
	ok, slow := o.appendLocked(f)
	o.mu.Unlock()
	o.afterAppend(slow)
	return ok
}

// Open queues f and then more, and opens g, all in one step, so that frames that pass g
// follow them. The frames of more should be lists: they are queued whatever their size.
func (o *Outbox) Open(g *Gate, f *Frame, more ...*Frame) bool {
	o.mu.Lock()
	ok, slow := o.appendLocked(f)
	for i := 0; ok && i < len(more); i++ {
		ok, slow = o.appendLocked(more[i])
	}
	o.flusher.start()
	g.open = ok
	o.mu.Unlock()
	o.afterAppend(slow)
	return ok
}

// Shut closes g. If g was open and f is not nil, it queues f in the same step, so that
// frames that have passed g precede f. It reports whether g was open.
func (o *Outbox) Shut(g *Gate, f *Frame) bool {
	o.mu.Lock()
	wasOpen := g.open
	slow := false
	g.open = false
	if wasOpen && f != nil {
		_, slow = o.appendLocked(f)
		o.flusher.start()
	}
	o.mu.Unlock()
	o.afterAppend(slow)
	return wasOpen
}

// afterAppend calls onDisconnect if an append has disconnected the client, and disconnects others if
// MaxTotal is exceeded. It is called without the lock.
func (o *Outbox) afterAppend(slow bool) {
	if slow {
		o.onDisconnect(codeSlowConsumer, "slow consumer")
	}
	if e := o.flusher.engine; e.Waiting() > e.cfg.MaxTotal {
		e.disconnectLargest()
	}
}

func (o *Outbox) appendLocked(f *Frame) (ok, slow bool) {
	if o.closed {
		return false, false
	}
	n := int64(len(f.Bytes(o.form)))
	waiting := o.bytes.Load()
	if f.list {
		o.addListLocked(f, n)
	} else {
		if waiting+n > int64(o.flusher.engine.cfg.MaxBytes) && o.overLocked(waiting, n) {
			o.disconnectLocked(codeSlowConsumer, "slow consumer")
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

// overLocked reports whether n more bytes exceed MaxBytes. The bytes that are being written
// do not count, because a client that reads a frame larger than MaxBytes is not slow. Lists
// do not count either.
func (o *Outbox) overLocked(waiting, n int64) bool {
	queued := o.queuedLocked(waiting)
	return queued > 0 && queued+n > int64(o.flusher.engine.cfg.MaxBytes)
}

// queuedLocked returns the part of the waiting bytes that MaxBytes limits.
func (o *Outbox) queuedLocked(waiting int64) int64 { return waiting - o.writing - o.listBytesLocked() }

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
	o.noteLeftLocked()
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

func (o *Outbox) closeFrameLocked() (code int, reason string) {
	if o.code == 0 {
		return 0, ""
	}
	return int(o.code), o.ending.reason
}

func (o *Outbox) closeLocked(code int, reason string) {
	o.noteLeftLocked()
	o.closed = true
	o.code = uint16(code)
	o.endingLocked().reason = reason
}

// disconnect disconnects the client: the queued frames are dropped, and only the close frame is
// still written. It reports whether any bytes were queued.
func (o *Outbox) disconnect(code int, reason string) bool {
	o.mu.Lock()
	first := !o.closed
	had := o.bytes.Load() > 0
	o.disconnectLocked(code, reason)
	o.mu.Unlock()
	if first {
		o.onDisconnect(code, reason)
	}
	return had
}

func (o *Outbox) disconnectLocked(code int, reason string) {
	o.noteLeftLocked()
	o.dropLocked()
	if !o.closed {
		o.closeLocked(code, reason)
	}
	o.startLocked()
}

func (o *Outbox) dropLocked() {
	if o.rare != nil {
		o.dropRareLocked()
	}
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

// wakeLocked adds o to the list of its flusher if o has no owner yet. The caller must then
// call flusher.start.
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

// restLocked reports whether the owner of o has more to do. If not, o has no owner any
// more.
func (o *Outbox) restLocked() bool {
	if !o.ended && (o.queue != nil || o.closed || o.control != nil) {
		return true
	}
	o.owned = false
	return false
}

// writtenLocked subtracts the bytes that were being written from the queued bytes. If disconnect
// or Discard was called during the write, they have already subtracted all of them.
func (o *Outbox) writtenLocked() {
	if o.writing > 0 {
		o.addLocked(-o.writing)
		o.writing = 0
	}
	if o.ending != nil {
		o.ending.writing = 0
	}
	if o.rare != nil {
		o.listsWrittenLocked()
		o.releaseRareLocked()
	}
}

// Lost ends the Outbox because a write has failed or timed out.
func (o *Outbox) Lost(err error) {
	o.mu.Lock()
	first := !o.closed
	o.noteLeftLocked()
	o.dropLocked()
	o.closed = true
	o.endLocked()
	o.mu.Unlock()
	if !first {
		return
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		o.onDisconnect(codeSlowConsumer, "slow consumer")
	} else {
		o.onDisconnect(codeLost, err.Error())
	}
}

// CloseFrame is the close code and reason of a close frame.
type CloseFrame struct {
	Code   int
	Reason string
}

// Take appends queued frames to dst for a Puller to write: at least one frame, and frames
// of up to limit bytes. Written then removes them from the queue. Take returns nothing
// before Release. When a closed Outbox is empty, each call returns its CloseFrame.
func (o *Outbox) Take(dst []*Frame, limit int) (frames []*Frame, end *CloseFrame) {
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
	if i > 0 {
		o.endingLocked().writing = firstMade(waiting[:i])
		o.flusher.sent.messages.Add(uint64(i))
		o.flusher.sent.bytes.Add(uint64(bytes))
	}
	if o.rare != nil && o.rare.marks.holes > 0 {
		frames = slices.DeleteFunc(frames, func(f *Frame) bool { return f == hole })
	}
	o.takenLocked(waiting[:i], int64(bytes))
	o.dequeueLocked(i)
	if i == 0 && o.code != 0 {
		end = &CloseFrame{}
		end.Code, end.Reason = o.closeFrameLocked()
	}
	return frames, end
}

// Written reports that all frames of Take have been written.
func (o *Outbox) Written() {
	o.mu.Lock()
	o.writtenLocked()
	o.mu.Unlock()
}

// CloseFrameSent reports that the close frame has been sent, so Done is closed.
func (o *Outbox) CloseFrameSent() {
	o.mu.Lock()
	o.endLocked()
	o.mu.Unlock()
}
