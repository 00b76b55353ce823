package fanout_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/fanout"
)

// What is queued between Cork and Uncork is written by Uncork, in one write and in order, whatever it
// is. If the socket is full at any byte, a drain writes the rest.
func TestCorkAtEveryByte(t *testing.T) {
	t.Parallel()
	const whole = "1st;2nd;event;4th;5th;"
	for room := range len(whole) + 1 {
		synctest.Test(t, func(t *testing.T) {
			e, s := wideEngine(0), &socket{room: room}
			s.sink.gate = make(chan struct{})
			o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
			s.during = func() {
				s.during = nil
				assert.True(t, o.SendNow([]byte("later;")))
			}
			o.Cork()
			assert.True(t, o.SendDirect([]byte("1st;")))
			assert.True(t, o.SendNow([]byte("2nd;")))
			assert.True(t, o.Send(frame("event;")))
			e.Flush()
			assert.True(t, o.SendDirect([]byte("4th;")))
			assert.True(t, o.SendDirect([]byte("5th;")))
			synctest.Wait()
			assert.Empty(t, s.all())
			assert.Equal(t, int64(len(whole)), o.Waiting())
			assert.Equal(t, int64(len(whole)), e.Waiting())
			assert.Equal(t, int64(len(whole)), e.Census())
			o.Uncork()
			assert.Len(t, s.taken(), 1)
			assert.Equal(t, whole[:room], s.all(), "without another goroutine")
			synctest.Wait()
			close(s.sink.gate)
			synctest.Wait()
			end(e, o)
			assert.Zero(t, e.Waiting())
			assert.Equal(t, whole+"later;", s.all(), "room for %d", room)
			sent := e.Sent()
			assert.Equal(t, uint64(6), sent.Messages)
			assert.Equal(t, uint64(len(s.all())), sent.Bytes)
		})
	}
}

// The memory of a run is used again, and never while its bytes are needed.
func TestCorkAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, s := wideEngine(0), &socket{room: 90}
		s.sink.gate = make(chan struct{})
		o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
		want := ""
		for i := range 20 {
			o.Cork()
			for range 3 {
				text := strings.Repeat(string(rune('a'+i)), 3)
				want += text
				assert.True(t, o.SendDirect([]byte(text)))
			}
			o.Uncork()
			o.Uncork() // has no effect
		}
		synctest.Wait()
		assert.Equal(t, want[:90], s.all())
		close(s.sink.gate)
		end(e, o)
		assert.Zero(t, e.Waiting())
		assert.Equal(t, want, s.all())
	})
}

// If Uncork does not come, because a command takes long, the flusher writes after two milliseconds. That
// does not depend on other connections that are corked.
func TestCorkEndsByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := fanout.New(fanout.Config{MaxBytes: wide, MaxTotal: wide, WriteTimeout: time.Second, Flushers: 1})
		quick, slow := &socket{room: wide}, &socket{room: wide}
		ends := func(code int, reason string) { t.Error(code, reason) }
		others, o := e.NewOutbox(quick, ends), e.NewOutbox(slow, ends)
		others.Cork()
		began := time.Now()
		o.Cork()
		assert.True(t, o.SendDirect([]byte("1st;")))
		others.Uncork()
		for range 10 {
			others.Cork()
			assert.True(t, others.SendDirect([]byte("x")))
			time.Sleep(400 * time.Microsecond)
			others.Uncork()
		}
		synctest.Wait()
		assert.Equal(t, strings.Repeat("x", 10), quick.all())
		assert.Equal(t, "1st;", slow.all())
		tries := slow.taken()
		assert.Len(t, tries, 1)
		assert.LessOrEqual(t, tries[0].Sub(began), 2*time.Millisecond)
		assert.Positive(t, tries[0].Sub(began))
		assert.True(t, o.SendDirect([]byte("2nd;")))
		synctest.Wait()
		assert.Equal(t, "1st;2nd;", slow.all(), "at once")
		o.Uncork() // is too late

		o.Cork() // nothing has been queued when it ends
		time.Sleep(time.Second)
		assert.True(t, o.SendDirect([]byte("3rd;")))
		synctest.Wait()
		assert.Equal(t, "1st;2nd;3rd;", slow.all())

		o.Cork()
		assert.True(t, o.SendDirect([]byte("4th;")))
		o.Close(1000, "")
		<-o.Done()
		assert.Equal(t, "1st;2nd;3rd;4th;", slow.all())
		assert.Equal(t, 1000, slow.finished)
		others.Discard()
		e.Wait()
		assert.Zero(t, e.Waiting())
	})
}

