package fanout_test

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
)

// sink is a Writer that writes when its gate allows it, or fails.
type sink struct {
	mu       sync.Mutex
	got      strings.Builder
	finished int
	gate     chan struct{} // each Write receives one element; if nil, Write never waits
	err      error
}

func (s *sink) Form() fanout.Form { return fanout.Text }

func (s *sink) Write(p []byte, timeout time.Duration) error {
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-time.After(timeout):
			return os.ErrDeadlineExceeded
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got.Write(p)
	return s.err
}

func (s *sink) Finish(code int, _ string, _ time.Duration) {
	s.mu.Lock()
	s.finished = code
	s.mu.Unlock()
}

type cuts struct {
	mu   sync.Mutex
	list []int
}

func (c *cuts) add(code int, _ string) {
	c.mu.Lock()
	c.list = append(c.list, code)
	c.mu.Unlock()
}

func frame(s string) *fanout.Frame { return fanout.NewFrame([]byte(s)) }

func engine() *fanout.Engine {
	return fanout.New(fanout.Config{MaxBytes: 10, MaxTotal: 25, WriteTimeout: time.Second})
}

func TestGateAndOrder(t *testing.T) {
	t.Parallel()
	s, c := &sink{}, &cuts{}
	synctest.Test(t, func(t *testing.T) {
		e := fanout.New(fanout.Config{MaxBytes: 10, MaxTotal: 1000, WriteTimeout: time.Second})
		o := e.NewOutbox(s, c.add)
		var g fanout.Gate
		assert.False(t, o.SendThrough(&g, frame("early")))
		assert.False(t, o.Shut(&g, frame("x")), "was not open")
		assert.True(t, o.Open(&g, frame("a")))
		synctest.Wait()
		assert.True(t, o.SendThrough(&g, frame("b")))
		assert.True(t, o.Shut(&g, frame("c")))
		assert.False(t, o.SendThrough(&g, frame("late")))
		synctest.Wait()
		assert.True(t, o.Send(frame(strings.Repeat("d", 100))), "any size into an empty one")
		synctest.Wait()
		assert.True(t, o.Close(1000, ""))
		assert.False(t, o.Close(1001, ""))
		assert.False(t, o.Send(frame("after")))
		assert.False(t, o.Open(&g, frame("after")))
		assert.False(t, o.SendThrough(&g, frame("after")))
		<-o.Done()
		e.Wait()
		assert.Zero(t, e.Waiting())
	})
	assert.Equal(t, "abc"+strings.Repeat("d", 100), s.got.String())
	assert.Equal(t, 1000, s.finished)
	assert.Empty(t, c.list)
}

// TestTotalDisconnectsLargest ends each of four outboxes in turn. When MaxTotal is exceeded,
// the largest of the others is disconnected.
func TestTotalDisconnectsLargest(t *testing.T) {
	t.Parallel()
	for ended := range 4 {
		e := fanout.New(fanout.Config{MaxBytes: 100, MaxTotal: 25, WriteTimeout: time.Second})
		var all []*fanout.Outbox
		cut := make([]cuts, 4)
		for i := range 4 {
			all = append(all, e.NewOutbox(&sink{}, cut[i].add))
			all[i].Hold() // so that its frames stay queued
		}
		all[ended].Discard()
		all[ended].Discard()
		most := (ended + 2) % 4
		for i, o := range all {
			size := 5
			if i == most {
				size = 12
			}
			assert.Equal(t, i != ended, o.Send(frame(strings.Repeat("x", size))))
		}
		last := (ended + 1) % 4
		assert.True(t, all[last].Send(frame("1234")))
		for i := range all {
			if i == most {
				assert.Equal(t, []int{3008}, cut[i].list)
			} else {
				assert.Empty(t, cut[i].list, "%d, when %d had ended", i, ended)
			}
			all[i].Discard()
		}
		e.Wait()
		assert.Zero(t, e.Waiting())
	}
}

