package pushy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/testlog"
)

// lossy is a node of a memory cluster that breaks the promise of a broker to deliver each
// kept event once and in order: fate decides what becomes of one.
type lossy struct {
	*memory.Broker
	sink broker.Sink // set by Open

	mu    sync.Mutex
	fate  func(e broker.Entry) fate // nil delivers everything
	later map[string][]broker.Entry
	read  func(ctx context.Context) error // nil, or called before each Read
	reads int
	tops  int
}

type fate uint8

const (
	arrives fate = iota
	isLost
	arrivesTwice
	arrivesLater // after the next one that arrives
)

func (l *lossy) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	l.sink = sink
	l.later = map[string][]broker.Entry{}
	return l.Broker.Open(ctx, o, lossySink{l})
}

func (l *lossy) Read(ctx context.Context, channel string, r broker.Range) (broker.Page, error) {
	l.mu.Lock()
	l.reads++
	read := l.read
	l.mu.Unlock()
	if read != nil {
		if err := read(ctx); err != nil {
			return broker.Page{}, err
		}
	}
	return l.Broker.Read(ctx, channel, r)
}

func (l *lossy) Tops(ctx context.Context, channels []string) ([]broker.Position, error) {
	l.mu.Lock()
	l.tops++
	l.mu.Unlock()
	return l.Broker.Tops(ctx, channels)
}

// set changes what becomes of events.
func (l *lossy) set(fate func(e broker.Entry) fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fate = fate
}

// loses makes events with these offsets get lost.
func (l *lossy) loses(offsets ...uint64) {
	l.set(func(e broker.Entry) fate {
		for _, offset := range offsets {
			if e.At.Offset == offset {
				return isLost
			}
		}
		return arrives
	})
}

type lossySink struct{ l *lossy }

func (s lossySink) Deliver(channel string, e broker.Entry) {
	l := s.l
	l.mu.Lock()
	f := arrives
	if l.fate != nil && e.Kind == broker.Event && e.At.Offset > 0 {
		f = l.fate(e)
	}
	var all []broker.Entry
	switch f {
	case arrives:
		all = append([]broker.Entry{e}, l.later[channel]...)
		l.later[channel] = nil
	case arrivesTwice:
		all = []broker.Entry{e, e}
	case arrivesLater:
		l.later[channel] = append(l.later[channel], e)
	}
	l.mu.Unlock()
	for _, e := range all {
		l.sink.Deliver(channel, e)
	}
}

func (s lossySink) Reset(channel string, state broker.State, reason string) {
	s.l.sink.Reset(channel, state, reason)
}

// onLossy runs a test in its own time on a node whose broker is lossy.
func onLossy(t *testing.T, o pushy.Options, run func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position)) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		l := &lossy{Broker: newCluster().Broker()}
		srv := startOn(t, l, o)
		p := connect2(t, srv)
		run(t, l, srv, p, p.enterWith("news", "").position())
	})
}

// Events that a broker loses are read from its log, in their order, as soon as a later one
// arrives; those that it repeats or delivers late are sent once.
func TestLostEventsAreHealed(t *testing.T) {
	onLossy(t, keeping(100, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, _ broker.Position) {
		l.loses(3, 4)
		publishNumbers(t, srv, "news", 1, 9)
		p.events("news", 1, 9)
		l.set(func(broker.Entry) fate { return arrivesTwice })
		publishNumbers(t, srv, "news", 10, 12)
		p.events("news", 10, 12)
		l.set(func(e broker.Entry) fate {
			if e.At.Offset == 13 {
				return arrivesLater
			}
			return arrives
		})
		publishNumbers(t, srv, "news", 13, 15)
		p.events("news", 13, 15)
		p.quiet()
	})
}

