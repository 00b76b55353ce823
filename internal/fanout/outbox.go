package fanout

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Endpoint is the writing end of one connection: a Writer or a Puller.
type Endpoint interface {
	// Form is the shape in which it wants its frames; it never changes.
	Form() Form
}

// Writer is written to as soon as something waits. An Outbox is its only caller
// and makes one call at a time.
type Writer interface {
	Endpoint
	// Write writes p, which holds whole frames, within timeout. It must not
	// keep p. After an error nothing more is written.
	Write(p []byte, timeout time.Duration) error
	// Finish says goodbye with a close code and reason, within timeout. It is
	// the last call, and not made after an error of Write.
	Finish(code int, reason string, timeout time.Duration)
}

// Puller fetches what waits with Outbox.Take when it can write, such as while a
// client polls.
type Puller interface {
	Endpoint
	// Wake tells that there is something to take. It must not block, and is
	// called with the Outbox's lock held.
	Wake()
}

// Config holds an Engine's bounds; each must be set.
type Config struct {
	MaxBytes     int           // waiting in one Outbox
	MaxTotal     int64         // waiting in all of them
	WriteTimeout time.Duration // for one Write or Finish
}

// Close codes an Outbox gives itself (PROTOCOL.md, section 3).
const (
	codeLost         = 1006
	codeSlowConsumer = 3008
)

// batchBytes is how much one write joins. A larger frame is written alone.
const batchBytes = 64 << 10

// Engine owns the outboxes of a Server and what they may hold together.
type Engine struct {
	cfg   Config
	total atomic.Int64
	drain sync.WaitGroup

	mu       sync.Mutex
	outboxes map[*Outbox]struct{}
}

// New returns an Engine without outboxes.
func New(cfg Config) *Engine {
	return &Engine{cfg: cfg, outboxes: map[*Outbox]struct{}{}}
}

// Waiting returns how many bytes wait in all outboxes, a frame shared by
// several counted in full for each.
func (e *Engine) Waiting() int64 { return e.total.Load() }

// Wait blocks until no goroutine of the Engine is left. Every Outbox must have
// been closed or discarded.
func (e *Engine) Wait() { e.drain.Wait() }

// relieve cuts the outboxes with most waiting until the bound holds again.
func (e *Engine) relieve() {
	for e.total.Load() > e.cfg.MaxTotal {
		var most *Outbox
		var bytes int64
		e.mu.Lock()
		for o := range e.outboxes {
			if n := o.bytes.Load(); n > bytes {
				most, bytes = o, n
			}
		}
		e.mu.Unlock()
		if most == nil || !most.cut(codeSlowConsumer, "server buffers full") {
			return
		}
	}
}

// Gate lets the frames of one subscription into an Outbox: none before Open,
// none after Shut. Its zero value is shut. The Outbox's lock guards it, so the
// answer to "may this go in" and the going in are one step.
type Gate struct{ open bool }

// ControlKind names the one slot that a control frame may wait in: a newer one
// replaces it, so that a client that asks but never reads cannot fill memory.
type ControlKind uint8

const (
	Pong ControlKind = iota
	Heartbeat
	controlKinds
)

// Outbox is what waits to be written to one connection, in order. It never
// blocks who puts something in. All methods are safe for concurrent use.
type Outbox struct {
	engine *Engine
	writer Writer // or puller
	puller Puller
	form   Form
	onCut  func(code int, reason string)
	done   chan struct{}
	bytes  atomic.Int64 // waiting or being written; changed under mu

	mu       sync.Mutex
	queue    []*Frame
	control  [controlKinds][]byte
	draining bool // a goroutine owns the socket's writing side
	held     bool // nothing is to be written yet
	closed   bool // nothing more goes in
	ended    bool // done is closed
	code     int
	reason   string
}

