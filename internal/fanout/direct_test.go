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

// end closes an Outbox, and waits until it and its engine have ended.
func end(e *fanout.Engine, o *fanout.Outbox) {
	o.Close(1000, "")
	<-o.Done()
	e.Wait()
}

// ways are the ways to queue a frame for one connection.
var ways = map[string]func(o *fanout.Outbox, text string) bool{
	"":       func(o *fanout.Outbox, text string) bool { return o.Send(frame(text)) },
	"Direct": func(o *fanout.Outbox, text string) bool { return o.SendDirect([]byte(text)) },
	"Now":    func(o *fanout.Outbox, text string) bool { return o.SendNow([]byte(text)) },
	"Corked": func(o *fanout.Outbox, text string) bool {
		o.Cork()
		defer o.Uncork()
		return o.SendDirect([]byte(text))
	},
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
				assert.True(t, o.SendNow([]byte("third;")))
			}
			assert.True(t, o.SendNow([]byte(first)))
			assert.Equal(t, first[:room], s.all(), "without another goroutine")
			synctest.Wait()
			close(s.sink.gate)
			synctest.Wait()
			end(e, o)
			assert.Zero(t, e.Waiting())
			assert.Equal(t, first+"second;third;", s.all(), "room for %d", room)
			sent := e.Sent()
			assert.Equal(t, uint64(3), sent.Messages)
			assert.Equal(t, uint64(len(s.all())), sent.Bytes)
		})
	}
}

// OpenNow, ShutNow and ReleaseNow, like SendNow, have written when they return, and leave the rest to a drain. The
// gate has changed while they write.
func TestGateNowAtEveryByte(t *testing.T) {
	t.Parallel()
	first := "response;the first;"
	for room := range len(first) + 1 {
		synctest.Test(t, func(t *testing.T) {
			for _, how := range []string{"open", "shut", "release"} {
				e, s := wideEngine(0), &socket{room: room}
				s.sink.gate = make(chan struct{})
				o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
				var gate fanout.Gate
				during := func() {
					s.during = nil
					assert.Equal(t, how == "open", o.SendThrough(&gate, frame("second;")))
					assert.True(t, o.Send(frame("third;")))
				}
				want := first + "third;"
				messages := 2
				switch how {
				case "open":
					want = first + "second;third;"
					messages = 3
					s.during = during
					assert.True(t, o.OpenNow(&gate, []byte(first)))
				case "shut":
					o.Open(&gate, fanout.RawFrame(nil))
					synctest.Wait()
					s.during = during
					assert.True(t, o.ShutNow(&gate, frame(first)))
					messages = 3 // with the empty one
				default:
					o.Hold()
					assert.True(t, o.Control(fanout.Response, []byte("response;")))
					assert.True(t, o.Send(frame("the first;")))
					assert.Empty(t, s.all())
					s.during = during
					o.ReleaseNow()
				}
				assert.Equal(t, first[:room], s.all(), "without another goroutine")
				synctest.Wait()
				close(s.sink.gate)
				synctest.Wait()
				end(e, o)
				assert.Zero(t, e.Waiting())
				assert.Equal(t, want, s.all(), "%s, room for %d", how, room)
				assert.Equal(t, uint64(messages), e.Sent().Messages)
			}
		})
	}
}

// OpenNow and ReleaseNow do not overtake a flusher, and do nothing after Close.
func TestGateNowQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, s := wideEngine(0), &socket{room: wide}
		o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
		o.ReleaseNow()
		assert.Empty(t, s.all())
		var gate, late fanout.Gate
		s.during = func() {
			s.during = nil
			assert.True(t, o.OpenNow(&gate, []byte("2")))
			assert.Equal(t, "", s.all(), "the flusher writes")
		}
		assert.True(t, o.Send(frame("1")))
		synctest.Wait()
		assert.True(t, o.SendThrough(&gate, frame("3")))
		e.Flush()
		synctest.Wait()
		assert.Equal(t, "123", s.all())
		s.during = func() {
			s.during = nil
			assert.True(t, o.ShutNow(&gate, frame("5")))
			assert.False(t, o.ShutNow(&gate, frame("6")), "it is shut")
			assert.Equal(t, "123", s.all(), "the flusher writes")
		}
		assert.True(t, o.SendThrough(&gate, frame("4")))
		e.Flush()
		synctest.Wait()
		assert.Equal(t, "12345", s.all())
		o.Close(1000, "")
		assert.False(t, o.OpenNow(&late, []byte("4")))
		assert.False(t, o.SendThrough(&late, frame("5")))
		o.ReleaseNow()
		<-o.Done()
		e.Wait()
		assert.Equal(t, "12345", s.all())
	})
}