// A last event that was lost on the way arrives within 10 s.
func TestLostLastEventIsFound(t *testing.T) {
	onLossy(t, keeping(100, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, _ broker.Position) {
		for i := range uint64(8) {
			first := 2*i + 1
			l.loses(first + 1)
			publishNumbers(t, srv, "news", first, first+1)
			p.events("news", first, first)
			lost := time.Now()
			p.events("news", first+1, first+1)
			assert.LessOrEqual(t, time.Since(lost), 10*time.Second)
			time.Sleep(1700 * time.Millisecond)
		}
		p.quiet()
	})
}

// A channel that needs a heal again and again is not healed any more for a while: its
// members are told.
func TestChannelThatOftenNeedsHealing(t *testing.T) {
	onLossy(t, keeping(100, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position) {
		l.loses(1, 3, 5, 7, 9)
		for i := uint64(1); i < 7; i += 2 {
			publishNumbers(t, srv, "news", i, i+1)
			p.events("news", i, i+1)
		}
		publishNumbers(t, srv, "news", 7, 8)
		p.expect(`pushy:resync news {"reason":"unavailable","epoch":"` + place.Epoch + `","offset":7}`)
		p.events("news", 8, 8)
		time.Sleep(time.Minute)
		publishNumbers(t, srv, "news", 9, 10)
		p.events("news", 9, 10)
		p.quiet()
	})
}

// If the log cannot be read, the members are notified after a second, and the channel
// continues. The log of the host says why a client cannot resume.
func TestLogCannotBeRead(t *testing.T) {
	var lines testlog.Log
	o := keeping(100, time.Hour)
	o.Logger = lines.Logger()
	onLossy(t, o, func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position) {
		l.mu.Lock()
		l.read = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		l.mu.Unlock()
		l.loses(2)
		began := time.Now()
		publishNumbers(t, srv, "news", 1, 5)
		p.events("news", 1, 1)
		p.expect(`pushy:resync news {"reason":"unavailable","epoch":"` + place.Epoch + `","offset":2}`)
		assert.Equal(t, time.Second, time.Since(began))
		p.events("news", 3, 5)
		assert.NotContains(t, lines.String(), "the history of a channel cannot be read")
		q := connect2(t, srv)
		assert.Equal(t, "recovered=false unavailable replay=0 offset=5", q.resume("news", place, "").String())
		assert.Contains(t, lines.String(), `msg="the history of a channel cannot be read" channel=news error="context deadline exceeded"`)
		place.Offset = 2
		q = connect2(t, srv)
		assert.Equal(t, "recovered=true replay=3 offset=5", q.resume("news", place, "").String(), "the ring has these")
	})
}

// More events than a stall holds are read from the log.
func TestManyEventsWhileTheLogIsRead(t *testing.T) {
	onLossy(t, keeping(5000, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, _ broker.Position) {
		l.mu.Lock()
		l.read = func(context.Context) error { time.Sleep(500 * time.Millisecond); return nil }
		l.mu.Unlock()
		l.loses(2)
		publishNumbers(t, srv, "news", 1, 3)
		publishNumbers(t, srv, "news", 4, 1200)
		p.events("news", 1, 1200)
		p.quiet()
	})
}

// What the log has not any more when a node comes back is a break with a reason.
func TestGapThatTheLogCannotFill(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		b := cluster.Broker()
		o := keeping(600, time.Hour)
		few := o.Channel
		o.Channel = func(name string) pushy.ChannelOptions {
			c := few(name)
			if name == "few" {
				c.Keep.Size = 3
			}
			return c
		}
		srv := startOn(t, b, o)
		other := startOn(t, cluster.Broker(), o)
		p := connect2(t, srv)
		epoch := p.enterWith("few", "").Epoch
		reconnect := b.Cut()
		publishNumbers(t, other, "few", 1, 9)
		reconnect()
		p.expect(`pushy:resync few {"reason":"trimmed","epoch":"` + epoch + `","offset":6}`)
		p.events("few", 7, 9)

		reconnect = b.Cut()
		publishNumbers(t, other, "few", 10, 10)
		time.Sleep(2 * time.Hour)
		reconnect()
		p.expect(`pushy:resync few {"reason":"expired","epoch":"` + epoch + `","offset":10}`)

		epoch = p.enterWith("many", "").Epoch
		reconnect = b.Cut()
		publishNumbers(t, other, "many", 1, 501)
		reconnect()
		p.expect(`pushy:resync many {"reason":"large","epoch":"` + epoch + `","offset":501}`)
		publishNumbers(t, other, "many", 502, 502)
		p.events("many", 502, 502)
		p.quiet()
	})
}