// NewOutbox returns an empty Outbox for end. onCut is called once, if
// the Outbox gives the connection up (too much waits, a write fails or takes
// too long); it must not block, and may be called with the caller's own locks
// held, but never with the Outbox's.
func (e *Engine) NewOutbox(end Endpoint, onCut func(code int, reason string)) *Outbox {
	o := &Outbox{engine: e, form: end.Form(), onCut: onCut, done: make(chan struct{})}
	o.writer, _ = end.(Writer)
	o.puller, _ = end.(Puller)
	if (o.writer == nil) == (o.puller == nil) {
		panic("fanout: an Endpoint is either a Writer or a Puller")
	}
	e.mu.Lock()
	e.outboxes[o] = struct{}{}
	e.mu.Unlock()
	return o
}

// Hold keeps what is queued from being written until Release. It is called
// before anything is queued.
func (o *Outbox) Hold() {
	o.mu.Lock()
	o.held = true
	o.mu.Unlock()
}

// Release begins the writing.
func (o *Outbox) Release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held = false
	o.wakeLocked() // if only for a Close meanwhile
}

// Send queues f. It reports whether f went in: not after Close, and not over
// the bound, which cuts the connection. A frame of any size goes into an empty
// Outbox.
func (o *Outbox) Send(f *Frame) bool { return o.send(f, nil) }

// SendThrough queues f if g is open.
func (o *Outbox) SendThrough(g *Gate, f *Frame) bool { return o.send(f, g) }

// Open queues f and opens g in one step: what goes through g comes after f.
func (o *Outbox) Open(g *Gate, f *Frame) bool {
	o.mu.Lock()
	ok, cut := o.appendLocked(f)
	g.open = ok
	o.mu.Unlock()
	o.settle(cut)
	return ok
}

// Shut shuts g and, if it was open and f is not nil, queues f in the same
// step: what went through g comes before f. It reports whether g was open.
func (o *Outbox) Shut(g *Gate, f *Frame) bool {
	o.mu.Lock()
	was, cut := g.open, false
	g.open = false
	if was && f != nil {
		_, cut = o.appendLocked(f)
	}
	o.mu.Unlock()
	o.settle(cut)
	return was
}

func (o *Outbox) send(f *Frame, g *Gate) bool {
	o.mu.Lock()
	if g != nil && !g.open {
		o.mu.Unlock()
		return false
	}
	ok, cut := o.appendLocked(f)
	o.mu.Unlock()
	o.settle(cut)
	return ok
}

// settle does what an append may have made necessary, outside the lock.
func (o *Outbox) settle(cut bool) {
	if cut {
		o.onCut(codeSlowConsumer, "slow consumer")
	}
	if o.engine.total.Load() > o.engine.cfg.MaxTotal {
		o.engine.relieve()
	}
}

func (o *Outbox) appendLocked(f *Frame) (ok, cut bool) {
	if o.closed {
		return false, false
	}
	n := int64(len(f.Bytes(o.form)))
	if waiting := o.bytes.Load(); waiting > 0 && waiting+n > int64(o.engine.cfg.MaxBytes) {
		o.cutLocked(codeSlowConsumer, "slow consumer")
		return false, true
	}
	o.queue = append(o.queue, f)
	o.addLocked(n)
	o.wakeLocked()
	return true, false
}

// Control queues a transport's own bytes before the frames that wait. What
// still waits of the same kind is replaced.
func (o *Outbox) Control(kind ControlKind, wire []byte) {
	o.mu.Lock()
	if !o.closed {
		o.control[kind] = wire
		o.wakeLocked()
	}
	o.mu.Unlock()
}

// Close lets what waits go out, then says goodbye with code and reason.
// Nothing goes in after it. It reports whether it was the first to close.
func (o *Outbox) Close(code int, reason string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.closed, o.code, o.reason = true, code, reason
	o.wakeLocked()
	return true
}

// Discard drops what waits, says nothing and ends the Outbox, for a
// connection that is gone. A Write in progress still ends by itself.
func (o *Outbox) Discard() {
	o.mu.Lock()
	o.dropLocked()
	o.closed = true
	o.endLocked()
	o.mu.Unlock()
}

// Done is closed when nothing more will be written: after Finish, a failed
// write or Discard.
func (o *Outbox) Done() <-chan struct{} { return o.done }

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
		o.closed, o.code, o.reason = true, code, reason
	}
	o.wakeLocked()
}

func (o *Outbox) dropLocked() {
	o.queue, o.control = nil, [controlKinds][]byte{}
	o.addLocked(-o.bytes.Load())
}

