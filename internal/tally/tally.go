// Package tally has the counters of a Server. Adding to them takes no lock and allocates nothing,
// and all methods are safe for concurrent use.
package tally

import (
	"slices"
	"sync/atomic"
	"time"
)

// Buckets is the number of buckets of a Histogram.
const Buckets = 12

// Bounds are the largest durations of the buckets, except the last one, which has no bound.
var Bounds = [Buckets - 1]time.Duration{
	100 * time.Microsecond,
	250 * time.Microsecond,
	time.Millisecond,
	2500 * time.Microsecond,
	10 * time.Millisecond,
	25 * time.Millisecond,
	100 * time.Millisecond,
	250 * time.Millisecond,
	time.Second,
	2500 * time.Millisecond,
	10 * time.Second,
}

// Histogram counts durations. The zero value is empty.
type Histogram struct {
	counts [Buckets]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

// Add counts a duration. One below zero, which a clock that was set back causes, counts as zero.
func (h *Histogram) Add(d time.Duration) {
	d = max(0, d)
	i := 0
	for i < len(Bounds) && d > Bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Load returns the number of durations in each bucket, and the sum of all durations.
func (h *Histogram) Load() (counts [Buckets]uint64, sum time.Duration) {
	for i := range h.counts {
		counts[i] = h.counts[i].Load()
	}
	return counts, time.Duration(h.sum.Load())
}

// Other is the name under which Names counts names that it does not have.
const Other = "other"

// Names counts by name. The names are given beforehand, so that nothing that comes from outside can
// make it grow.
type Names struct {
	names  []string
	counts []atomic.Uint64 // one more than names, for Other
}

// NewNames returns a Names for a few names, to which Other is added.
func NewNames(names ...string) *Names {
	return &Names{
		names:  names,
		counts: make([]atomic.Uint64, len(names)+1),
	}
}

// Add counts one for a name.
func (n *Names) Add(name string) {
	i := slices.Index(n.names, name)
	if i < 0 {
		i = len(n.names)
	}
	n.counts[i].Add(1)
}

// Load returns the number of each name, also of those that were never counted.
func (n *Names) Load() map[string]uint64 {
	all := make(map[string]uint64, len(n.counts))
	for i, name := range n.names {
		all[name] = n.counts[i].Load()
	}
	all[Other] = n.counts[len(n.names)].Load()
	return all
}

// Lanes is the number of places in which a Traffic counts.
const Lanes = 16

// Traffic counts messages and their bytes. Each writer counts in a lane of its own, if there are at
// most Lanes writers, so that processors do not wait for each other.
type Traffic struct {
	next  atomic.Uint32
	lanes [Lanes]lane
}

type lane struct {
	messages atomic.Uint64
	bytes    atomic.Uint64
	_        [48]byte // the next lane is in another cache line
}

// Lane returns a lane for a new writer.
func (t *Traffic) Lane() uint8 { return uint8(t.next.Add(1) % Lanes) }

// Add counts a message in a lane.
func (t *Traffic) Add(lane uint8, bytes int) {
	l := &t.lanes[lane%Lanes]
	l.messages.Add(1)
	l.bytes.Add(uint64(bytes))
}

// Load returns the sums of all lanes.
func (t *Traffic) Load() (messages, bytes uint64) {
	for i := range t.lanes {
		messages += t.lanes[i].messages.Load()
		bytes += t.lanes[i].bytes.Load()
	}
	return messages, bytes
}
