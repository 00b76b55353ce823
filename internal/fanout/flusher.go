package fanout

import (
	"sync"
	"sync/atomic"
	"time"
)

// flusher writes for its share of the connections, one after the other. Its list has the
// connections with queued frames. A pass makes one write for each of them, regardless of
// the number of queued bytes. Its goroutine runs while the list is not empty.
type flusher struct {
	engine  *Engine
	waiting atomic.Int64  // queued bytes of its outboxes
	dropped atomic.Uint64 // frames that were omitted for slow connections
	urgent  atomic.Bool   // one of its outboxes has enough bytes for a full write

	mu      sync.Mutex
	ready   []*Outbox
	running bool

	// Only the goroutine uses these.
	pass   []*Outbox
	at     int           // how many outboxes of the pass have been written for
	began  int64         // when the pass began
	waited bool          // a write of the pass has waited
	spare  []*Outbox     // an empty array; it and ready are swapped in each pass
	each   time.Duration // the recent average time for one connection in a pass
	batch  batch
	warm   uint16 // see Fan.Touch

	corks corks
	guard guard
	sent  sent
	_     [64]byte // keeps the next flusher's counter out of this one's cache line
}

// add puts outboxes on the list; start must follow.
func (f *flusher) add(o ...*Outbox) {
	f.mu.Lock()
	f.ready = append(f.ready, o...)
	f.mu.Unlock()
}

// start starts the goroutine if the list is not empty and the goroutine does not run.
func (f *flusher) start() {
	f.mu.Lock()
	start := !f.running && len(f.ready) > 0
	if start {
		f.running = true
		f.engine.running.Add(1)
	}
	f.mu.Unlock()
	if start {
		go f.run(false)
	}
}

// run makes passes until the list is empty. within means that it begins with the rest of one.
func (f *flusher) run(within bool) {
	defer f.engine.running.Done()
	for within || f.next() {
		within = false
		if o, err := f.write(); o != nil {
			o.drainRelieved(err)
			return
		}
	}
}

// next begins a pass. If the list is empty, it reports false, and the goroutine must end.
func (f *flusher) next() bool {
	f.gather()
	f.mu.Lock()
	if len(f.ready) == 0 {
		f.batch.release()
		f.running = false
		f.mu.Unlock()
		return false
	}
	f.pass = f.ready
	f.ready = f.spare
	f.mu.Unlock()
	f.urgent.Store(false)
	f.batch.releaseOthers()
	f.batch.made = 0
	f.batch.indirect = 0
	f.at = 0
	f.waited = false
	f.began = clock()
	return true
}

// write writes for the rest of the pass. If the flusher was relieved, write returns the Outbox for
// which it has written, and the error of that write.
func (f *flusher) write() (relieved *Outbox, err error) {
	pass := f.pass
	for f.at < len(pass) {
		part := pass[f.at:min(len(pass), f.at+passPart)]
		for _, o := range part { // see Fan.Touch
			f.warm |= o.lane
		}
		for i, o := range part {
			part[i] = nil
			f.at++
			if relieved, err := o.flush(&f.batch); relieved {
				return o, err
			}
		}
		f.settle()
	}
	f.settle() // if the write for the last one has waited
	f.guard.disarm()
	ended := clock()
	if !f.waited {
		took := time.Duration(ended-f.began) + f.batch.indirect
		f.each += (took/time.Duration(len(pass)) - f.each) / 4
	}
	f.sent.add(&f.batch)
	if f.batch.made != 0 { // of the connection that has waited longest, one for each pass
		f.sent.delay.Add(time.Duration(ended - f.batch.made))
	}
	f.spare = pass[:0]
	return nil, nil
}

// IndirectCost is what a write costs that another goroutine makes: a drain, or the client of a
// Puller. A pass does not wait for these writes, so it cannot measure them.
const IndirectCost = 8 * time.Microsecond

// passPart is the number of connections after which a pass counts what it has written.
const passPart = 16

// settle counts what the batch has written.
func (f *flusher) settle() {
	if f.batch.done != 0 {
		f.waiting.Add(-f.batch.done)
		f.batch.done = 0
	}
}