func (o *Outbox) addLocked(n int64) {
	o.bytes.Add(n)
	o.engine.total.Add(n)
}

func (o *Outbox) endLocked() {
	if o.ended {
		return
	}
	o.ended = true
	close(o.done)
	o.engine.mu.Lock()
	delete(o.engine.outboxes, o)
	o.engine.mu.Unlock()
}

func (o *Outbox) wakeLocked() {
	if o.draining || o.held || o.ended {
		return
	}
	if o.puller != nil {
		o.puller.Wake()
		return
	}
	o.draining = true
	o.engine.drain.Add(1)
	go o.run()
}

var scratch = sync.Pool{New: func() any { b := make([]byte, 0, batchBytes); return &b }}

// run writes until nothing waits. The socket has no other writer while it
// lives; it ends when the Outbox is empty, so an idle connection keeps neither
// goroutine nor buffer.
func (o *Outbox) run() {
	defer o.engine.drain.Done()
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	timeout := o.engine.cfg.WriteTimeout
	for {
		o.mu.Lock()
		p, n := o.takeLocked((*buf)[:0])
		if len(p) == 0 {
			finish := o.closed && !o.ended
			if !finish {
				o.draining = false
				o.mu.Unlock()
				return
			}
			o.mu.Unlock()
			o.writer.Finish(o.code, o.reason, timeout)
			o.mu.Lock()
			o.endLocked()
			o.draining = false
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()

		err := o.writer.Write(p, timeout)

		o.mu.Lock()
		o.writtenLocked(n)
		if err != nil {
			o.draining = false
		}
		o.mu.Unlock()
		if err != nil {
			o.Lost(err)
			return
		}
	}
}

// writtenLocked takes n bytes off what waits. A cut or Discard meanwhile has
// taken the whole sum off already.
func (o *Outbox) writtenLocked(n int64) {
	if held := o.bytes.Load(); held > 0 {
		o.addLocked(-min(n, held))
	}
}

// Lost ends the Outbox because of a write that failed, or timed out.
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

// Goodbye is a close code and its reason.
type Goodbye struct {
	Code   int
	Reason string
}

// Take returns what waits, at least one frame and up to limit bytes, for a
// Puller to write; the slice is the caller's, and Written takes the bytes off
// what waits. Once nothing waits in a closed Outbox it returns its Goodbye, each
// time it is asked.
func (o *Outbox) Take(limit int) (frames []*Frame, bytes int, bye *Goodbye) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := 0
	for ; i < len(o.queue) && (i == 0 || bytes < limit); i++ {
		bytes += len(o.queue[i].Bytes(o.form))
	}
	frames = o.queue[:i:i]
	if o.queue = o.queue[i:]; len(o.queue) == 0 {
		o.queue = nil
	}
	if i == 0 && o.code != 0 {
		bye = &Goodbye{o.code, o.reason}
	}
	return frames, bytes, bye
}

// Written tells that bytes that Take gave are written.
func (o *Outbox) Written(bytes int) {
	o.mu.Lock()
	o.writtenLocked(int64(bytes))
	o.mu.Unlock()
}

// SaidGoodbye tells that the client has been told; Done is closed.
func (o *Outbox) SaidGoodbye() {
	o.mu.Lock()
	o.endLocked()
	o.mu.Unlock()
}

// takeLocked joins what waits, control frames first, up to batchBytes. It
// returns the bytes and how much of o.bytes they are.
func (o *Outbox) takeLocked(buf []byte) (p []byte, counted int64) {
	for i, c := range o.control {
		buf = append(buf, c...)
		o.control[i] = nil
	}
	i := 0
	for ; i < len(o.queue); i++ {
		b := o.queue[i].Bytes(o.form)
		if len(buf)+len(b) > batchBytes {
			if len(buf) > 0 {
				break
			}
			buf = b // alone, and not copied
			counted = int64(len(b))
			i++
			break
		}
		buf = append(buf, b...)
		counted += int64(len(b))
	}
	clear(o.queue[:i])
	o.queue = o.queue[i:]
	if len(o.queue) == 0 {
		o.queue = nil
	}
	return buf, counted
}
