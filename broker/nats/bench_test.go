package nats_test

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/internal/testproc"
)

func benchmarkAppend(b *testing.B, e func(i int) broker.Entry) {
	n := open(b, nats.Options{URL: shared.URL})
	n.follow("room")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		n.append("room", e(i))
		<-n.told
		i++
	}
}

func BenchmarkAppendNotKept(b *testing.B) {
	benchmarkAppend(b, func(int) broker.Entry { return event(`{"text":"Hello"}`) })
}

func BenchmarkAppendKept(b *testing.B) {
	benchmarkAppend(b, func(int) broker.Entry { return kept(`{"text":"Hello"}`) })
}

func BenchmarkAppendID(b *testing.B) {
	benchmarkAppend(b, func(i int) broker.Entry {
		e := event(`{"text":"Hello"}`)
		e.ID = strconv.Itoa(i)
		return e
	})
}

// A member joins and leaves.
func BenchmarkAppendMember(b *testing.B) {
	benchmarkAppend(b, func(i int) broker.Entry {
		id := fmt.Sprint("m", i/2)
		if i%2 == 0 {
			return join(id)
		}
		return leave(id)
	})
}

func BenchmarkRead100(b *testing.B) {
	n := open(b, nats.Options{URL: shared.URL})
	e := event(`{"text":"Hello"}`)
	e.Keep = broker.Keep{Size: 100, TTL: time.Hour}
	for range 100 {
		n.append("room", e)
	}
	for b.Loop() {
		p, err := n.Read(b.Context(), "room", broker.Range{Limit: 100})
		require.NoError(b, err)
		require.Len(b, p.Entries, 100)
	}
}

// BenchmarkLoad opens a node beside a cluster of 100,000 members in 1,000 channels, whose
// data has 50 bytes. Run it with -benchtime=1x.
func BenchmarkLoad(b *testing.B) {
	const members = 100_000
	first := open(b, nats.Options{URL: shared.URL})
	tasks := make(chan int)
	done := make(chan error)
	for range 64 {
		go func() {
			var failed error
			for i := range tasks {
				e := join(fmt.Sprintf("0b7b5c5e-0000-4000-8000-%012d", i))
				e.User, e.Joined = strconv.Itoa(i), time.Now()
				e.Data = []byte(`{"name":"somebody","avatar":"/avatars/12345.png"}`)
				_, err := first.Append(b.Context(), "room-"+strconv.Itoa(i%1000), e)
				if err != nil {
					failed = err
				}
			}
			done <- failed
		}()
	}
	for i := range members {
		tasks <- i
	}
	close(tasks)
	for range 64 {
		require.NoError(b, <-done)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		began, err := testproc.CPUTime()
		require.NoError(b, err)
		n := open(b, nats.Options{URL: shared.URL})
		ended, err := testproc.CPUTime()
		require.NoError(b, err)
		b.ReportMetric((ended - began).Seconds(), "cpu-s")
		b.ReportMetric(float64(heap()-before)/members, "B/member")
		require.Len(b, n.follow("room-7").Members, 100)
		require.NoError(b, n.Close(b.Context()))
	}
}
