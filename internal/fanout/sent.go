package fanout

import (
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/internal/tally"
)

// sent counts what one flusher has passed to transports. A flusher adds to it once in each pass, and
// not for each connection.
type sent struct {
	messages atomic.Uint64
	bytes    atomic.Uint64
	delay    tally.Histogram
}

// add counts what a batch has taken.
func (s *sent) add(b *batch) {
	s.messages.Add(uint64(b.taken))
	s.bytes.Add(uint64(b.bytes))
	b.taken = 0
	b.bytes = 0
}

// Sent is what an Engine has passed to the transports.
type Sent struct {
	// Messages is the number of frames. The events that are replayed for one client can be one.
	Messages uint64
	Bytes    uint64 // of the frames and of control frames, in the form of each transport
	// The time from NewFrame until a frame was written to a socket that accepted it at once: one
	// for each pass of a flusher, of the last connection in it, which has waited longest.
	Delays   [tally.Buckets]uint64
	DelaySum time.Duration
}

// Sent returns the sums since New.
func (e *Engine) Sent() Sent {
	var all Sent
	for i := range e.flushers {
		s := &e.flushers[i].sent
		all.Messages += s.messages.Load()
		all.Bytes += s.bytes.Load()
		counts, sum := s.delay.Load()
		for bucket, n := range counts {
			all.Delays[bucket] += n
		}
		all.DelaySum += sum
	}
	return all
}