// After a restart of the store nobody is told that nothing was lost.
func TestStoreWasRestarted(t *testing.T) {
	onLossy(t, keeping(100, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position) {
		publishNumbers(t, srv, "news", 1, 3)
		p.events("news", 1, 3)
		l.sink.Reset("news", broker.State{At: broker.Position{Epoch: "new-2", Offset: 2}}, broker.ResetRestarted)
		p.expect(`pushy:resync news {"reason":"restarted","epoch":"new-2","offset":2}`)
		for offset := range uint64(4) {
			place.Offset = offset
			q := connect2(t, srv)
			assert.Contains(t, q.resume("news", place, "").String(), "recovered=false restarted replay=0 ")
			q.Abort()
		}
	})
}

// A client that moves to a node that is behind is sent what it lacks, once, and is not told
// that it is ahead.
func TestClientMovesFasterThanDeliveries(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		late := &lossy{Broker: cluster.Broker()}
		srv := startOn(t, late, keeping(100, time.Hour))
		other := startOn(t, cluster.Broker(), keeping(100, time.Hour))
		stays := connect2(t, srv)
		place := stays.enterWith("news", "").position()
		late.set(func(broker.Entry) fate { return arrivesLater })
		for round := range uint64(5) {
			publishNumbers(t, other, "news", 2*round+1, 2*round+2)
			place.Offset = 2*round + 1
			p := connect2(t, srv)
			assert.Equal(t, fmt.Sprintf("recovered=true replay=1 offset=%d", 2*round+2), p.resume("news", place, "").String())
			p.events("news", 2*round+2, 2*round+2)
			stays.events("news", 2*round+1, 2*round+2)
			p.quiet()
			p.Abort()
		}
		late.set(nil)
		publishNumbers(t, other, "news", 11, 11) // and all that were late
		stays.events("news", 11, 11)
		stays.quiet()
	})
}

// More events are on their way to a node than the channel keeps when a client comes that has them
// already. It is recovered when they have arrived, and no member is told that events are lost.
func TestMoreEventsOnTheirWayThanAreKept(t *testing.T) {
	t.Parallel()
	const late = 300 * time.Millisecond
	for _, c := range []struct {
		name string
		wait time.Duration // from the first event until the client comes
	}{
		{"none has arrived", 50 * time.Millisecond},
		{"some have arrived", late + 5*time.Millisecond},
		{"they arrive while the log is read", late - 5*time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				cluster := newCluster()
				publisher := startOn(t, cluster.Broker(), keeping(2, time.Hour))
				srv := startOn(t, &slowReads{slowSink{
					Broker: cluster.Broker(),
					late:   late,
				}}, keeping(2, time.Hour))
				stays := connect2(t, srv)
				place := stays.enterWith("news", "").position()
				time.Sleep(time.Minute)
				var back *peer
				resume := time.AfterFunc(c.wait, func() {
					back = connect2(t, srv)
					place.Offset = 9
					got := back.resume("news", place, "").String()
					assert.Equal(t, "recovered=true replay=1 offset=10", got)
				})
				defer resume.Stop()
				for i := range uint64(10) {
					publishNumbers(t, publisher, "news", i+1, i+1)
					time.Sleep(time.Millisecond)
				}
				stays.events("news", 1, 10)
				time.Sleep(time.Second)
				require.NotNil(t, back)
				back.events("news", 10, 10)
				publishNumbers(t, publisher, "news", 11, 11)
				stays.events("news", 11, 11)
				back.events("news", 11, 11)
				time.Sleep(time.Minute)
				stays.quiet()
				back.quiet()
			})
		})
	}
}

