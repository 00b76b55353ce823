package limit_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/limit"
)

func TestRate(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000000, 0)
	r := limit.NewRate(10, 20)
	var allowed atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if _, ok := r.Take(now, 1); ok {
					allowed.Add(1)
				}
			}
		})
	}
	all.Wait()
	assert.Equal(t, int64(20), allowed.Load())
	wait, ok := r.Take(now, 3)
	assert.False(t, ok)
	assert.Equal(t, 300*time.Millisecond, wait)
	_, ok = r.Take(now.Add(wait), 3)
	assert.True(t, ok)

	for _, off := range []*limit.Rate{nil, limit.NewRate(0, 5), limit.NewRate(-1, 5)} {
		_, ok := off.Take(now, 1_000_000)
		assert.True(t, ok)
	}
}
