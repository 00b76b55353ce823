package limit

import (
	"sync"
	"time"
)

// Rate limits how often something happens on one server. It is a Bucket for many goroutines. A
// nil Rate has no limit.
type Rate struct {
	rate, burst int

	mu     sync.Mutex
	budget Bucket
}

// NewRate returns a Rate that allows rate events a second, and burst at once after a pause. It
// returns nil if rate is not positive.
func NewRate(rate, burst int) *Rate {
	if rate <= 0 {
		return nil
	}
	return &Rate{
		rate:  rate,
		burst: burst,
	}
}

// Take counts n events at the time now. If these are too many, it counts none and returns the
// time after which they are allowed.
func (r *Rate) Take(now time.Time, n int) (wait time.Duration, ok bool) {
	if r == nil {
		return 0, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.budget.Take(now, n, r.rate, r.burst)
}