// gather delays a pass if more events are likely to arrive before the pass would end, so
// that one pass does the work of several. It returns when the burst is over, or when an
// outbox has enough bytes for a full write. An isolated event is never delayed, and neither
// is one that is published only when the one before has been written. A pass is delayed for
// at most as long as it takes: events that arrive during a pass without delay would wait no
// longer.
func (f *flusher) gather() {
	f.mu.Lock()
	cost := time.Duration(len(f.ready)) * f.each
	f.mu.Unlock()
	a := &f.engine.arrivals
	now := time.Now()
	if cost < leastGather() || a.next(now) >= cost && !a.burst(now, cost) {
		return
	}
	until := now.Add(min(cost, f.engine.cfg.MaxGather))
	for ; now.Before(until) && !f.urgent.Load(); now = time.Now() {
		if a.isolated() {
			last := a.last.Load()
			if left := until.Sub(now); left < mostWithin {
				pause(left)
			} else { // it need not be exact, and keeps no thread
				time.Sleep(mostWithin)
			}
			if a.last.Load() == last {
				return
			}
			continue
		}
		quiet := a.quiet(now)
		if quiet <= 0 {
			return
		}
		pause(min(quiet, until.Sub(now)))
	}
}

// leastGather returns the least cost of a pass that can be delayed. A shorter wait than that costs more than it saves.
func leastGather() time.Duration { return max(shortestPause(), 100*time.Microsecond) }

// arrivals measures how often events arrive.
type arrivals struct {
	last    atomic.Int64 // time of the last event, in nanoseconds
	between atomic.Int64 // time between the last event and the one before, in nanoseconds
	smooth  atomic.Int64 // moving average of between
	within  atomic.Int64 // the longest of the recent values of between that are less than mostWithin
	follow  atomic.Int64 // moving average of the share of isolated events that were followed within mostWithin, in 1/1024
}

// mostBetween limits the influence of a pause on the average, so that the average follows
// the first events after the pause quickly.
const mostBetween = 20 * time.Millisecond

// mostWithin is the longest time between two events of a burst.
const mostWithin = time.Millisecond

func (a *arrivals) add(now time.Time) {
	at := now.UnixNano()
	between := min(max(0, at-a.last.Swap(at)), int64(mostBetween))
	smooth := a.smooth.Load()
	a.smooth.Store(smooth + (between-smooth)/8) // concurrent calls can count as one
	if a.isolated() {
		follow := a.follow.Load()
		if between < int64(mostWithin) {
			follow += 1024 / 8
		}
		a.follow.Store(follow - follow/8)
	}
	a.between.Store(between)
	if between < int64(mostWithin) {
		within := a.within.Load()
		a.within.Store(max(between, within-within/8))
	}
}

// next estimates the time from now until the next event. The estimate is never less than
// the time since the last event, because the series of events may have ended.
func (a *arrivals) next(now time.Time) time.Duration {
	return time.Duration(max(a.smooth.Load(), now.UnixNano()-a.last.Load()))
}

// isolated reports whether the last event is none of a burst, as far as is known: a burst may begin with it.
func (a *arrivals) isolated() bool { return a.between.Load() >= int64(mostWithin) }

// often is the share of isolated events that are the first of a burst, a quarter, from which on bursts are awaited. A
// pass that begins within a burst divides it, and the other part begins with an isolated event that may be the last
// one; with a share of half, bursts that were divided once often remained so.
const often = 1024 / 4

// burst reports whether the last event is likely to belong to a burst, whose next event comes within a time. The
// average does not tell that: it also has the pauses between bursts.
func (a *arrivals) burst(now time.Time, within time.Duration) bool {
	return a.follow.Load() >= often && a.within.Load() < int64(within) && now.UnixNano()-a.last.Load() < int64(mostWithin)
}

// quiet returns the time from now after which a burst is over if no event arrives: twice the longest
// recent time between two of its events has then passed since the last one.
func (a *arrivals) quiet(now time.Time) time.Duration {
	after := min(max(2*a.within.Load(), int64(shortestPause())), int64(mostWithin))
	return time.Duration(a.last.Load() + after - now.UnixNano())
}
