package pushy_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// Connect is first and Disconnect last, and a Subscribe comes before its
// Unsubscribe, whoever ends the membership and when.
func TestHookOrder(t *testing.T) {
	t.Parallel()
	for range 200 {
		counts := hookCounts{conns: map[*pushy.Conn]string{}, occupied: map[string]bool{}}
		hooks := counts.hooks(0)
		in := map[*pushy.Conn]int{}
		var mu sync.Mutex
		subscribe, unsubscribe := hooks.Subscribe, hooks.Unsubscribe
		hooks.Subscribe = func(c *pushy.Conn, ch *pushy.Channel) {
			mu.Lock()
			in[c]++
			mu.Unlock()
			subscribe(c, ch)
		}
		hooks.Unsubscribe = func(c *pushy.Conn, ch *pushy.Channel) {
			mu.Lock()
			in[c]--
			assert.GreaterOrEqual(t, in[c], 0, "Unsubscribe before Subscribe")
			mu.Unlock()
			unsubscribe(c, ch)
		}
		srv := startServer(t, pushy.Options{Hooks: hooks})
		p := connectPeer(t, srv)
		p.quiet() // the Connect hook is over
		conn := p.conn(srv)
		var all sync.WaitGroup
		all.Go(func() { _ = srv.Channels().Join(conn, "news", nil) })
		all.Go(func() {
			for range 20 {
				if ch, ok := srv.Channels().Lookup("news"); ok {
					_ = ch.Remove(conn, "out")
				}
			}
		})
		all.Go(func() { p.Abort() })
		wait(t, peerPatience, "join, remove and abort", all.Wait)
		assert.NoError(t, srv.Shutdown(t.Context()))
		assert.Empty(t, counts.ended())
		assert.Zero(t, srv.Entries())
		if t.Failed() {
			return
		}
	}
}

// A host that is told of a connection by its client may join it to a channel at
// once; the Connect hook is first all the same.
func TestConnectHookIsFirst(t *testing.T) {
	t.Parallel()
	var seen events
	hooks := seen.hooks()
	connect, release := hooks.Connect, make(chan struct{})
	hooks.Connect = func(c *pushy.Conn) {
		<-release
		connect(c)
	}
	srv := startServer(t, pushy.Options{Hooks: hooks})
	session, client := inmem.Pipe("websocket")
	srv.Connect(session, nil)
	p := &peer{t: t, Client: client}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if text, err := p.Receive(ctx); err == nil { // the client has its id, so the host may
		hello, _ := parseFrame(text)
		if conn, known := srv.Conn(hello.field("socketId")); known {
			joined := make(chan error)
			go func() { joined <- srv.Channels().Join(conn, "news", nil) }()
			select { // either it waits, or it must not run hooks yet
			case err := <-joined:
				assert.NoError(t, err)
			case <-time.After(100 * time.Millisecond):
				defer func() { <-joined }()
			}
		}
	}
	close(release)
	p.Close(1000, "")
	assert.NoError(t, srv.Shutdown(t.Context()))
	assert.Equal(t, "connect", seen.list()[0], "%v", seen.list())
}

// Each hook sees, and the client has by then received, what the comments of Hooks say.
func TestWhatHooksMayRelyOn(t *testing.T) {
	t.Parallel()
	for _, channel := range []string{"news", "private-room"} {
		t.Run(channel, func(t *testing.T) {
			t.Parallel()
			var srv *pushy.Server
			known := func(c *pushy.Conn) bool {
				_, ok := srv.Conn(c.ID())
				return ok
			}
			var seen events
			entered, release := make(chan string), make(chan struct{})
			pause := func(hook string) {
				entered <- hook
				<-release
			}
			srv = startServer(t, pushy.Options{Hooks: pushy.Hooks{
				Connect: func(c *pushy.Conn) {
					assert.False(t, known(c))
					assert.NoError(t, c.Send("welcome", 1))
				},
				Subscribe: func(c *pushy.Conn, ch *pushy.Channel) {
					assert.True(t, ch.Has(c))
					assert.Equal(t, 1, ch.Len())
					pause("Subscribe")
					assert.True(t, ch.Has(c), "what ends the membership takes effect afterwards")
				},
				Unsubscribe: func(c *pushy.Conn, ch *pushy.Channel) {
					assert.False(t, ch.Has(c))
					assert.Empty(t, c.Channels())
					pause("Unsubscribe")
				},
				ChannelOccupied: func(ch *pushy.Channel) {
					assert.Zero(t, ch.Len())
					seen.add("occupied")
				},
				ChannelVacated: func(ch *pushy.Channel) {
					assert.Zero(t, ch.Len())
					seen.add("vacated")
				},
				Disconnect: func(c *pushy.Conn, _ int, _ string) {
					assert.False(t, known(c))
					assert.ErrorIs(t, c.Send("late", 1), pushy.ErrClosed)
					assert.ErrorIs(t, srv.Channels().Join(c, channel, nil), pushy.ErrClosed)
					assert.Error(t, c.Context().Err())
					assert.Empty(t, c.Channels())
					seen.add("disconnect")
				},
			}})
			p := connectPeer(t, srv)
			p.expect("welcome 1")
			p.send(subscribeText(t, p.id, channel, ""))
			assert.Equal(t, "Subscribe", <-entered)
			assert.Equal(t, "pushy:subscription-success", p.next().Event, "before the hook has returned")
			require.NoError(t, srv.Publish(t.Context(), channel, "said", 1))
			p.expect("said " + channel + " 1")
			ch, ok := srv.Channels().Lookup(channel)
			require.True(t, ok)
			require.NoError(t, ch.Remove(p.conn(srv), "out"))
			require.NoError(t, srv.Publish(t.Context(), channel, "said", 2))
			p.expect("said " + channel + " 2")
			release <- struct{}{}
			assert.Equal(t, "Unsubscribe", <-entered)
			p.expect(`pushy:subscription-end {"channel":"` + channel + `","reason":"out"}`)
			release <- struct{}{}
			p.quiet()
			assert.Equal(t, []string{"occupied", "vacated"}, seen.list())
			p.Close(1000, "")
			p.ended()
			require.NoError(t, srv.Shutdown(t.Context()))
			assert.Equal(t, []string{"occupied", "vacated", "disconnect"}, seen.list())
		})
	}
}