// slowReads is a slowSink whose log takes 20 ms to read.
type slowReads struct{ slowSink }

func (s *slowReads) Read(ctx context.Context, channel string, r broker.Range) (broker.Page, error) {
	page, err := s.slowSink.Read(ctx, channel, r)
	time.Sleep(20 * time.Millisecond)
	return page, err
}

// Events that are lost on their way, and that the log has no more, are a gap also if a client was the
// first to show that they exist.
func TestLostEventsThatAClientShows(t *testing.T) {
	onLossy(t, keeping(2, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position) {
		l.loses(1, 2, 3, 4, 5)
		publishNumbers(t, srv, "news", 1, 5)
		place.Offset = 5
		began := time.Now()
		back := connect2(t, srv)
		assert.Contains(t, back.resume("news", place, "").String(), "recovered=false unavailable")
		assert.LessOrEqual(t, time.Since(began), 2*time.Second)
		resync := `pushy:resync news {"reason":"trimmed","epoch":"` + place.Epoch + `","offset":3}`
		p.expect(resync)
		assert.LessOrEqual(t, time.Since(began), 10*time.Second)
		p.events("news", 4, 5)
		back.expect(resync)
		back.events("news", 4, 5)
		publishNumbers(t, srv, "news", 6, 6)
		p.events("news", 6, 6)
		p.quiet()
	})
}

// A log that cannot be read loses nothing if the events that are missing have arrived meanwhile.
func TestLogThatCannotBeReadWhileEventsArrive(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		publisher := startOn(t, cluster.Broker(), keeping(100, time.Hour))
		l := &lossy{Broker: cluster.Broker()}
		srv := startOn(t, l, keeping(100, time.Hour))
		stays := connect2(t, srv)
		place := stays.enterWith("news", "").position()
		l.set(func(broker.Entry) fate { return arrivesLater })
		publishNumbers(t, publisher, "news", 1, 2)
		l.mu.Lock()
		late := l.later["news"]
		l.later["news"] = nil
		l.fate = nil
		l.mu.Unlock()
		require.Len(t, late, 2)
		l.mu.Lock()
		l.read = func(context.Context) error {
			for _, e := range late {
				l.sink.Deliver("news", e)
			}
			late = nil
			return errors.New("the log cannot be read")
		}
		l.mu.Unlock()
		back := connect2(t, srv)
		place.Offset = 1
		assert.Equal(t, "recovered=true replay=1 offset=2", back.resume("news", place, "").String())
		back.events("news", 2, 2)
		stays.events("news", 1, 2)
		stays.quiet()
	})
}

// Recovery 28: a client moves between nodes to which the broker delivers at once, 250 ms late and
// 500 ms late. It is recovered each time, receives every event once, and is never ahead.
func TestClientMovesBetweenLateNodes(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(28, 0))
		cluster := newCluster()
		publisher := startOn(t, cluster.Broker(), keeping(1000, time.Hour))
		var nodes [3]*pushy.Server
		for i := range nodes {
			late := time.Duration(i) * 250 * time.Millisecond
			nodes[i] = startOn(t, &slowSink{Broker: cluster.Broker(), late: late}, keeping(1000, time.Hour))
			connect2(t, nodes[i]).enterWith("news", "") // so that the node follows the channel
		}
		p := connect2(t, nodes[0])
		place := p.enterWith("news", "").position()
		p.Abort()
		var published uint64
		move := func(to *pushy.Server) {
			p := connect2(t, to)
			got := p.resume("news", place, "")
			require.NotNil(t, got.Recovered)
			require.True(t, *got.Recovered, "%s", got)
			require.Equal(t, place.Offset+uint64(*got.Replay), got.Offset, "%s", got)
			p.events("news", place.Offset+1, got.Offset)
			place.Offset = got.Offset
			p.Abort()
		}
		for range 200 {
			publishNumbers(t, publisher, "news", published+1, published+3)
			published += 3
			time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
			move(nodes[r.IntN(len(nodes))])
		}
		time.Sleep(time.Second)
		move(nodes[2])
		assert.Equal(t, published, place.Offset)
	})
}

