package fanout

import (
	"sync"
	"sync/atomic"
	"time"
)

// flusher writes for its share of the connections, one after the other: those
// that something waits for are on its list, and a pass makes one write for each,
// however much waits. Its goroutine lives while the list is not empty.
type flusher struct {
	engine  *Engine
	waiting atomic.Int64 // bytes, in its outboxes
	urgent  atomic.Bool  // for one of them a whole write waits

	mu      sync.Mutex
	ready   []*Outbox
	running bool

	// The goroutine's alone.
	spare []*Outbox     // the list's other array
	each  time.Duration // that one connection takes in a pass, lately
	batch batch
	_     [64]byte // the next one's counter is another processor's
}

// add puts o on the list; start must follow.
func (f *flusher) add(o *Outbox) {
	f.mu.Lock()
	f.ready = append(f.ready, o)
	f.mu.Unlock()
}

// start makes sure that what is on the list is being written.
func (f *flusher) start() {
	f.mu.Lock()
	start := !f.running && len(f.ready) > 0
	if start {
		f.running = true
		f.engine.running.Add(1)
	}
	f.mu.Unlock()
	if start {
		go f.run()
	}
}

func (f *flusher) run() {
	defer f.engine.running.Done()
	for {
		f.gather()
		f.mu.Lock()
		pass := f.ready
		if len(pass) == 0 {
			f.batch.release()
			f.running = false
			f.mu.Unlock()
			return
		}
		f.ready = f.spare
		f.mu.Unlock()
		f.urgent.Store(false)
		began := time.Now()
		for i, o := range pass {
			pass[i] = nil
			o.flush(&f.batch)
		}
		f.each += (time.Since(began)/time.Duration(len(pass)) - f.each) / 4
		f.spare = pass[:0]
	}
}

// gatherStep is about the shortest that a goroutine can sleep.
const gatherStep = time.Millisecond

// gather waits for more before a pass, if more is to be expected sooner than
// the pass takes: then one pass does the work of several. It ends when nothing
// has come for a moment, or as much has as one write takes. An event that comes
// alone is never held up.
func (f *flusher) gather() {
	f.mu.Lock()
	cost := time.Duration(len(f.ready)) * f.each
	f.mu.Unlock()
	a := &f.engine.arrivals
	for left := f.engine.cfg.MaxGather; left > 0 && a.next(time.Now()) < 2*cost && !f.urgent.Load(); left -= gatherStep {
		seen := a.count.Load()
		time.Sleep(min(left, gatherStep))
		if a.count.Load() == seen {
			return
		}
	}
}

// arrivals tells how often events come.
type arrivals struct {
	count  atomic.Uint64
	last   atomic.Int64 // when, in nanoseconds
	smooth atomic.Int64 // time between two, in nanoseconds, averaged over some
}

// mostBetween is what a pause counts at most, so that the first events after
// it are soon seen for what they are.
const mostBetween = 20 * time.Millisecond

func (a *arrivals) add(now time.Time) {
	at := now.UnixNano()
	between := min(max(0, at-a.last.Swap(at)), int64(mostBetween))
	smooth := a.smooth.Load()
	a.smooth.Store(smooth + (between-smooth)/8) // two at once may count as one
	a.count.Add(1)
}

// next is when another event is to be expected after now: not sooner than the
// last one is past, since a run of events may be over.
func (a *arrivals) next(now time.Time) time.Duration {
	return time.Duration(max(a.smooth.Load(), now.UnixNano()-a.last.Load()))
}