// Answers that are enough for a full write do not wait for the next ones, so a client that reads is
// never disconnected because of a Cork. Answers of which one alone exceeds the limit are sent, too.
func TestCorkIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := fanout.New(fanout.Config{MaxBytes: 200 << 10, MaxTotal: wide, WriteTimeout: time.Second})
		s := &socket{room: 100 * wide}
		o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
		var want strings.Builder
		send := func(size int) {
			text := strings.Repeat(string(rune('a'+want.Len()%26)), size)
			want.WriteString(text)
			assert.True(t, o.SendDirect([]byte(text)))
		}
		o.Cork()
		for range 3 {
			send(30 << 10)
		}
		synctest.Wait()
		assert.Equal(t, want.Len(), len(s.all()), "before Uncork")
		for range 100 {
			send(30 << 10)
			synctest.Wait()
		}
		o.Uncork()
		o.Cork()
		send(300 << 10)
		o.Uncork()
		synctest.Wait()
		assert.Equal(t, want.String(), s.all())
		end(e, o)
		assert.Zero(t, e.Waiting())
	})
}

// While its flusher writes, or something is queued or held, a connection is not corked. A write that
// can wait is left to the flusher.
func TestCorkBesideTheFlusher(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, s := wideEngine(0), &socket{room: wide}
		o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
		s.during = func() {
			s.during = nil
			o.Cork() // the flusher writes "1"
			assert.True(t, o.SendDirect([]byte("2")))
			o.Uncork()
			assert.Empty(t, s.got.String())
		}
		assert.True(t, o.Send(frame("1")))
		synctest.Wait()
		assert.Equal(t, "12", s.all())

		held := &socket{room: wide}
		h := e.NewOutbox(held, func(code int, reason string) { t.Error(code, reason) })
		h.Hold()
		h.Cork()
		assert.True(t, h.SendDirect([]byte("1")))
		h.Uncork()
		synctest.Wait()
		assert.Empty(t, held.all())
		h.Release()
		synctest.Wait()
		assert.Equal(t, "1", held.all())

		over := newGuarded(wide)
		g := e.NewOutbox(over, func(code int, reason string) { t.Error(code, reason) })
		g.Cork()
		assert.True(t, g.SendDirect([]byte("1")))
		assert.True(t, g.SendDirect([]byte("2")))
		g.Uncork()
		assert.Empty(t, over.all())
		synctest.Wait()
		assert.Equal(t, "12", over.all())
		for _, o := range []*fanout.Outbox{o, h, g} {
			o.Close(1000, "")
			<-o.Done()
		}
		e.Wait()
		assert.Zero(t, e.Waiting())
	})
}

// The flusher's write of "the 1st;" fills the socket while the reader corks. Uncork must not write
// beside the drain that writes the rest.
func TestCorkWhileTheFlusherFillsTheSocket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, s := wideEngine(0), &socket{room: 3}
		s.sink.gate = make(chan struct{})
		o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
		s.during = func() {
			s.during = nil
			o.Cork()
			assert.True(t, o.SendDirect([]byte("2nd;")))
		}
		assert.True(t, o.Send(frame("the 1st;")))
		synctest.Wait()
		assert.Equal(t, "the", s.all())
		s.room = wide // the peer has read, and the drain has not been scheduled yet
		o.Uncork()
		synctest.Wait()
		close(s.sink.gate)
		synctest.Wait()
		end(e, o)
		assert.Equal(t, "the 1st;2nd;", s.all())
		assert.Zero(t, e.Waiting())
	})
}

// The same if the flusher waits in a WriteNow, and is relieved.
func TestCorkWhileTheFlusherWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, g := wideEngine(0), newGuarded(3)
		o := e.NewOutbox(g, func(code int, reason string) { t.Error(code, reason) })
		g.before = func() {
			g.before = nil
			time.Sleep(3 * time.Millisecond) // the guard has seen the write once
			o.Cork()
			assert.True(t, o.SendDirect([]byte("2nd;")))
		}
		assert.True(t, o.Send(frame("the 1st;")))
		time.Sleep(4500 * time.Microsecond) // the flusher is relieved after 4 ms
		synctest.Wait()
		g.mu.Lock()
		g.room = wide
		g.mu.Unlock()
		o.Uncork()
		synctest.Wait()
		close(g.opened)
		synctest.Wait()
		end(e, o)
		assert.Equal(t, "the 1st;2nd;", g.all())
	})
}

// A client that reads is not disconnected because its answers are corked, whatever MaxBytes is.
func TestCorkWithASmallBuffer(t *testing.T) {
	t.Parallel()
	for _, most := range []int{64 << 10, 65 << 10, 10_000} {
		for _, corked := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				e := fanout.New(fanout.Config{MaxBytes: most, MaxTotal: 100 * wide, WriteTimeout: time.Second})
				s := &socket{room: 100 * wide}
				o := e.NewOutbox(s, func(code int, reason string) { t.Error("corked", corked, most, code, reason) })
				if corked {
					o.Cork()
				}
				for range 2 * most / 1000 {
					if !o.SendDirect([]byte(strings.Repeat("x", 999))) {
						break
					}
					synctest.Wait()
				}
				o.Uncork()
				synctest.Wait()
				assert.Len(t, s.all(), 2*most/1000*999)
				end(e, o)
			})
		}
	}
}
