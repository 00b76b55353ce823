package fanout

import (
	"runtime"
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
	// Write writes p, which holds whole frames or the rest of some, within
	// timeout. It must not keep p. After an error nothing more is written.
	Write(p []byte, timeout time.Duration) error
	// Finish says goodbye with a close code and reason, within timeout. It is
	// the last call, and not made after an error of Write.
	Finish(code int, reason string, timeout time.Duration)
}

// Socket is a Writer that may be able to write without waiting, so that it needs
// no goroutine of its own while it takes what there is.
type Socket interface {
	Writer
	// Direct returns what writes so, or nil if nothing does. It never changes.
	Direct() Direct
	// Broken tells that Direct has failed.
	Broken()
}

// Direct is the part of a Socket that a pass looks at. There are as many as
// connections, and memory that is not looked at need not be fetched: it is best
// small and apart from the rest.
type Direct interface {
	// TryWrite writes what the socket takes at once and returns how much that
	// was: less than all of p, without an error, if it is full. It never waits.
	TryWrite(p []byte) (n int, err error)
}

// Puller fetches what waits with Outbox.Take when it can write, such as while a
// client polls.
type Puller interface {
	Endpoint
	// Wake tells that there is something to take. It must not block.
	Wake()
}

// Config holds an Engine's bounds; each must be set but Flushers.
type Config struct {
	MaxBytes     int           // waiting in one Outbox
	MaxTotal     int64         // waiting in all of them
	WriteTimeout time.Duration // for one Write or Finish
	MaxGather    time.Duration // that a pass may wait for more; none if not above zero
	Flushers     int           // 0 is for half the processors
}

// Close codes an Outbox gives itself (PROTOCOL.md, section 3).
const (
	codeLost         = 1006
	codeSlowConsumer = 3008
)

// Engine owns the outboxes of a Server, what they may hold together, and the
// flushers that empty them.
type Engine struct {
	cfg      Config
	flushers []flusher
	next     atomic.Uint32 // the flusher of the next Outbox
	arrivals arrivals
	coming   atomic.Int64   // bytes of lists that AwaitRoom has let pass and that are not queued yet
	running  sync.WaitGroup // flushers and drains

	mu    sync.Mutex
	first *Outbox // of all that have not ended, by their links
}

// New returns an Engine without outboxes. It has no goroutine while nothing
// waits.
func New(cfg Config) *Engine {
	e := &Engine{cfg: cfg}
	n := cfg.Flushers
	if n == 0 {
		// The kernel's network and the readers need processors, too, and
		// connections that are written to together are written to for less.
		n = max(1, runtime.GOMAXPROCS(0)/2)
	}
	e.flushers = make([]flusher, n)
	for i := range e.flushers {
		e.flushers[i].engine = e
	}
	return e
}

// NewOutbox returns an empty Outbox for end. onCut is called once, if
// the Outbox gives the connection up (too much waits, a write fails or takes
// too long); it must not block, and may be called with the caller's own locks
// held, but never with the Outbox's.
func (e *Engine) NewOutbox(end Endpoint, onCut func(code int, reason string)) *Outbox {
	o := &Outbox{end: end, form: end.Form(), onCut: onCut}
	o.flusher = &e.flushers[e.next.Add(1)%uint32(len(e.flushers))]
	if s, ok := end.(Socket); ok {
		o.direct = s.Direct()
	}
	_, writes := end.(Writer)
	if _, pulls := end.(Puller); writes == pulls {
		panic("fanout: an Endpoint is either a Writer or a Puller")
	}
	e.mu.Lock()
	if o.next = e.first; o.next != nil {
		o.next.prev = o
	}
	e.first = o
	e.mu.Unlock()
	return o
}

// Flush begins to write what SendThrough has queued: an event for many is
// queued for all of them first. It counts as one arrival, by which the flushers
// judge whether waiting for more is worth it.
func (e *Engine) Flush() {
	e.arrivals.add(time.Now())
	for i := range e.flushers {
		e.flushers[i].start()
	}
}

// Waiting returns how many bytes wait in all outboxes. A frame shared by several
// counts in full for each, but for lists, which count once.
func (e *Engine) Waiting() int64 {
	var n int64
	for i := range e.flushers {
		n += e.flushers[i].waiting.Load()
	}
	return n
}

// Wait blocks until no goroutine of the Engine is left. Every Outbox must have
// been closed or discarded.
func (e *Engine) Wait() { e.running.Wait() }

// relieve cuts the outboxes with most waiting until the bound holds again.
func (e *Engine) relieve() {
	for e.Waiting() > e.cfg.MaxTotal {
		var most *Outbox
		var bytes int64
		e.mu.Lock()
		for o := e.first; o != nil; o = o.next {
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

// forget takes an Outbox that has ended out. It is called once.
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
