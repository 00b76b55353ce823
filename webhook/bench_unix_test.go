//go:build unix

package webhook_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/webhook"
)

// BenchmarkFollow measures what each node pays for the members of the whole cluster: 100,000
// members join and leave again, in few and in many channels. The figures are in docs/webhooks.md.
func BenchmarkFollow(b *testing.B) {
	for _, channels := range []int{10, 10_000} {
		b.Run(fmt.Sprint(channels, "channels"), func(b *testing.B) {
			const members = 100_000
			shown := []byte(`{"name":"Ann Example","avatar":"/avatars/42.png","subscribed":1700000000117,` +
				`"memberId":"9f8b0c54c1b4d2bb8c2f1a7f1f0d6a10"}`)
			channel := func(i int) string { return fmt.Sprint("private-room-", i%channels) }
			member := func(i int) string { return fmt.Sprintf("%032x", i) }
			var joining, leaving time.Duration
			var bytes, memory, left int
			for b.Loop() {
				before := heap()
				l := webhook.NewLog()
				for i := range channels {
					l.Open(channel(i))
				}
				l.Bytes = 0
				began := cpu(b)
				for i := range members {
					l.Join(channel(i), member(i), fmt.Sprint(i), shown)
				}
				joining += cpu(b) - began
				memory += heap() - before
				began = cpu(b)
				for i := range members {
					l.Leave(channel(i), member(i))
				}
				l.Pass()
				leaving += cpu(b) - began
				bytes += l.Bytes
				require.Equal(b, channels+2*members, l.Events)
				left += heap() - before
				runtime.KeepAlive(l)
			}
			n := float64(b.N * members)
			b.ReportMetric(float64(joining.Nanoseconds())/n, "cpu-ns/join")
			b.ReportMetric(float64(leaving.Nanoseconds())/n, "cpu-ns/leave")
			b.ReportMetric(float64(bytes)/n, "logB/member")
			b.ReportMetric(float64(memory)/n, "heapB/member")
			b.ReportMetric(float64(left)/n, "heapB/left")
		})
	}
}

// cpu returns the processor time that the process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// heap returns the bytes of the heap that are in use.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