// Clients with positions that are made up cause one question a second to the broker, and
// delay nobody else.
func TestForgedPositionsAskOnceASecond(t *testing.T) {
	onLossy(t, keeping(100, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position) {
		publishNumbers(t, srv, "news", 1, 1)
		p.events("news", 1, 1)
		place.Offset = 1000
		began := time.Now()
		var all sync.WaitGroup
		for range 50 {
			q := connect2(t, srv)
			all.Go(func() {
				assert.Contains(t, q.resume("news", place, "").String(), "recovered=false ahead replay=0")
			})
		}
		publishNumbers(t, srv, "news", 2, 4)
		p.events("news", 2, 4)
		assert.Zero(t, time.Since(began))
		all.Wait()
		assert.LessOrEqual(t, time.Since(began), 2*time.Second)
		assert.LessOrEqual(t, l.tops, 2)
	})
}

// Many clients that come back at once read the log at most once.
func TestManyClientsComeBack(t *testing.T) {
	onLossy(t, keeping(100, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position) {
		publishNumbers(t, srv, "other", 1, 100)
		top, err := srv.Position(t.Context(), "other")
		require.NoError(t, err)
		top.Offset = 0
		var all sync.WaitGroup
		for range 1000 {
			q := connect2(t, srv)
			all.Go(func() {
				assert.Equal(t, "recovered=true replay=100 offset=100", q.resume("other", top, "").String())
				q.events("other", 1, 100)
			})
		}
		all.Wait()
		assert.Equal(t, 1, l.reads)
	})
}

// The rings of the channels that are quiet for the longest time are freed; their clients are
// served from the log.
func TestMaxKept(t *testing.T) {
	o := keeping(100, time.Hour)
	o.MaxKept = 64 << 10
	onLossy(t, o, func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position) {
		data := strings.Repeat("x", 1000)
		for i := range 20 {
			channel := fmt.Sprint("c", i)
			p.enterWith(channel, "")
			for range 5 {
				require.NoError(t, srv.Publish(t.Context(), channel, "n", data))
				p.next()
			}
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		require.Zero(t, l.reads)
		place.Offset = 0
		q := connect2(t, srv)
		assert.Equal(t, "recovered=true replay=5 offset=5", q.resume("c19", place, "").String())
		assert.Zero(t, l.reads, "the newest is in memory")
		assert.Equal(t, "n", q.next().Event)
		q = connect2(t, srv)
		assert.Equal(t, "recovered=true replay=5 offset=5", q.resume("c0", place, "").String())
		assert.Equal(t, 1, l.reads, "the oldest is not")
	})
}

// As TestLostEventsThatAClientShows, with a second client that comes during the first one's wait.
func TestLostEventsThatTwoClientsShow(t *testing.T) {
	onLossy(t, keeping(2, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position) {
		publishNumbers(t, srv, "news", 1, 1)
		p.events("news", 1, 1)
		time.Sleep(55 * time.Second)
		l.loses(2, 3, 4, 5, 6)
		publishNumbers(t, srv, "news", 2, 6)
		place.Offset = 6
		first, second := connect2(t, srv), connect2(t, srv)
		began := time.Now()
		answer := make(chan string, 1)
		go func() {
			time.Sleep(100 * time.Millisecond)
			answer <- second.resume("news", place, "").String()
		}()
		assert.Contains(t, first.resume("news", place, "").String(), "recovered=false unavailable")
		assert.Contains(t, <-answer, "recovered=false unavailable")
		assert.LessOrEqual(t, time.Since(began), 3500*time.Millisecond)
	})
}
