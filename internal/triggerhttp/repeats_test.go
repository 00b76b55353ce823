package triggerhttp_test

import (
	"context"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/triggerhttp"
)

var start = time.Unix(1700000000, 0)

func status(a *triggerhttp.Answer) int {
	w := httptest.NewRecorder()
	a.Write(w)
	return w.Code
}

func TestRepeatIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	var rs triggerhttp.Repeats
	published := 0
	once := func(key string, at time.Duration, received bool) int {
		return status(rs.Once(t.Context(), key, start.Add(at), func() *triggerhttp.Answer {
			published++
			return triggerhttp.Done(received)
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
	var rs triggerhttp.Repeats
	assert.Equal(t, 503, status(rs.Once(t.Context(), "a", start, triggerhttp.Unavailable)))
	assert.Equal(t, 201, status(rs.Once(t.Context(), "a", start, func() *triggerhttp.Answer { return triggerhttp.Done(true) })))
}

func TestRepeatAfterPanic(t *testing.T) {
	t.Parallel()
	var rs triggerhttp.Repeats
	require.Panics(t, func() { rs.Once(t.Context(), "a", start, func() *triggerhttp.Answer { panic("boom") }) })
	answered := make(chan int, 1)
	go func() {
		answered <- status(rs.Once(context.Background(), "a", start, func() *triggerhttp.Answer { return triggerhttp.Done(true) }))
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
	var rs triggerhttp.Repeats
	var published atomic.Int64
	begun, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	ask := func() {
		defer all.Done()
		got := status(rs.Once(context.Background(), "a", start, func() *triggerhttp.Answer {
			published.Add(1)
			close(begun)
			<-release
			return triggerhttp.Done(true)
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

func TestRepeatsAreBounded(t *testing.T) {
	t.Parallel()
	var rs triggerhttp.Repeats
	published := 0
	once := func(key string) {
		rs.Once(t.Context(), key, start, func() *triggerhttp.Answer {
			published++
			return triggerhttp.Done(true)
		})
	}
	for i := range 65_536 {
		once(strconv.Itoa(i))
	}
	published = 0
	once("one more")
	once("0")
	once("65535")
	assert.Equal(t, 2, published, "the oldest is forgotten, the newest is not")
}
