package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/ordercheck"
	"github.com/gopushy/pushy/subscriber"
)

// subscribed is a subscriber.Client that follows a channel, and what it has received.
type subscribed struct {
	client *subscriber.Client
	at     atomic.Pointer[ordercheck.Follower] // a copy after each event
	ended  chan struct{}
}

// followKept subscribes to a channel that keeps events through a dialler, and checks everything that the
// loop receives.
func followKept(t *testing.T, log *ordercheck.Log, channel string,
	dial func(ctx context.Context, network, addr string) (net.Conn, error)) *subscribed {
	c, err := subscriber.Dial(t.Context(), "ws://pushy.invalid/pushy", subscriber.Options{
		NetDial:  dial,
		MinDelay: 50 * time.Millisecond,
		MaxDelay: time.Second,
	})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	s, err := c.Subscribe(t.Context(), channel, nil)
	require.NoError(t, err)
	f := log.Follower()
	place := s.Position()
	require.NoError(t, f.Success(fmt.Appendf(nil, `{"epoch":%q,"offset":%d}`, place.Epoch, place.Offset)))
	one := &subscribed{
		client: c,
		ended:  make(chan struct{}),
	}
	go func() {
		defer close(one.ended)
		for e, err := range s.Events() {
			switch {
			case err != nil:
				assert.ErrorIs(t, err, subscriber.ErrClosed)
				return
			case e.Kind == subscriber.KindGap:
				gap := fmt.Appendf(nil, `{"reason":%q,"epoch":%q,"offset":%d}`, e.Reason, e.Position.Epoch, e.Position.Offset)
				assert.NoError(t, f.Resync(gap))
			default:
				assert.NoError(t, f.Event(e.Position.Offset, string(e.Data)))
			}
			now, at := *f, *f.At
			now.At = &at
			one.at.Store(&now)
		}
	}()
	return one
}

// successor is the server process that runs now. Clients connect to it, whatever address they have.
type successor struct{ host atomic.Pointer[string] }

func (s *successor) is(c *child) {
	host := strings.TrimPrefix(c.url, "http://")
	s.host.Store(&host)
}

func (s *successor) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, *s.host.Load())
}

// Reach C1: a server process is killed and another one started, 3 times under 200 events a second (20
// times under 1,000 with PUSHY_SOAK), on a store that keeps the events. No client loses or repeats an
// event, unless it is told that it missed more than a server replays.
func TestGoClientsOfKilledServers(t *testing.T) {
	on(t, []string{"redis", "nats"}, func(t *testing.T, st *store) {
		kills, rate := 3, 200
		if strict {
			kills, rate = 20, 1000
		}
		st.Lease = killedLease
		publisher := st.start(t, 1)[0].srv
		var now successor
		serve := func() *child {
			c := st.child(t)
			now.is(c)
			return c
		}
		server := serve()
		var log ordercheck.Log
		var clients []*subscribed
		for range 5 {
			clients = append(clients, followKept(t, &log, "kept", now.dial))
		}
		stop := make(chan struct{})
		var publishing sync.WaitGroup
		publishing.Go(func() {
			pace := time.NewTicker(time.Second / time.Duration(rate))
			defer pace.Stop()
			for i := 0; ; i++ {
				select {
				case <-pace.C:
				case <-stop:
					return
				}
				receipt, err := publisher.PublishEvent(context.Background(), pushy.Event{Channel: "kept", Name: "n", Data: i})
				if assert.NoError(t, err) {
					data, _ := json.Marshal(i)
					assert.NoError(t, log.Published(receipt.Position, string(data)))
				}
			}
		})
		// follow waits until all clients have received half a second of events that are not published yet.
		follow := func() {
			top, err := publisher.Position(t.Context(), "kept")
			require.NoError(t, err)
			soon(t, patience, "all clients follow", func() bool {
				for _, c := range clients {
					f := c.at.Load()
					if f == nil || f.At.Epoch != top.Epoch || f.At.Offset < top.Offset+uint64(rate)/2 {
						return false
					}
				}
				return true
			})
		}
		for range kills {
			follow()
			server.kill()
			server = serve()
		}
		follow()
		close(stop)
		publishing.Wait()
		top, err := publisher.Position(t.Context(), "kept")
		require.NoError(t, err)
		soon(t, patience, "all clients have the last event", func() bool {
			for _, c := range clients {
				if *c.at.Load().At != top {
					return false
				}
			}
			return true
		})
		breaks := 0
		for _, c := range clients {
			c.client.Close()
			<-c.ended
			f := c.at.Load()
			breaks += len(f.Breaks)
			for _, reason := range f.Breaks {
				assert.Equal(t, "large", reason)
			}
		}
		t.Logf("%d events, %d kills, %d clients, %d named gaps", top.Offset, kills, len(clients), breaks)
	})
}

