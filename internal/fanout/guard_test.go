package fanout_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
)

// guarded is a Socket and its own Direct, a Guarded: a TryWrite never writes, and a WriteNow waits when room bytes are written, until
// opened is closed or the time is over.
type guarded struct {
	sink
	full    bool // TryWrite finds no room
	room    int
	opened  chan struct{}
	timeout chan time.Duration
	before  func() // called during WriteNow
	waited  int
}

func newGuarded(room int) *guarded {
	return &guarded{
		room:    room,
		opened:  make(chan struct{}),
		timeout: make(chan time.Duration, 1),
	}
}

func (g *guarded) Direct() fanout.Direct { return g }
func (g *guarded) Broken()               {}

func (g *guarded) TryWrite([]byte) (int, error) {
	if g.full {
		return 0, nil
	}
	return 0, fanout.ErrGuard
}

func (g *guarded) WriteNow(p []byte) error {
	if g.before != nil {
		g.before()
	}
	g.mu.Lock()
	n := min(g.room, len(p))
	g.room -= n
	g.got.Write(p[:n])
	g.mu.Unlock()
	if n == len(p) {
		return nil
	}
	select {
	case <-g.opened:
	case timeout := <-g.timeout:
		select {
		case <-g.opened:
		case <-time.After(timeout):
			return os.ErrDeadlineExceeded
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.room = wide
	g.got.Write(p[n:])
	return nil
}

func (g *guarded) Waits(timeout time.Duration) {
	select {
	case g.timeout <- timeout:
	default: // it waits in before
	}
}

func (g *guarded) Waited() { g.waited++ }

func (g *guarded) all() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got.String()
}

// When a WriteNow waits at any byte, other connections wait for two ticks of the guard at most, and
// the frames of that one remain in order.
func TestGuardedWriteWaitsAtEveryByte(t *testing.T) {
	t.Parallel()
	first, second := fanout.TextFrame([]byte("the first")), fanout.TextFrame([]byte("second"))
	whole := string(first) + string(second)
	for room := range len(whole) + 1 {
		synctest.Test(t, func(t *testing.T) {
			e := fanout.New(fanout.Config{
				MaxBytes:     wide,
				MaxTotal:     wide,
				WriteTimeout: time.Second,
				Flushers:     1,
			})
			slow := newGuarded(room)
			o := e.NewOutbox(slow, func(code int, reason string) { t.Error(code, reason) })
			plain := &socket{room: wide}
			other := e.NewOutbox(plain, func(code int, reason string) { t.Error(code, reason) })
			o.Hold()
			o.Send(fanout.RawFrame(first))
			o.Send(fanout.RawFrame(second))
			o.Release()
			synctest.Wait()
			assert.Equal(t, whole[:room], slow.all())
			other.Send(frame("other"))
			o.Send(fanout.RawFrame([]byte("third")))
			time.Sleep(4 * time.Millisecond)
			synctest.Wait()
			assert.Equal(t, "other", plain.all())
			if room < len(whole) {
				assert.Equal(t, int64(len(whole+"third")), e.Waiting(), "what is not written waits")
			}
			other.Send(frame(" again"))
			synctest.Wait()
			assert.Equal(t, "other again", plain.all(), "the flusher does not wait any more")
			close(slow.opened)
			synctest.Wait()
			assert.Zero(t, e.Waiting())
			o.Send(fanout.RawFrame([]byte(" and the last")))
			o.Close(1000, "")
			other.Close(1000, "")
			<-o.Done()
			<-other.Done()
			e.Wait()
			assert.Equal(t, whole+"third and the last", slow.all(), "room for %d", room)
			assert.Equal(t, 1000, slow.finished)
			if room < len(whole) {
				assert.Equal(t, 1, slow.waited)
			}
		})
	}
}

// A connection that ends while its WriteNow waits ends exactly once, and no bytes of it remain queued.
func TestEndsDuringAGuardedWrite(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(o *fanout.Outbox, s *guarded)
		cuts []int
	}{
		{"neverRead", func(*fanout.Outbox, *guarded) {}, []int{3008}},
		{"discarded", func(o *fanout.Outbox, s *guarded) { s.before = o.Discard }, nil},
		{"closed", func(o *fanout.Outbox, s *guarded) { s.before = func() { o.Close(3001, "") } }, nil},
		{"cut", func(o *fanout.Outbox, s *guarded) {
			s.before = func() { o.Send(frame(strings.Repeat("x", wide))) }
		}, []int{3008}},
		{"full", func(_ *fanout.Outbox, s *guarded) {
			s.full = true
			s.gate = make(chan struct{})
		}, []int{3008}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e, s, cut := wideEngine(0), newGuarded(2), &cuts{}
				o := e.NewOutbox(s, cut.add)
				c.do(o, s)
				o.Send(frame("something"))
				synctest.Wait()
				time.Sleep(time.Minute)
				o.Close(1000, "") // if the case has not ended it
				<-o.Done()
				e.Wait()
				assert.Equal(t, c.cuts, cut.list)
				assert.Zero(t, e.Waiting())
				assert.False(t, o.Send(frame("x")))
			})
		})
	}
}

// Many connections whose WriteNow often waits, in one pass and for several ticks: each receives whole
// frames in the one order, and none waits for all the others.
func TestManyGuardedWritesWait(t *testing.T) {
	t.Parallel()
	for seed := range 20 {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(seed), 17))
			e := wideEngine(5 * time.Millisecond)
			const boxes, events = 40, 50
			var sockets [boxes]*guarded
			var out [boxes]*fanout.Outbox
			var gates [boxes]fanout.Gate
			for i := range boxes {
				s := newGuarded(wide)
				pauses := make([]time.Duration, events+1)
				for j := range pauses {
					if random.IntN(4) == 0 {
						pauses[j] = time.Duration(random.IntN(9000)) * time.Microsecond
					}
				}
				s.before = func() {
					time.Sleep(pauses[0])
					pauses = pauses[1:]
				}
				sockets[i] = s
				out[i] = e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
				out[i].Open(&gates[i], frame("open;"))
			}
			want := "open;"
			for n := range events {
				text := fmt.Sprintf("%d;", n)
				want += text
				fan := e.Fan(frame(text))
				for i := range boxes {
					fan.Send(out[i], &gates[i])
				}
				fan.Flush()
				time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
			}
			time.Sleep(100 * time.Millisecond) // not boxes × 9 ms
			for _, s := range sockets {
				require.Equal(t, want, s.all())
			}
			assert.Zero(t, e.Waiting())
			for _, o := range out {
				o.Close(1000, "")
				<-o.Done()
			}
			e.Wait()
		})
	}
}
