package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/ordercheck"
)

// runner is a client that reconnects at random, and checks what it receives.
type runner struct {
	*ordercheck.Follower
	t       testing.TB
	r       *rand.Rand
	servers []*pushy.Server
	p       *peer
}

func (c *runner) reconnect() {
	if c.p != nil {
		c.p.Abort()
	}
	c.p = connect2(c.t, c.servers[c.r.IntN(len(c.servers))])
	keys := ""
	if c.At != nil {
		keys = fmt.Sprintf(`,"since":{"epoch":%q,"offset":%d}`, c.At.Epoch, c.At.Offset)
	}
	c.p.send(`{"command":"subscribe","data":{"channel":"news"` + keys + `}}`)
	require.NoError(c.t, c.Success(c.p.next().Data))
}

func (c *runner) read(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	for {
		text, err := c.p.Receive(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		require.NoError(c.t, err)
		var m struct {
			Event  string
			Data   json.RawMessage
			Offset uint64
		}
		require.NoError(c.t, json.Unmarshal([]byte(text), &m))
		require.Equal(c.t, "n", m.Event, "%s", text)
		require.NoError(c.t, c.Event(m.Offset, string(m.Data)))
	}
}

// Recovery 6: eight publishers, and 1,000 clients that lose their connections and resume at
// random for 60 s, on three nodes (100 clients without PUSHY_SOAK). What each client receives
// has no gap and no repeat.
func TestThousandClientsResumeAtRandom(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		const publishers = 8
		const duration = 60 * time.Second
		clients := 100
		if soak {
			clients = 1000
		}
		cluster := newCluster()
		var servers []*pushy.Server
		for range 3 {
			servers = append(servers, startOn(t, cluster.Broker(), keeping(1000, time.Hour)))
		}
		var log ordercheck.Log
		var all []*runner
		var running sync.WaitGroup
		end := time.Now().Add(duration)
		for i := range clients {
			c := &runner{
				Follower: log.Follower(),
				t:        t,
				r:        rand.New(rand.NewPCG(uint64(i), 6)),
				servers:  servers,
			}
			c.reconnect()
			all = append(all, c)
			running.Go(func() {
				for time.Now().Before(end) {
					c.read(time.Duration(c.r.IntN(20_000)) * time.Millisecond)
					c.reconnect()
				}
			})
		}
		for i := range publishers {
			running.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 66))
				for n := 0; time.Now().Before(end); n++ {
					data := fmt.Sprintf(`{"publisher":%d,"n":%d}`, i, n)
					receipt, err := servers[i%3].PublishEvent(t.Context(), pushy.Event{
						Channel: "news",
						Name:    "n",
						Data:    json.RawMessage(data),
					})
					if err == nil {
						err = log.Published(receipt.Position, data)
					}
					if err != nil {
						t.Error(err)
					}
					time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
				}
			})
		}
		running.Wait()
		last, err := servers[0].Position(t.Context(), "news")
		require.NoError(t, err)
		require.Greater(t, last.Offset, uint64(100))
		for _, c := range all {
			c.read(time.Millisecond)
			require.Equal(t, last, *c.At)
			require.Empty(t, c.Breaks)
		}
	})
}

// Recovery 16: 10,000 clients (1,000 without PUSHY_SOAK) come back at once and lack 100 events
// each, which they do not read yet. Nobody is disconnected, and the server has each event once.
func TestTenThousandReplays(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		const events, size = 100, 500
		clients := 1000
		if soak {
			clients = 10_000
		}
		o := keeping(events, time.Hour)
		o.MaxBuffered = int64(clients * events * size / 5)
		srv := startServer(t, o)
		place := connect2(t, srv).enterWith("news", "").position()
		publishBytes(t, srv, "news", events, size)
		var back []*peer
		for range clients {
			p := connect2(t, srv)
			p.send(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"news","since":{"epoch":%q,"offset":0}}}`, place.Epoch))
			back = append(back, p)
		}
		synctest.Wait()
		require.Equal(t, clients+1, srv.Stats().Connections)
		require.Less(t, srv.Stats().Buffered, int64(clients*2000), "the events are shared")
		want := fmt.Sprintf("recovered=true replay=%d offset=%d", events, events)
		for _, p := range back {
			require.Equal(t, want, p.next().past(t).String())
			for range events {
				text, err := p.Receive(t.Context())
				require.NoError(t, err)
				require.True(t, strings.HasPrefix(text, `{"event":"n",`))
			}
		}
		p := back[clients-1]
		p.quiet()
	})
}