// SendNow never overtakes what is queued, and writes nothing before Release.
func TestSendNowQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, s := wideEngine(0), &socket{room: wide}
		o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
		o.Hold()
		assert.True(t, o.SendNow([]byte("1")))
		synctest.Wait()
		assert.Empty(t, s.all())
		o.Release()
		assert.True(t, o.SendNow([]byte("2")))
		synctest.Wait()
		assert.Equal(t, "12", s.all())

		var gate fanout.Gate
		o.Open(&gate, frame("3"))
		synctest.Wait()
		o.SendThrough(&gate, frame("4")) // and Flush has not been called
		assert.True(t, o.SendNow([]byte("5")))
		synctest.Wait()
		assert.Equal(t, "12345", s.all())

		s.during = func() {
			s.during = nil
			assert.True(t, o.SendNow([]byte("7")))
			assert.Equal(t, "12345", s.all(), "the flusher writes")
		}
		assert.True(t, o.Send(frame("6")))
		synctest.Wait()
		assert.Equal(t, "1234567", s.all())
		end(e, o)
	})
}

// Several goroutines send to one connection in all ways: the frames of each remain in order, and
// none is lost or written twice.
func TestDirectUnderFire(t *testing.T) {
	t.Parallel()
	e, s := wideEngine(0), &socket{room: 20_000}
	o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
	const senders, frames = 4, 3000
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			for n := range frames {
				by := []string{"", "Direct", "Now"}[(n+i)%3]
				if i == 0 && n%5 == 0 {
					o.Cork() // only one goroutine does, the reader
				}
				assert.True(t, ways[by](o, fmt.Sprintf("%d:%d;", i, n)))
				if i == 0 && n%5 == 4 {
					o.Uncork()
				}
			}
		})
	}
	all.Wait()
	end(e, o)
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
		assert.True(t, o.SendNow([]byte("first;")))
		assert.True(t, o.SendNow([]byte("second;")))
		synctest.Wait()
		assert.Equal(t, "first;second;", s.all())
		end(e, o)
	})
}

// A direct message has the form of its connection, however it is sent.
func TestDirectInEveryForm(t *testing.T) {
	t.Parallel()
	for form, want := range map[fanout.Form]string{
		fanout.Text:          `{"a":"b"}`,
		fanout.Framed:        "\x81\x12" + `a["{\"a\":\"b\"}"]`,
		fanout.Bare:          "\x81\x09" + `{"a":"b"}`,
		fanout.FramedDeflate: "\x81\x12" + `a["{\"a\":\"b\"}"]`,
		fanout.BareDeflate:   "\x81\x09" + `{"a":"b"}`,
		taggedForm:           string(frame(`{"a":"b"}`).Bytes(taggedForm)),
	} {
		for by, send := range ways {
			synctest.Test(t, func(t *testing.T) {
				e, s := wideEngine(0), &formed{form: form}
				s.room = wide
				o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
				for range 2 {
					assert.True(t, send(o, `{"a":"b"}`))
					synctest.Wait()
				}
				assert.Equal(t, want+want, s.all(), "form %d by %q", form, by)
				end(e, o)
			})
		}
	}
}

// Large messages have longer headers.
func TestDirectOfEverySize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, form := range []fanout.Form{fanout.Framed, fanout.Bare} {
			for _, size := range []int{0, 1, 119, 120, 125, 126, 65529, 65530, 65535, 65536, 70000} {
				text := strings.Repeat("x", size)
				for by, send := range ways {
					e, s := wideEngine(0), &formed{form: form}
					s.room = wide
					o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
					assert.True(t, send(o, text))
					synctest.Wait()
					assert.Equal(t, string(frame(text).Bytes(form)), s.all(), "%d bytes, form %d, by %q", size, form, by)
					o.Discard()
					e.Wait()
				}
			}
		}
	})
}
