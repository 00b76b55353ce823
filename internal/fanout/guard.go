package fanout

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrGuard is the error of a Guarded that has room for all bytes, so that its WriteNow is to be called.
var ErrGuard = errors.New("fanout: the write needs a guard")

// Guarded is a Direct that can find out whether a write would wait, but with less certainty than
// TryWrite has to have. If a WriteNow waits after all, its flusher continues in another goroutine,
// so that no other connection waits for long.
type Guarded interface {
	Direct
	// WriteNow writes p after TryWrite has returned ErrGuard for it. After an error nothing
	// more is written.
	WriteNow(p []byte) error
	// Waits is called during a WriteNow that waits. It must fail when timeout has passed.
	Waits(timeout time.Duration)
	// Waited is called when a WriteNow that waited has succeeded.
	Waited()
}

// guardTick is the interval at which a guard looks at the write that is being made. A write that
// it sees twice waits.
const guardTick = 2 * time.Millisecond

// guard watches the calls of WriteNow of one flusher.
type guard struct {
	// state is odd while a WriteNow is being made; each has its own number. It is changed back by
	// the flusher when the call has returned, or by the guard, and then the flusher has lost its
	// pass.
	state atomic.Uint64
	armed atomic.Bool // the timer runs
	seen  atomic.Uint64

	now   taken // the flusher writes it before it makes state odd
	timer *time.Timer

	mu sync.Mutex // held while the guard takes the pass from a flusher
}

// taken is what a flusher has taken from an Outbox for a write.
type taken struct {
	o       *Outbox
	size    int64 // bytes of the frames
	counted bool  // as being written
	made    int64 // see batch.made
}

// unwrittenLocked counts the bytes of a write that has not been completed.
func (t *taken) unwrittenLocked() {
	if t.o.ended {
		return
	}
	r := t.o.rareLocked()
	if !t.counted {
		r.writing = t.size
		t.o.addLocked(t.size)
	}
	r.made = t.made
}

// arm starts the timer for the rest of a pass.
func (g *guard) arm() {
	if !g.armed.Load() {
		g.armed.Store(true) // before a tick looks at it
		g.timer.Reset(guardTick)
	}
}

// disarm is called at the end of a pass. One more tick can follow.
func (g *guard) disarm() {
	if g.armed.Load() {
		g.armed.Store(false)
		g.timer.Stop()
	}
}

// writeNow calls WriteNow. If it reports that the flusher was relieved, another goroutine continues
// the pass, and this one has been made the drain of the Outbox.
func (f *flusher) writeNow(p []byte, t taken) (relieved bool, err error) {
	g := &f.guard
	direct := t.o.direct.(Guarded)
	g.now = t
	g.arm()
	write := g.state.Add(1)
	err = direct.WriteNow(p)
	if g.state.CompareAndSwap(write, write+1) {
		return false, err
	}
	g.mu.Lock() // the guard has finished
	if err == nil {
		direct.Waited()
	}
	g.mu.Unlock()
	return true, err
}

// relieve is called by the timer of the guard. If the flusher waits in a WriteNow, relieve makes it the
// drain of that connection, and continues its pass.
func (f *flusher) relieve() {
	g := &f.guard
	g.mu.Lock()
	write := g.state.Load()
	if write%2 == 0 || g.seen.Swap(write) != write || !g.state.CompareAndSwap(write, write+1) {
		g.mu.Unlock()
		if g.armed.Load() {
			g.timer.Reset(guardTick)
		}
		return
	}
	o := g.now.o
	o.mu.Lock()
	g.now.unwrittenLocked()
	o.drainLocked()
	o.mu.Unlock()
	o.direct.(Guarded).Waits(f.engine.cfg.WriteTimeout)
	f.engine.running.Add(1)
	g.mu.Unlock()

	g.timer.Reset(guardTick)
	f.batch.leave()
	f.waited = true
	f.run(true)
}

// drainRelieved is the end of a flusher that was relieved while it wrote for o.
func (o *Outbox) drainRelieved(err error) {
	o.mu.Lock()
	o.writtenLocked()
	if err != nil {
		o.drains = false
	}
	o.mu.Unlock()
	if err != nil {
		o.end.(Socket).Broken()
		o.Lost(err)
		return
	}
	o.drain(nil)
}