// While clients are disconnected because of MaxTotal, a goroutine that queues a frame at that moment
// does not disconnect more of them.
func TestTotalDisconnectsNoMoreThanNeeded(t *testing.T) {
	t.Parallel()
	e := fanout.New(fanout.Config{MaxBytes: 1000, MaxTotal: 2010, WriteTimeout: time.Second})
	meanwhile := func() {}
	disconnected := 0
	box := func() (*fanout.Outbox, *fanout.Gate) {
		o := e.NewOutbox(&sink{}, func(int, string) {
			disconnected++
			meanwhile()
		})
		o.Hold() // so that its frames stay queued
		g := &fanout.Gate{}
		require.True(t, o.Open(g, frame("")))
		return o, g
	}
	f := frame(strings.Repeat("x", 100))
	for range 19 {
		o, _ := box()
		require.True(t, o.Send(f))
	}
	other, _ := box()
	meanwhile = func() {
		meanwhile = func() {}
		assert.True(t, other.Send(frame("x")))
	}
	fan := e.Fan(f) // it counts its 600 bytes together
	for range 6 {
		require.True(t, fan.Send(box()))
	}
	fan.Flush()
	assert.Equal(t, 5, disconnected, "this many have the 490 bytes that are too many")
	assert.Equal(t, int64(2001), e.Waiting())
}

func TestBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		do     func(e *fanout.Engine, o *fanout.Outbox, s *sink)
		cuts   []int
		finish int
	}{
		{"overItsBound", func(_ *fanout.Engine, o *fanout.Outbox, _ *sink) {
			o.Send(frame("12345678"))
			synctest.Wait()
			o.Send(frame("901"))
		}, []int{3008}, 0},
		{"overTheTotal", func(e *fanout.Engine, o *fanout.Outbox, _ *sink) {
			o.Send(frame("1234567890"))
			synctest.Wait()
			other := e.NewOutbox(&sink{gate: make(chan struct{})}, func(int, string) {})
			other.Send(frame("123456789"))
			third := e.NewOutbox(&sink{gate: make(chan struct{})}, func(int, string) {})
			third.Send(frame("12345678"))
			assert.LessOrEqual(t, e.Waiting(), int64(25))
			other.Discard()
			third.Discard()
		}, []int{3008}, 0},
		{"writeTakesTooLong", func(_ *fanout.Engine, o *fanout.Outbox, _ *sink) {
			o.Send(frame("1"))
			time.Sleep(2 * time.Second)
		}, []int{3008}, 0},
		{"writeFails", func(_ *fanout.Engine, o *fanout.Outbox, s *sink) {
			s.err = errors.New("broken pipe")
			o.Send(frame("1"))
			s.gate <- struct{}{}
			synctest.Wait()
		}, []int{1006}, 0},
		{"discard", func(_ *fanout.Engine, o *fanout.Outbox, _ *sink) {
			o.Send(frame("1"))
			o.Discard()
		}, nil, 0},
		{"closeWritesWhatWaits", func(_ *fanout.Engine, o *fanout.Outbox, s *sink) {
			o.Send(frame("1"))
			o.Close(3001, "")
			s.gate <- struct{}{}
			synctest.Wait()
			s.mu.Lock()
			assert.Equal(t, "1", s.got.String())
			s.mu.Unlock()
		}, nil, 3001},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e, s, cut := engine(), &sink{gate: make(chan struct{})}, &cuts{}
				o := e.NewOutbox(s, cut.add)
				c.do(e, o, s)
				time.Sleep(time.Minute)
				cut.mu.Lock()
				assert.Equal(t, c.cuts, cut.list)
				cut.mu.Unlock()
				s.mu.Lock()
				assert.Equal(t, c.finish, s.finished)
				s.mu.Unlock()
				assert.False(t, o.Send(frame("x")))
				<-o.Done()
				e.Wait()
				assert.Zero(t, e.Waiting())
			})
		})
	}
}

// Frames that many goroutines send at once are written whole, those of each goroutine in
// their order.
func TestManySenders(t *testing.T) {
	t.Parallel()
	e := fanout.New(fanout.Config{MaxBytes: 1 << 30, MaxTotal: 1 << 30, WriteTimeout: time.Minute})
	s := &sink{}
	o := e.NewOutbox(s, func(int, string) { t.Error("cut") })
	var all sync.WaitGroup
	for sender := range 8 {
		all.Go(func() {
			for i := range 500 {
				o.Send(frame(string(rune('a'+sender)) + string(rune(0x4e00+i)) + ";"))
			}
		})
	}
	all.Wait()
	o.Close(1000, "")
	<-o.Done()
	e.Wait()
	next := map[rune]rune{}
	words := strings.Split(strings.TrimSuffix(s.got.String(), ";"), ";")
	assert.Len(t, words, 8*500)
	for _, w := range words {
		r := []rune(w)
		assert.Equal(t, 0x4e00+next[r[0]], r[1])
		next[r[0]]++
	}
	assert.Zero(t, e.Waiting())
}
