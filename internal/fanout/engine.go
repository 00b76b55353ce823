package fanout

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Endpoint is the writing end of one connection: a Writer or a Puller.
type Endpoint interface {
	// Form returns the form in which the transport needs its frames. It never changes.
	Form() Form
}

// Writer is written to as soon as a frame is queued. An Outbox is its only caller and makes
// one call at a time.
type Writer interface {
	Endpoint
	// Write writes p, which contains whole frames or the rest of some, within timeout. It
	// must not keep p. After an error nothing more is written.
	Write(p []byte, timeout time.Duration) error
	// Finish sends a close frame with a close code and reason, within timeout. It is the
	// last call, and is not made after an error of Write.
	Finish(code int, reason string, timeout time.Duration)
}

// Socket is a Writer that can write without waiting, so that it needs no goroutine of its
// own while the socket accepts the bytes.
type Socket interface {
	Writer
	// Direct returns the Direct of the socket, or nil if it has none. It never changes.
	Direct() Direct
	// Broken reports that Direct has failed.
	Broken()
}

// Direct is the part of a Socket that a pass uses. There is one for each connection, so it
// should be small and separate from the rest: memory that a pass does not read need not be
// loaded into the cache.
type Direct interface {
	// TryWrite writes as much as the socket accepts at once and returns the number of
	// bytes. If the socket is full, this is less than len(p), and the error is nil.
	// TryWrite never waits.
	TryWrite(p []byte) (n int, err error)
}

// Puller fetches queued frames with Outbox.Take when it can write, for example while a
// client polls.
type Puller interface {
	Endpoint
	// Wake reports that frames are queued. It must not block. It returns what it costs about that
	// another goroutine writes them, or 0 if Wake has written them itself.
	Wake() time.Duration
}

// Config has the limits of an Engine. All fields must be set, except Flushers.
type Config struct {
	MaxBytes     int           // queued in one Outbox
	MaxTotal     int64         // queued in all outboxes
	WriteTimeout time.Duration // for one Write or Finish
	MaxGather    time.Duration // the longest delay of a pass for more events; if not positive, none
	Flushers     int           // 0 means half the number of processors, at least 1
	Compress     Compress      // of Engine.Compress
}

// Close codes that an Outbox chooses itself (PROTOCOL.md, section 3).
const (
	codeLost         = 1006
	codeSlowConsumer = 3008
)

// Engine has the outboxes of a Server, the limit for all of them together, and the flushers
// that write.
type Engine struct {
	cfg      Config
	flushers []flusher
	fans     sync.Pool     // *Fan
	next     atomic.Uint32 // the flusher of the next Outbox
	arrivals arrivals
	deflated deflations
	coming   atomic.Int64   // bytes of lists that AwaitRoom has admitted and that are not queued yet
	running  sync.WaitGroup // flushers and drains

	mu    sync.Mutex
	first *Outbox // the head of the linked list of outboxes that have not ended

	shedding sync.Mutex // held by disconnectLargest

	counting sync.Mutex
	censuses uint32 // the number of the last Census
}

// New returns an Engine without outboxes. It has no goroutine while nothing is queued.
func New(cfg Config) *Engine {
	e := &Engine{cfg: cfg}
	n := cfg.Flushers
	if n == 0 {
		// The kernel's network stack and the readers need processors, too, and fewer
		// flushers write larger batches, which cost less per connection.
		n = max(1, runtime.GOMAXPROCS(0)/2)
	}
	n = min(n, math.MaxUint16) // see Outbox.lane
	e.flushers = make([]flusher, n)
	for i := range e.flushers {
		f := &e.flushers[i]
		f.engine = e
		f.guard.timer = time.AfterFunc(guardTick, f.relieve) // the first tick finds nothing
	}
	return e
}

// NewOutbox returns an empty Outbox for end. onDisconnect is called once if the Outbox ends the
// connection, because too many bytes are queued or a write fails or takes too long. It must
// not block. It can be called while the caller holds its own locks, but not while the
// Outbox's lock is held.
func (e *Engine) NewOutbox(end Endpoint, onDisconnect func(code int, reason string)) *Outbox {
	o := &Outbox{
		end:          end,
		form:         end.Form(),
		onDisconnect: onDisconnect,
	}
	o.lane = uint16(e.next.Add(1) % uint32(len(e.flushers)))
	o.flusher = &e.flushers[o.lane]
	if s, ok := end.(Socket); ok {
		o.direct = s.Direct()
	}
	_, writes := end.(Writer)
	if _, pulls := end.(Puller); writes == pulls {
		panic("fanout: an Endpoint is either a Writer or a Puller")
	}
	e.mu.Lock()
	o.next = e.first
	if o.next != nil {
		o.next.prev = o
	}
	e.first = o
	e.mu.Unlock()
	return o
}

// Flush starts to write what SendThrough has queued. An event for many receivers is first
// queued for all of them. A call of Flush counts as the arrival of one event; from the
// arrivals, the flushers decide whether to wait for more events, see the package comment.
func (e *Engine) Flush() {
	e.arrivals.add(time.Now())
	for i := range e.flushers {
		e.flushers[i].start()
	}
}

// Waiting returns the number of bytes that are queued in all outboxes. A frame that several
// outboxes share counts once for each of them; a list counts only once.
func (e *Engine) Waiting() int64 {
	var n int64
	for i := range e.flushers {
		n += e.flushers[i].waiting.Load()
	}
	return max(0, n) // a Fan and a pass count only a few times, and the Fan can be later
}

// Wait blocks until all goroutines of the Engine have ended. Every Outbox must have been
// closed or discarded.
func (e *Engine) Wait() { e.running.Wait() }

// disconnectLargest disconnects the outboxes with the most queued bytes until MaxTotal is respected.
// One goroutine does so for all: several would each disconnect as many as one has to. The others do
// not wait for it, because it looks at Waiting again when it has finished.
func (e *Engine) disconnectLargest() {
	for e.Waiting() > e.cfg.MaxTotal && e.shedding.TryLock() {
		disconnected := e.Shed(e.Waiting() - e.cfg.MaxTotal)
		e.shedding.Unlock()
		if disconnected == 0 {
			return
		}
	}
}

// forget removes an Outbox that has ended from the list. It is called once for each Outbox.
func (e *Engine) forget(o *Outbox) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if o.next != nil {
		o.next.prev = o.prev
	}
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		e.first = o.next
	}
	o.prev, o.next = nil, nil
}
