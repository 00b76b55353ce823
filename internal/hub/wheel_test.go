package hub

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// testWheel returns a wheel whose clock does not move.
func testWheel() *wheel {
	h := &Hub{}
	now := time.Unix(1700000000, 0)
	h.cfg.Now = func() time.Time { return now }
	h.stopping = context.Background()
	h.wheel.hub = h
	return &h.wheel
}

// An entry takes little memory, and leaves none behind.
func TestWheelMemory(t *testing.T) {
	w := testWheel()
	const n = 200_000
	m := &membership{}
	leases := make([]*lease, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range leases {
		leases[i] = newLease(m, time.Unix(1700000000+int64(i%3600), 0))
		w.add(leases[i])
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.1f bytes for an entry, of %d in 3,600 seconds", each, n)
	assert.Less(t, each, 64.0)
	for _, l := range leases {
		w.remove(l)
	}
	assert.Empty(t, w.buckets)
	w.timer.Stop()
}

func BenchmarkWheel(b *testing.B) {
	w := testWheel()
	m := &membership{}
	for b.Loop() {
		l := newLease(m, time.Unix(1700003600, 0))
		w.add(l)
		w.remove(l)
	}
	w.timer.Stop()
}
