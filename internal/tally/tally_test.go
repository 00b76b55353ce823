package tally_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/tally"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h tally.Histogram
	for _, d := range []time.Duration{-time.Second, 0, 100 * time.Microsecond, 100*time.Microsecond + 1, 10 * time.Second, time.Minute} {
		h.Add(d)
	}
	counts, sum := h.Load()
	assert.Equal(t, [tally.Buckets]uint64{0: 3, 1: 1, 10: 1, 11: 1}, counts)
	assert.Equal(t, 70*time.Second+200*time.Microsecond+1, sum)
}

func TestNamesDoNotGrow(t *testing.T) {
	t.Parallel()
	n := tally.NewNames("a", "b")
	for _, name := range []string{"a", "a", "c", "", "other"} {
		n.Add(name)
	}
	assert.Equal(t, map[string]uint64{"a": 2, "b": 0, "other": 3}, n.Load())
}

func TestTraffic(t *testing.T) {
	t.Parallel()
	var traffic tally.Traffic
	var writers sync.WaitGroup
	for range 40 {
		lane := traffic.Lane()
		writers.Go(func() {
			for range 100 {
				traffic.Add(lane, 7)
			}
		})
	}
	writers.Wait()
	messages, bytes := traffic.Load()
	assert.Equal(t, uint64(4000), messages)
	assert.Equal(t, uint64(28000), bytes)
}
