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
		var url atomic.Pointer[string]
		serve := func() *child {
			c := st.child(t)
			host := strings.TrimPrefix(c.url, "http://")
			url.Store(&host)
			return c
		}
		dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, *url.Load())
		}
		server := serve()
		var log ordercheck.Log
		var clients []*subscribed
		for range 5 {
			clients = append(clients, followKept(t, &log, "kept", dial))
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
