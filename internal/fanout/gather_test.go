package fanout_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
)

// crowd is many connections that all receive the same events.
type crowd struct {
	engine  *fanout.Engine
	sockets []*socket
	boxes   []*fanout.Outbox
	gates   []fanout.Gate
}

func newCrowd(n int, gather time.Duration, each time.Duration) *crowd {
	c := &crowd{engine: wideEngine(gather), gates: make([]fanout.Gate, n)}
	for i := range n {
		s := &socket{room: wide, during: func() { time.Sleep(each) }}
		o := c.engine.NewOutbox(s, func(int, string) {})
		o.Open(&c.gates[i], frame(""))
		c.sockets, c.boxes = append(c.sockets, s), append(c.boxes, o)
	}
	synctest.Wait()
	time.Sleep(time.Minute)
	for _, s := range c.sockets {
		s.taken()
	}
	return c
}

func (c *crowd) publish(text string) {
	f := frame(text)
	for i, o := range c.boxes {
		o.SendThrough(&c.gates[i], f)
	}
	c.engine.Flush()
}

// publishAlone publishes 50 isolated events. All but the first ones must be written within a time.
func (c *crowd) publishAlone(t *testing.T, first int, within time.Duration) {
	t.Helper()
	for n := range 50 {
		began := time.Now()
		c.publish("alone")
		time.Sleep(20 * time.Millisecond)
		for _, s := range c.sockets {
			tries := s.taken()
			require.Len(t, tries, 1)
			if n >= first {
				assert.LessOrEqual(t, tries[0].Sub(began), within, "not held up")
			}
		}
	}
}

func (c *crowd) end() {
	for _, o := range c.boxes {
		o.Discard()
	}
	c.engine.Wait()
}

// An isolated event is written at once. Events that arrive faster than they are written are
// written together, and no event is delayed by more than MaxGather.
func TestGather(t *testing.T) {
	t.Parallel()
	const each = 40 * time.Microsecond
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(100, 5*time.Millisecond, each)
		defer c.end()
		c.publishAlone(t, 0, 100*each)
		for range 500 {
			c.publish("often;")
			time.Sleep(200 * time.Microsecond)
		}
		time.Sleep(time.Second)
		for _, s := range c.sockets {
			assert.Equal(t, 500, strings.Count(s.all(), "often;"))
			tries := s.taken()
			assert.Less(t, len(tries), 60, "of 500 events")
			for i, at := range tries[1:] {
				assert.LessOrEqual(t, at.Sub(tries[i]), 5*time.Millisecond+200*each)
			}
		}
		began := time.Now()
		c.boxes[0].Send(frame("a reply"))
		time.Sleep(time.Second)
		tries := c.sockets[0].taken()
		require.Len(t, tries, 1)
		assert.LessOrEqual(t, tries[0].Sub(began), each, "after it all is over")
	})
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(100, -1, each)
		defer c.end()
		for range 100 {
			c.publish("often;")
			time.Sleep(200 * time.Microsecond)
		}
		time.Sleep(time.Second)
		assert.Less(t, 10, len(c.sockets[0].taken()), "off: as fast as passes go")
	})
}

// Events that are published one after another, each when the one before has been written, are not delayed: the next
// one would never arrive meanwhile.
func TestGatherOneAfterAnother(t *testing.T) {
	t.Parallel()
	const each = 80 * time.Microsecond // so that a pass takes several milliseconds
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(100, 5*time.Millisecond, each)
		defer c.end()
		for n := range 50 {
			began := time.Now()
			c.publish("after another")
			synctest.Wait()
			for c.engine.Waiting() > 0 {
				time.Sleep(100 * time.Microsecond)
			}
			took := time.Since(began)
			if n >= 20 { // until then the averages follow the first events
				require.LessOrEqual(t, took, 55*each, "each of two flushers writes for 50")
			}
			time.Sleep(took / 10) // until the client of the publisher has its answer
		}
	})
}

// Events for few connections are not delayed for longer than a pass for these takes, and are
// written together.
func TestGatherForFewConnections(t *testing.T) {
	t.Parallel()
	const each = 10 * time.Microsecond
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(100, 5*time.Millisecond, each)
		defer c.end()
		for n := range 100 {
			began := time.Now()
			for range 8 {
				c.publish("often;")
				time.Sleep(50 * time.Microsecond)
			}
			time.Sleep(2 * time.Millisecond)
			for _, s := range c.sockets {
				tries := s.taken()
				require.Less(t, len(tries), 4)
				if n >= 10 && fanout.ShortestPause() == 0 { // until then the averages follow the first events
					require.Len(t, tries, 1)
				}
				require.LessOrEqual(t, tries[0].Sub(began), 2*50*each, "the first event waits for as long as a pass, and is then written")
				require.LessOrEqual(t, tries[len(tries)-1].Sub(began), 8*50*time.Microsecond+100*each)
			}
		}
	})
}

// A burst is recognized although the pauses between bursts make the average interval of events long.
func TestGatherBurstsWithPauses(t *testing.T) {
	t.Parallel()
	const (
		each    = 30 * time.Microsecond // so a pass of each of the two flushers takes 1.5 ms
		between = 100 * time.Microsecond
	)
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(100, 5*time.Millisecond, each)
		defer c.end()
		for n := range 50 {
			for range 8 {
				c.publish("event;")
				time.Sleep(between)
			}
			time.Sleep(30 * time.Millisecond)
			for _, s := range c.sockets {
				tries := s.taken()
				if n >= 10 { // until then the averages follow the first events
					require.Len(t, tries, 1)
				}
			}
		}
		c.publishAlone(t, 10, 50*each)
	})
}

