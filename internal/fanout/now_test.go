package fanout_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/fanout"
)

// ways are the ways to queue a frame for one connection.
var ways = map[string]func(o *fanout.Outbox, f *fanout.Frame) bool{
	"":    (*fanout.Outbox).Send,
	"Now": (*fanout.Outbox).SendNow,
}

// SendNow has written its frame when it returns. If the socket is full at any byte, a drain writes
// the rest. What is queued during the write follows it.
func TestSendNowAtEveryByte(t *testing.T) {
	t.Parallel()
	first := "the first;"
	for room := range len(first) + 1 {
		synctest.Test(t, func(t *testing.T) {
			e, s := wideEngine(0), &socket{room: room}
			s.sink.gate = make(chan struct{})
			o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
			s.during = func() {
				s.during = nil
				assert.True(t, o.Send(frame("second;")))
				assert.True(t, o.SendNow(frame("third;")))
			}
			assert.True(t, o.SendNow(frame(first)))
			assert.Equal(t, first[:room], s.all(), "without another goroutine")
			synctest.Wait()
			close(s.sink.gate)
			synctest.Wait()
			o.Close(1000, "")
			<-o.Done()
			e.Wait()
			assert.Zero(t, e.Waiting())
			assert.Equal(t, first+"second;third;", s.all(), "room for %d", room)
			sent := e.Sent()
			assert.Equal(t, uint64(3), sent.Messages)
			assert.Equal(t, uint64(len(s.all())), sent.Bytes)
		})
	}
}

// SendNow never overtakes what is queued, and writes nothing before Release.
func TestSendNowQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, s := wideEngine(0), &socket{room: wide}
		o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
		o.Hold()
		assert.True(t, o.SendNow(frame("1")))
		synctest.Wait()
		assert.Empty(t, s.all())
		o.Release()
		assert.True(t, o.SendNow(frame("2")))
		synctest.Wait()
		assert.Equal(t, "12", s.all())

		var gate fanout.Gate
		o.Open(&gate, frame("3"))
		synctest.Wait()
		o.SendThrough(&gate, frame("4")) // and Flush has not been called
		assert.True(t, o.SendNow(frame("5")))
		synctest.Wait()
		assert.Equal(t, "12345", s.all())

		s.during = func() {
			s.during = nil
			assert.True(t, o.SendNow(frame("7")))
			assert.Equal(t, "12345", s.all(), "the flusher writes")
		}
		assert.True(t, o.Send(frame("6")))
		synctest.Wait()
		assert.Equal(t, "1234567", s.all())
		o.Close(1000, "")
		<-o.Done()
		e.Wait()
	})
}

// Several goroutines send to one connection in both ways: the frames of each remain in order, and
// none is lost or written twice.
func TestSendNowUnderFire(t *testing.T) {
	t.Parallel()
	e, s := wideEngine(0), &socket{room: 20_000}
	o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
	const senders, frames = 4, 3000
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			for n := range frames {
				send := o.Send
				if (n+i)%2 == 0 {
					send = o.SendNow
				}
				assert.True(t, send(frame(fmt.Sprintf("%d:%d;", i, n))))
			}
		})
	}
	all.Wait()
	o.Close(1000, "")
	<-o.Done()
	e.Wait()
	var next [senders]int
	for text := range strings.SplitSeq(strings.TrimSuffix(s.all(), ";"), ";") {
		var i, n int
		_, err := fmt.Sscanf(text, "%d:%d", &i, &n)
		assert.NoError(t, err)
		assert.Equal(t, next[i], n, "of sender %d", i)
		next[i] = n + 1
	}
	assert.Equal(t, [senders]int{frames, frames, frames, frames}, next)
	assert.Zero(t, e.Waiting())
}

// SendNow leaves a write that can wait to the flusher.
func TestSendNowToGuarded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, s := wideEngine(0), newGuarded(wide)
		o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
		assert.True(t, o.SendNow(frame("first;")))
		assert.True(t, o.SendNow(frame("second;")))
		synctest.Wait()
		assert.Equal(t, "first;second;", s.all())
		o.Close(1000, "")
		<-o.Done()
		e.Wait()
	})
}
