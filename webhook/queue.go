package webhook

import (
	"slices"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
)

const (
	maxQueued      = 10_000
	maxQueuedBytes = 8 << 20
	maxBatch       = 100
	maxBatchBytes  = 256 << 10
	maxGather      = 50 * time.Millisecond
)

// queue has the events that wait, oldest first. It is bounded: events over the bound are
// counted, and an EventsLost takes their place.
type queue struct {
	lostEvent func(count int, reason string) item

	mu      sync.Mutex
	items   []item
	bytes   int
	since   time.Time // when the first item was pushed, or became the first
	lost    int       // events that followed the last item, with those of each EventsLost among them
	lostRev broker.Position
}

func newQueue(lostEvent func(count int, reason string) item) *queue {
	return &queue{lostEvent: lostEvent}
}

// push adds an event. It does not block.
func (q *queue) push(it item) {
	q.mu.Lock()
	if q.hasRoomLocked(len(it.json)) {
		q.settleLocked()
		q.addLocked(it)
	} else {
		q.lost += it.count
		q.lostRev = it.rev
	}
	q.mu.Unlock()
}

// hasRoomLocked keeps one place for an EventsLost. After an overflow, events are lost until an
// eighth of the queue is empty, because each time that it has room costs an EventsLost.
func (q *queue) hasRoomLocked(size int) bool {
	most := maxQueued - 1
	bytes := maxQueuedBytes
	if q.lost > 0 {
		most -= most / 8
		bytes -= bytes / 8
	}
	return len(q.items) < most && (q.bytes+size <= bytes || len(q.items) == 0)
}

func (q *queue) addLocked(it item) {
	if len(q.items) == 0 {
		q.since = time.Now()
	}
	q.items = append(q.items, it)
	q.bytes += len(it.json)
}

// settleLocked adds the EventsLost for the events that were lost.
func (q *queue) settleLocked() {
	if q.lost == 0 {
		return
	}
	it := q.lostEvent(q.lost, reasonOverflow)
	it.rev = q.lostRev
	q.lost = 0
	q.lostRev = broker.Position{}
	q.addLocked(it)
}

// batch returns the next events, or how long to wait for more of them. It returns nothing and
// zero if the queue is empty.
func (q *queue) batch(now time.Time, hurry bool) (items []item, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		q.settleLocked()
	}
	if len(q.items) == 0 {
		return nil, 0
	}
	n := 0
	size := 0
	for n < len(q.items) && n < maxBatch && (n == 0 || size+len(q.items[n].json) <= maxBatchBytes) {
		size += len(q.items[n].json)
		n++
	}
	full := n == maxBatch || n < len(q.items)
	if wait = maxGather - now.Sub(q.since); !full && !hurry && wait > 0 {
		return nil, wait
	}
	return slices.Clone(q.items[:n]), 0
}

// done removes the first n events.
func (q *queue) done(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.removeLocked(n)
}

// expire replaces the first n events with an EventsLost.
func (q *queue) expire(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	rev := q.items[n-1].rev
	count := 0
	for _, it := range q.items[:n] {
		count += it.count
	}
	q.removeLocked(n)
	it := q.lostEvent(count, reasonExpired)
	it.rev = rev
	q.insertLocked(it)
}

// pushFront adds an event that precedes those that wait.
func (q *queue) pushFront(it item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.insertLocked(it)
}

func (q *queue) insertLocked(it item) {
	if len(q.items) == 0 {
		q.since = time.Now()
	}
	q.items = slices.Insert(q.items, 0, it)
	q.bytes += len(it.json)
}

func (q *queue) removeLocked(n int) {
	for _, it := range q.items[:n] {
		q.bytes -= len(it.json)
	}
	clear(q.items[:n])
	q.items = q.items[n:]
	q.since = time.Now()
	if len(q.items) == 0 {
		q.items = nil
	}
}

// len returns the number of events that wait, with those that were lost.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) + q.lost
}

func (q *queue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = nil
	q.bytes = 0
	q.lost = 0
}

// dropSent removes the events that another node has sent: those of entries up to sent.
func (q *queue) dropSent(sent broker.Position) {
	q.mu.Lock()
	defer q.mu.Unlock()
	isSent := func(rev broker.Position) bool { return rev.Epoch == sent.Epoch && rev.Offset <= sent.Offset }
	q.items = slices.DeleteFunc(q.items, func(it item) bool {
		if isSent(it.rev) {
			q.bytes -= len(it.json)
			return true
		}
		return false
	})
	if q.lost > 0 && isSent(q.lostRev) {
		q.lost = 0
	}
}

// first returns the lowest position of the events that wait in an epoch.
func (q *queue) first(epoch string) (offset uint64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items {
		if it.rev.Epoch == epoch && (!ok || it.rev.Offset < offset) {
			offset = it.rev.Offset
			ok = true
		}
	}
	return offset, ok
}