// The events of a burst are written together, soon after the last one: no pass waits for a long time
// after it for events that do not come.
func TestGatherEndsWithTheBurst(t *testing.T) {
	t.Parallel()
	const (
		each    = 100 * time.Microsecond // so a pass of each of the two flushers takes 5 ms
		between = 100 * time.Microsecond
		burst   = 8
	)
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(100, 5*time.Millisecond, each)
		defer c.end()
		for n := range 20 {
			var last time.Time
			for range burst {
				time.Sleep(between)
				last = time.Now()
				c.publish("event;")
			}
			time.Sleep(10 * time.Millisecond)
			for _, s := range c.sockets {
				tries := s.taken()
				if n < 3 {
					continue // the first ones are isolated events, as far as the engine knows
				}
				require.Len(t, tries, 1)
				waited := tries[0].Sub(last)
				require.Greater(t, waited, between, "the next event of the burst could still have come")
				require.LessOrEqual(t, waited, max(3*between, fanout.ShortestPause()+between)+50*each)
			}
		}
	})
}

// Events that come one at a time, at intervals that are longer than those of bursts, are not delayed
// for as long as a burst that came before them.
func TestGatherAfterBursts(t *testing.T) {
	t.Parallel()
	const each = 100 * time.Microsecond
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(100, 5*time.Millisecond, each)
		defer c.end()
		for range 100 {
			c.publish("often;")
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Second)
		for _, s := range c.sockets {
			s.taken()
		}
		for range 20 {
			began := time.Now()
			c.publish("alone;")
			time.Sleep(8 * time.Millisecond)
			for _, s := range c.sockets {
				tries := s.taken()
				require.Len(t, tries, 1)
				require.LessOrEqual(t, tries[0].Sub(began), time.Millisecond+50*each)
			}
		}
	})
}

// Events that come at intervals of milliseconds, but faster than they are written, wait for a millisecond, so
// that more of them share a write.
func TestGatherSteadyEvents(t *testing.T) {
	t.Parallel()
	const (
		each   = 100 * time.Microsecond // so a pass of each of the two flushers takes 5 ms
		events = 300
	)
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(100, 5*time.Millisecond, each)
		defer c.end()
		for range events {
			c.publish("steady;")
			time.Sleep(1900 * time.Microsecond)
		}
		time.Sleep(10 * time.Millisecond)
		writes := 0
		for _, s := range c.sockets {
			writes += len(s.taken())
		}
		require.Less(t, writes, 100*len(c.sockets), "without the wait it is more than a third of the events")
	})
}

// counter is a Writer without a Direct, and counting a Puller. They count their writes.
type counter struct {
	out    *fanout.Outbox
	gate   fanout.Gate
	writes int
}

func (c *counter) Form() fanout.Form                       { return fanout.Text }
func (c *counter) Write([]byte, time.Duration) error       { c.writes++; return nil }
func (c *counter) Finish(_ int, _ string, _ time.Duration) {}

type counting struct {
	*counter
	cost time.Duration
}

func (p counting) Wake() time.Duration {
	go func() {
		if frames, _ := p.out.Take(nil, wide); len(frames) > 0 {
			p.writes++
			p.out.Written()
		}
	}()
	return p.cost
}

// The writes that other goroutines make count in the duration of a pass, so that events are
// gathered for them, too: for a few clients, if each of their writes costs much.
func TestGatherForIndirectWrites(t *testing.T) {
	t.Parallel()
	const events = 100
	pullers := func(cost time.Duration) func(c *counter) fanout.Endpoint {
		return func(c *counter) fanout.Endpoint { return struct{ fanout.Puller }{counting{c, cost}} }
	}
	for _, c := range []struct {
		name    string
		clients int
		end     func(c *counter) fanout.Endpoint
		writes  [2]int // at least, and at most
	}{
		{"drains", 500, func(c *counter) fanout.Endpoint { return struct{ fanout.Writer }{c} }, [2]int{1, events / 5}},
		{"pullers", 500, pullers(fanout.IndirectCost), [2]int{1, events / 5}},
		{"cheapPullers", 10, pullers(fanout.IndirectCost), [2]int{events / 2, events + 1}},
		{"dearPullers", 100, pullers(5 * fanout.IndirectCost), [2]int{1, events / 5}},
		{"directPullers", 500, pullers(0), [2]int{events / 2, events + 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := fanout.New(fanout.Config{
					MaxBytes:     wide,
					MaxTotal:     wide,
					WriteTimeout: time.Second,
					MaxGather:    5 * time.Millisecond,
					Flushers:     1,
				})
				all := make([]counter, c.clients)
				for i := range all {
					one := &all[i]
					one.out = e.NewOutbox(c.end(one), func(code int, reason string) { t.Error(code, reason) })
					one.out.Open(&one.gate, frame("open"))
				}
				for range events {
					fan := e.Fan(frame("event"))
					for i := range all {
						fan.Send(all[i].out, &all[i].gate)
					}
					fan.Flush()
					time.Sleep(200 * time.Microsecond)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				for i := range all {
					require.GreaterOrEqual(t, all[i].writes, c.writes[0])
					require.LessOrEqual(t, all[i].writes, c.writes[1])
					require.Zero(t, all[i].out.Waiting())
					all[i].out.Discard()
				}
				e.Wait()
			})
		})
	}
}
