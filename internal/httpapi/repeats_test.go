package httpapi_test

import (
	"context"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/httpapi"
)

var start = time.Unix(1700000000, 0)

func status(a *httpapi.TriggerAnswer) int {
	w := httptest.NewRecorder()
	a.Write(w)
	return w.Code
}

func TestRepeatIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	var rs httpapi.Repeats
	published := 0
	once := func(key string, at time.Duration, received bool) int {
		return status(rs.Once(t.Context(), key, start.Add(at), func() *httpapi.TriggerAnswer {
			published++
			return httpapi.Done(received, "")
		}))
	}
	assert.Equal(t, 200, once("a", 0, false))
	assert.Equal(t, 200, once("a", 1199*time.Second, true), "the first answer")
	assert.Equal(t, 201, once("b", 1199*time.Second, true))
	assert.Equal(t, 2, published)
	assert.Equal(t, 201, once("a", 1200*time.Second, true), "forgotten after 1,200 s")
	assert.Equal(t, 3, published)
}

func TestFailedRepeatIsForgotten(t *testing.T) {
	t.Parallel()
	var rs httpapi.Repeats
	assert.Equal(t, 503, status(rs.Once(t.Context(), "a", start, func() *httpapi.TriggerAnswer { return httpapi.Refused(httpapi.Unavailable()) })))
	assert.Equal(t, 201, status(rs.Once(t.Context(), "a", start, func() *httpapi.TriggerAnswer { return httpapi.Done(true, "") })))
}

func TestRepeatAfterPanic(t *testing.T) {
	t.Parallel()
	var rs httpapi.Repeats
	require.Panics(t, func() { rs.Once(t.Context(), "a", start, func() *httpapi.TriggerAnswer { panic("boom") }) })
	answered := make(chan int, 1)
	go func() {
		answered <- status(rs.Once(context.Background(), "a", start, func() *httpapi.TriggerAnswer { return httpapi.Done(true, "") }))
	}()
	select {
	case got := <-answered:
		assert.Equal(t, 201, got)
	case <-time.After(30 * time.Second):
		t.Fatal("a retry after a panic never ends")
	}
}

func TestConcurrentRepeats(t *testing.T) {
	t.Parallel()
	var rs httpapi.Repeats
	var published atomic.Int64
	begun, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	ask := func() {
		defer all.Done()
		got := status(rs.Once(context.Background(), "a", start, func() *httpapi.TriggerAnswer {
			published.Add(1)
			close(begun)
			<-release
			return httpapi.Done(true, "")
		}))
		assert.Equal(t, 201, got)
	}
	all.Add(1)
	go ask()
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Equal(t, 503, status(rs.Once(ctx, "a", start, nil)), "who gives up is told to try again")
	for range 20 {
		all.Add(1)
		go ask()
	}
	close(release)
	all.Wait()
	assert.EqualValues(t, 1, published.Load())
}

// Issue 11, number 24: responses within the window are kept at any rate. A request whose response
// cannot be kept is refused, not delivered without protection.
func TestRepeatsAreKeptByTime(t *testing.T) {
	t.Parallel()
	const most = 10_000
	full := 0
	rs := httpapi.Repeats{Max: most, Full: func() { full++ }}
	published := 0
	once := func(key string, at time.Duration) int {
		return status(rs.Once(t.Context(), key, start.Add(at), func() *httpapi.TriggerAnswer {
			published++
			return httpapi.Done(true, "")
		}))
	}
	const second = time.Second
	for i := range most {
		once(strconv.Itoa(i), time.Duration(i/1000)*second)
	}
	published = 0
	for i := range most {
		require.Equal(t, 201, once(strconv.Itoa(i), 1199*second))
	}
	assert.Zero(t, published, "none is delivered twice")
	assert.Equal(t, 503, once("one more", 1199*second))
	assert.Equal(t, 1, full)
	assert.Zero(t, published)
	assert.Equal(t, 201, once("one more", 1200*second), "the oldest have expired")
	assert.Equal(t, 201, once("0", 1200*second))
	assert.Equal(t, 2, published)
}

// The host's log handler, which Full calls, can send a trigger itself.
func TestFullIsCalledWithoutALock(t *testing.T) {
	t.Parallel()
	var rs httpapi.Repeats
	rs.Max = 1
	done := func() *httpapi.TriggerAnswer { return httpapi.Done(true, "") }
	rs.Full = func() { rs.Once(t.Context(), "first", start, done) }
	assert.Equal(t, 201, status(rs.Once(t.Context(), "first", start, done)))
	assert.Equal(t, 503, status(rs.Once(t.Context(), "second", start, done)))
}

// Issue 11, number 24: it was 65,536, which is 54 a second.
func TestRepeatsAtAHighRate(t *testing.T) {
	t.Parallel()
	var rs httpapi.Repeats
	published := 0
	for range 2 {
		for i := range 100_000 {
			rs.Once(t.Context(), strconv.Itoa(i), start, func() *httpapi.TriggerAnswer {
				published++
				return httpapi.Done(true, "")
			})
		}
	}
	assert.Equal(t, 100_000, published)
}

// Issue 11, number 24: as the comment of Repeats says, each response uses 64 bytes, and the memory
// is released. Not parallel, because it measures the heap.
func TestRepeatsMemory(t *testing.T) {
	const most = 1 << 17
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	rs := httpapi.Repeats{Max: most}
	before := heap()
	at := start
	once := func(key int) {
		rs.Once(t.Context(), strconv.Itoa(key), at, func() *httpapi.TriggerAnswer { return httpapi.Done(true, "") })
	}
	for i := range 3 * most {
		once(i)
		if i%100 == 0 {
			at = at.Add(time.Second) // over three windows
		}
	}
	assert.LessOrEqual(t, heap()-before, int64(most*64*5/4))
	at = at.Add(time.Hour)
	once(-1)
	assert.Less(t, heap()-before, int64(most))
	runtime.KeepAlive(&rs)
}
