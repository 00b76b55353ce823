package fanout_test

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/fanout"
)

// socket is a sink and its own Direct. It accepts room bytes at once and is then full until
// a Write has waited for it.
type socket struct {
	sink
	room   int
	tries  []time.Time
	broken error
	during func() // called during TryWrite
}

func (s *socket) Direct() fanout.Direct { return s }
func (s *socket) Broken()               {}

func (s *socket) TryWrite(p []byte) (int, error) {
	if s.during != nil {
		s.during()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries = append(s.tries, time.Now())
	n := min(s.room, len(p))
	s.room -= n
	s.got.Write(p[:n])
	return n, s.broken
}

func (s *socket) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.String()
}

// taken returns the times of the calls of TryWrite since the last call of taken.
func (s *socket) taken() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	tries := s.tries
	s.tries = nil
	return tries
}

const wide = 1 << 20

func wideEngine(gather time.Duration) *fanout.Engine {
	return fanout.New(fanout.Config{MaxBytes: wide, MaxTotal: wide, WriteTimeout: time.Second, MaxGather: gather, Flushers: 2})
}

// When a socket is full at any byte, a drain writes the rest, followed by the frames that
// were queued in the meantime.
func TestPartialWriteAtEveryByte(t *testing.T) {
	t.Parallel()
	first, second := fanout.TextFrame([]byte("the first")), fanout.TextFrame([]byte("second"))
	whole := string(first) + string(second)
	for room := range len(whole) + 1 {
		synctest.Test(t, func(t *testing.T) {
			e, s := wideEngine(0), &socket{room: room}
			s.sink.gate = make(chan struct{})
			o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
			o.Hold()
			o.Send(fanout.RawFrame(first))
			o.Send(fanout.RawFrame(second))
			o.Release()
			synctest.Wait()
			assert.Equal(t, whole[:room], s.all())
			if room < len(whole) {
				assert.Equal(t, int64(len(whole)), e.Waiting(), "what is not written waits")
			}
			o.Send(fanout.RawFrame([]byte("third")))
			close(s.sink.gate)
			synctest.Wait()
			o.Close(1000, "")
			<-o.Done()
			e.Wait()
			assert.Zero(t, e.Waiting())
			assert.Equal(t, whole+"third", s.all(), "room for %d", room)
			assert.Equal(t, 1000, s.finished)
		})
	}
}

// A connection that ends while the engine writes for it ends exactly once, and no bytes of
// it remain queued.
func TestEndsDuringAPass(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		room int
		do   func(o *fanout.Outbox, s *socket)
		cuts []int
	}{
		{"socketClosed", wide, func(_ *fanout.Outbox, s *socket) { s.broken = syscall.EPIPE }, []int{1006}},
		{"discarded", wide, func(o *fanout.Outbox, s *socket) { s.during = o.Discard }, nil},
		{"closed", wide, func(o *fanout.Outbox, s *socket) { s.during = func() { o.Close(3001, "") } }, nil},
		{"closedWhileFull", 2, func(o *fanout.Outbox, s *socket) { s.during = func() { o.Close(3001, "") } }, nil},
		{"discardedWhileFull", 2, func(o *fanout.Outbox, s *socket) { s.during = o.Discard }, nil},
		{"cutWhileFull", 2, func(o *fanout.Outbox, s *socket) {
			s.during = func() { o.Send(frame(strings.Repeat("x", wide/2))); o.Send(frame(strings.Repeat("x", wide/2+1))) }
		}, []int{3008}},
		{"neverRead", 2, func(_ *fanout.Outbox, s *socket) { s.sink.gate = make(chan struct{}) }, []int{3008}},
	} {
		for by, send := range ways {
			t.Run(c.name+by, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					e, s, cut := wideEngine(0), &socket{room: c.room}, &cuts{}
					o := e.NewOutbox(s, cut.add)
					c.do(o, s)
					send(o, "something")
					synctest.Wait()
					time.Sleep(time.Minute)
					o.Close(1000, "") // if the case has not ended it
					<-o.Done()
					e.Wait()
					assert.Equal(t, c.cuts, cut.list)
					assert.Zero(t, e.Waiting())
					assert.False(t, send(o, "x"))
				})
			})
		}
	}
}

