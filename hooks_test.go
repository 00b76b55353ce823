package pushy_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/transport"
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
	session, client := transport.Pipe("websocket")
	srv.Connect(session, nil)
	p := &peer{t: t, PipeClient: client}
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