// newEpoch waits until all clients have received at least that many events of one epoch, which is not the
// old one. It returns the epoch.
func newEpoch(t *testing.T, clients []*subscribed, old string, events uint64) (epoch string) {
	t.Helper()
	soon(t, patience, "all clients follow the new log", func() bool {
		epoch = ""
		for _, c := range clients {
			f := c.at.Load()
			if f == nil || f.At.Epoch == old || f.At.Offset < events || epoch != "" && f.At.Epoch != epoch {
				return false
			}
			epoch = f.At.Epoch
		}
		return true
	})
	return epoch
}

// Reach C1 without a store: a server process that keeps the events in its memory is killed while it
// publishes, and another one started, 3 times (20 times with PUSHY_SOAK). Each time, each client is told
// once that the log is another one, and then receives all events of that one in order.
func TestGoClientsWithoutAStore(t *testing.T) {
	t.Parallel()
	kills, publishers := 3, 1
	if strict {
		kills, publishers = 20, 10 // at 100 events a second each
	}
	var now successor
	serve := func() *child {
		c, err := startChild("")
		require.NoError(t, err)
		t.Cleanup(c.kill)
		now.is(c)
		return c
	}
	server := serve()
	var log ordercheck.Log
	var clients []*subscribed
	for range 5 {
		clients = append(clients, followKept(t, &log, "kept", now.dial))
	}
	epoch := ""
	for range kills {
		var publishing sync.WaitGroup
		for range publishers {
			publishing.Go(func() { assert.Error(t, server.publish("kept", 1_000_000)) })
		}
		epoch = newEpoch(t, clients, epoch, 30)
		server.kill()
		publishing.Wait()
		server = serve()
	}
	require.NoError(t, server.publish("kept", 50))
	last := newEpoch(t, clients, epoch, 50)
	for _, c := range clients {
		c.client.Close()
		<-c.ended
		f := c.at.Load()
		assert.Equal(t, broker.Position{Epoch: last, Offset: 50}, *f.At)
		require.Len(t, f.Breaks, kills)
		for _, reason := range f.Breaks {
			assert.Equal(t, "epoch", reason)
		}
	}
	t.Logf("%d events, %d kills, %d clients", clients[0].at.Load().Events, kills, len(clients))
}

// Reach C3: all data of Redis is deleted. Clients that are connected, and one that returns with a position
// that it has saved, are told so once, and then receive only new events, in order.
func TestGoClientsOfAnEmptiedLog(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	nodes := s.start(t, 2)
	dialTo := func(n node) func(ctx context.Context, network, addr string) (net.Conn, error) {
		return func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, strings.TrimPrefix(n.url, "http://"))
		}
	}
	var log ordercheck.Log
	var clients []*subscribed
	for _, n := range nodes {
		for range 2 {
			clients = append(clients, followKept(t, &log, "kept", dialTo(n)))
		}
	}
	number := 0
	publish := func(n int) (last broker.Position) {
		t.Helper()
		for range n {
			number++
			receipt, err := nodes[number%2].srv.PublishEvent(t.Context(), pushy.Event{Channel: "kept", Name: "n", Data: number})
			require.NoError(t, err)
			require.NoError(t, log.Published(receipt.Position, fmt.Sprint(number)))
			last = receipt.Position
		}
		return last
	}
	const flushes = 3
	epoch := ""
	var saved broker.Position
	for range flushes {
		saved = publish(50)
		epoch = newEpoch(t, clients, epoch, 50)
		require.Equal(t, epoch, saved.Epoch)
		answer, err := s.redis(t).Command("FLUSHALL")
		require.NoError(t, err)
		require.Equal(t, "+OK", answer)
	}
	last := publish(30)
	require.NotEqual(t, saved.Epoch, last.Epoch)
	require.Equal(t, last.Epoch, newEpoch(t, clients, epoch, last.Offset))

	// A client that was not running.
	c, err := subscriber.Dial(t.Context(), nodes[0].url+"/pushy", subscriber.Options{})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	sub, err := c.Subscribe(t.Context(), "kept", &subscriber.SubscribeOptions{Since: saved})
	require.NoError(t, err)
	after := publish(10)
	var got []string
	for e, err := range sub.Events() {
		require.NoError(t, err)
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Kind, e.Reason, e.Data)))
		if e.Position == after {
			break
		}
	}
	want := []string{"gap epoch"}
	for n := number - 9; n <= number; n++ {
		want = append(want, fmt.Sprintf("published  %d", n))
	}
	assert.Equal(t, want, got)
	newEpoch(t, clients, epoch, after.Offset)
	for _, c := range clients {
		c.client.Close()
		<-c.ended
		f := c.at.Load()
		assert.Equal(t, after, *f.At)
		require.Len(t, f.Breaks, flushes)
		for _, reason := range f.Breaks {
			assert.Equal(t, "epoch", reason)
		}
	}
}