// Many goroutines publish to the same connections while these are opened and closed: each
// connection receives whole frames, in the one order.
func TestPassesUnderFire(t *testing.T) {
	t.Parallel()
	e := wideEngine(time.Millisecond)
	const boxes, publishers, events = 150, 4, 200
	var sockets [boxes]*socket
	var out [boxes]*fanout.Outbox
	var gates [boxes]fanout.Gate
	for i := range boxes {
		sockets[i] = &socket{room: 1000 * (i + 1)}
		out[i] = e.NewOutbox(sockets[i], func(code int, reason string) { t.Error(code, reason) })
		out[i].Open(&gates[i], frame(""))
	}
	var order sync.Mutex // stands for the lock of a channel's fan-out
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			for n := range events {
				f := frame(fmt.Sprintf("%d:%d;", p, n))
				order.Lock()
				fan := e.Fan(f)
				for i := range boxes {
					fan.Touch(out[i])
					assert.True(t, fan.Send(out[i], &gates[i]))
				}
				fan.Flush()
				order.Unlock()
			}
		})
	}
	all.Wait()
	for _, o := range out {
		o.Close(1000, "")
		<-o.Done()
	}
	e.Wait()
	want := sockets[0].all()
	assert.Equal(t, publishers*events, strings.Count(want, ";"))
	for _, s := range sockets {
		assert.Equal(t, want, s.all(), "all see one order")
	}
	assert.Zero(t, e.Waiting())
}

// A Fan says which receivers do not get the frame, and makes the same omissions and disconnections
// as SendThrough.
func TestFanRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := fanout.New(fanout.Config{
			MaxBytes:     wide,
			MaxTotal:     8 * wide,
			WriteTimeout: time.Second,
		})
		ended := 0
		box := func() (*fanout.Outbox, *socket) {
			s := &socket{room: 8 * wide}
			return e.NewOutbox(s, func(code int, _ string) { ended = code }), s
		}
		var open, shut, late, full fanout.Gate
		first, firstSocket := box()
		first.Open(&open, frame("a"))
		second, secondSocket := box()
		second.Send(frame("b"))
		third, thirdSocket := box()
		third.Open(&late, frame("c"))
		third.Close(1000, "")
		slow, slowSocket := box()
		slow.Hold()
		slow.Open(&full, frame("d"))
		synctest.Wait()
		for _, text := range []string{"1", strings.Repeat("2", wide)} {
			fan := e.Fan(frame(text))
			assert.True(t, fan.Send(first, &open))
			assert.False(t, fan.Send(second, &shut))
			assert.False(t, fan.Send(third, &late))
			assert.Equal(t, len(text) == 1, fan.Send(slow, &full))
			fan.Flush()
			synctest.Wait()
		}
		assert.Equal(t, 3008, ended)
		fan := e.Fan(omittable("g0 1;", "key", true))
		assert.True(t, fan.Send(first, &open))
		fan.Flush()
		slow.Release()
		for _, o := range []*fanout.Outbox{first, second, third, slow} {
			o.Close(1000, "")
			<-o.Done()
		}
		assert.True(t, firstSocket.all() == "a1"+strings.Repeat("2", wide)+"g0 1;")
		assert.Equal(t, "b", secondSocket.all())
		assert.Equal(t, "c", thirdSocket.all())
		assert.Empty(t, slowSocket.all(), "what was queued is dropped")
		assert.Equal(t, 3008, slowSocket.finished)
		assert.Zero(t, e.Waiting())
		e.Wait()
	})
}

// Connections that another pass serves with the bytes of the one before have their delays, too.
func TestPassWithTheBytesOfTheLastOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := fanout.New(fanout.Config{MaxBytes: wide, MaxTotal: wide, WriteTimeout: time.Hour, Flushers: 1})
		f := frame("event")
		time.Sleep(time.Second)
		slow := &socket{room: 2}
		slow.gate = make(chan struct{})
		second := e.NewOutbox(slow, func(int, string) {})
		first := e.NewOutbox(&socket{
			room:   wide,
			during: func() { second.Send(f) }, // it waits for the next pass
		}, func(int, string) {})
		first.Send(f)
		synctest.Wait()
		count := uint64(0)
		for _, n := range e.Sent().Delays {
			count += n
		}
		assert.Equal(t, uint64(2), count)
		assert.Equal(t, 2*time.Second, e.Sent().DelaySum)
		time.Sleep(time.Second)
		second.Discard()
		assert.Equal(t, 2*time.Second, second.Left().Oldest)
		close(slow.gate)
		first.Discard()
		e.Wait()
	})
}
