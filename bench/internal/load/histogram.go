package load

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets whose width is at most 1/64 of their value, so that a
// quantile is exact to 1.6 %.
type Histogram struct {
	counts [subBuckets * 40]uint64
	total  uint64
	max    time.Duration
}

const (
	subBuckets    = 64
	subBucketBits = 6
)

func bucket(ns uint64) int {
	if ns < subBuckets {
		return int(ns)
	}
	shift := bits.Len64(ns) - subBucketBits - 1
	return min((shift+1)*subBuckets+int(ns>>shift)-subBuckets, subBuckets*40-1)
}

// Add counts n durations of d.
func (h *Histogram) Add(d time.Duration, n uint64) {
	h.counts[bucket(uint64(max(d, 0)))] += n
	h.total += n
	h.max = max(h.max, d)
}

// Total returns the number of durations that were added.
func (h *Histogram) Total() uint64 { return h.total }

// Max returns the longest duration.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile returns the duration that a fraction q, from 0 to 1, of all durations does not
// exceed.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.total))
	for i, n := range h.counts {
		if n > rank {
			if i < subBuckets {
				return time.Duration(i)
			}
			shift := i/subBuckets - 1
			return time.Duration((uint64(subBuckets+i%subBuckets)<<shift + (uint64(1)<<shift)/2))
		}
		rank -= n
	}
	return h.max
}
