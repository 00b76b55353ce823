package fanout

import (
	"errors"
	"os"
	"slices"
	"sync"
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
	// Response is the response to the handshake. It precedes everything else, and is not dropped with
	// the queued frames: without it, the close frame would mean nothing to the client.
	Response ControlKind = iota
	Pong
	Heartbeat
	controlKinds
)

// control has the queued control frame of each kind, or nil.
type control [controlKinds][]byte

func (c *control) queued() bool {
	for _, wire := range c {
		if wire != nil {
			return true
		}
	}
	return false
}

// Outbox is the queue of the messages that are to be written to one connection, in order.
// Its methods do not block, except AwaitRoom. All methods are safe for concurrent use.
//
// An Outbox with something to write is on the list of its flusher, which writes for it. If a write
// would have to wait, the flusher passes the Outbox to a drain, which is a separate goroutine that
// writes until the Outbox is empty.
type Outbox struct {
	// mu guards the fields down to rare. A delivery uses only these, and lane, direct and form, which
	// never change: together they are one cache line.
	mu     sync.Mutex
	listed bool // on the list of the flusher
	drains bool // a drain writes, or SendNow, or the Outbox is corked
	held   bool // nothing is written before Release
	closed bool // no frame is accepted any more
	ended  bool // Done is closed
	form   Form
	lane   uint16    // the place of the flusher in the engine
	one    [1]*Frame // the only queued frame, or nil; it needs no queue
	queue  *queue    // nil while no frame is queued, or only one
	bytes  int64     // queued, or being written by a drain or by the client of a Puller
	direct Direct    // nil if writes can block
	rare   *rare     // nil while there are neither lists, marks nor control frames, and no drain

	flusher      *flusher
	end          Endpoint // a Writer or a Puller
	onDisconnect func(code int, reason string)

	prev, next *Outbox // in the engine's list, under the engine's lock

	cork cork // with it, the size is a multiple of a cache line, so an Outbox begins at one
}

// ending has the fields that only an Outbox that ends needs.
type ending struct {
	reason string        // of the close frame
	code   int           // of the close frame; 0 while there is none
	done   chan struct{} // nil until Done is called
	left   Left
	noted  bool // left is set
}

// Waiting returns the bytes that are queued, or being written by something that waits.
func (o *Outbox) Waiting() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes
}

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

// SendThrough queues f if g is open and f.omit permits no omission. It is followed by Engine.Flush,
// which starts the writing. Fan does the same for many receivers.
func (o *Outbox) SendThrough(g *Gate, f *Frame) bool {
	o.mu.Lock()
	ok, slow := o.appendThroughLocked(g, f)
	o.mu.Unlock()
	o.afterAppend(slow)
	return ok
}

func (o *Outbox) appendThroughLocked(g *Gate, f *Frame) (ok, slow bool) {
	if !g.open || f.omit != nil && o.omitLocked(g, f) {
		return false, false
	}
	return o.appendLocked(f)
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
	if n == 0 && o.form.IsForeign() {
		return true, false // this client does not receive it
	}
	waiting := o.bytes
	if f.list {
		o.addListLocked(f, n)
	} else {
		if waiting+n > int64(o.flusher.engine.cfg.MaxBytes) && o.overLocked(waiting, n) {
			o.disconnectLocked(codeSlowConsumer, "slow consumer")
			return false, true
		}
		o.addLocked(n)
	}
	var chain *queue
	o.pushLocked(f, &chain)
	putQueues(chain)
	if waiting+n >= batchBytes {
		o.flusher.urgent.Store(true)
		if o.cork.in {
			o.uncorkLocked()
		}
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
func (o *Outbox) queuedLocked(waiting int64) int64 {
	return waiting - o.writingLocked() - o.listBytesLocked()
}

// Control queues bytes of the transport itself, which are written before the queued frames.
// They replace queued bytes of the same kind. It reports whether they were queued: they are not
// after Close.
func (o *Outbox) Control(kind ControlKind, wire []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.rareLocked().control[kind] = wire
	o.startLocked()
	return true
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

func (o *Outbox) closeFrameLocked() (code int, reason string) {
	e := o.endedLocked()
	if e == nil {
		return 0, ""
	}
	return e.code, e.reason
}

func (o *Outbox) closeLocked(code int, reason string) {
	o.noteLeftLocked()
	o.closed = true
	e := o.endingLocked()
	e.code = code
	e.reason = reason
}

// disconnect disconnects the client: the queued frames are dropped, and only the close frame is
// still written. It reports whether any bytes were queued.
func (o *Outbox) disconnect(code int, reason string) bool {
	o.mu.Lock()
	first := !o.closed
	had := o.bytes > 0
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
	putQueues(o.dequeueLocked(len(o.waitingLocked())))
	o.addLocked(-o.bytes)
}

func (o *Outbox) addLocked(n int64) {
	o.bytes += n
	o.flusher.waiting.Add(n)
}

func (o *Outbox) endLocked() {
	if o.ended {
		return
	}
	o.ended = true
	if e := o.endedLocked(); e != nil && e.done != nil {
		close(e.done)
	}
	o.flusher.engine.forget(o)
}

// wakeLocked adds o to the list of its flusher, unless it is there or a drain writes. The caller
// must then call flusher.start.
func (o *Outbox) wakeLocked() {
	if o.mustListLocked() {
		o.listed = true
		o.flusher.add(o)
	}
}

// mustListLocked reports whether something that has been queued must be passed to the flusher.
func (o *Outbox) mustListLocked() bool { return !o.listed && !o.drains && !o.held && !o.ended }

func (o *Outbox) startLocked() {
	o.wakeLocked()
	o.flusher.start()
}

// pendingLocked reports whether there is something to write.
func (o *Outbox) pendingLocked() bool {
	return !o.ended && (o.one[0] != nil || o.queue != nil || o.closed || o.rare != nil && o.rare.control.queued())
}

// writtenLocked subtracts the bytes that were being written from the queued bytes. If disconnect
// or Discard was called during the write, they have already subtracted all of them.
func (o *Outbox) writtenLocked() {
	r := o.rare
	if r == nil {
		return
	}
	o.addLocked(-r.writing)
	r.writing = 0
	r.made = 0
	o.listsWrittenLocked()
	o.releaseRareLocked()
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
	waiting := o.waitingLocked()
	i, bytes := 0, 0
	for ; i < len(waiting) && (i == 0 || bytes < limit); i++ {
		bytes += len(waiting[i].Bytes(o.form))
	}
	frames = append(dst, waiting[:i]...)
	if i > 0 {
		o.takenLocked(waiting[:i], int64(bytes))
		o.rareLocked().made = firstMade(waiting[:i])
		holes := o.holesLocked(waiting[:i])
		o.flusher.sent.messages.Add(uint64(i - holes))
		o.flusher.sent.bytes.Add(uint64(bytes))
		if holes > 0 {
			frames = slices.DeleteFunc(frames, func(f *Frame) bool { return f == hole })
		}
		putQueues(o.dequeueLocked(i))
		return frames, nil
	}
	if code, reason := o.closeFrameLocked(); code != 0 {
		end = &CloseFrame{
			Code:   code,
			Reason: reason,
		}
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
