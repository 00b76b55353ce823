package pushy_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

func TestShutdownTellsEverybody(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		var seen events
		srv := startServer(t, pushy.Options{Hooks: seen.hooks()})
		var peers [1200]*peer
		for i := range peers {
			peers[i] = connectPeer(t, srv)
		}
		peers[0].subscribe("news", "")
		require.NoError(t, srv.Publish(t.Context(), "news", "last", 1))
		began := time.Now()
		told := make(chan time.Duration, len(peers))
		for _, p := range peers[1:] {
			go func() {
				end := p.ended()
				assert.Equal(t, pushy.CloseShutdown, end.Code)
				told <- time.Since(began)
			}()
		}
		ended := make(chan error)
		go func() { ended <- srv.Shutdown(t.Context()) }()
		peers[0].expect(`last news 1`)
		assert.Equal(t, 3001, peers[0].ended().Code, "what was queued comes first")
		require.NoError(t, <-ended)
		var slowest time.Duration
		for range peers[1:] {
			slowest = max(slowest, <-told)
		}
		assert.Greater(t, slowest, 900*time.Millisecond, "in batches, over the time in which these clients can return")
		assert.LessOrEqual(t, slowest, time.Second)
		assert.Zero(t, srv.Stats().Connections)
		gone := 0
		for _, word := range seen.list() {
			if strings.HasPrefix(word, "disconnect 3001") {
				gone++
			}
		}
		assert.Equal(t, len(peers), gone, "Disconnect hooks have run")
	})
}

func TestShutdownRefusesWhatIsNew(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	require.NoError(t, srv.Shutdown(t.Context()))
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, httptest.NewRequest("GET", "/pushy/socket/websocket", nil))
	if assert.Contains(t, []int{503, 400}, w.Code) && w.Code == 503 {
		assert.NotEmpty(t, w.Header().Get("Retry-After"))
		assert.EqualValues(t, 1, srv.Stats().Refused["shutdown"])
	}
	assert.Equal(t, 503, postTrigger(t, srv, "news", "x", "{}"))
	assert.ErrorIs(t, srv.Publish(t.Context(), "news", "x", 1), pushy.ErrClosed)
	session, client := inmem.Pipe("websocket")
	srv.Connect(session, nil)
	_, err := client.Receive(t.Context())
	assert.Error(t, err, "a session that comes too late is ended")
	assert.NoError(t, srv.Shutdown(t.Context()), "again")
	assert.NoError(t, srv.Close(), "and closed")
}

// Issue 11, number 26: Shutdown and Close from within a hook or command wait for
// their own caller, but not for ever.
func TestShutdownFromWithin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		from func(o *pushy.Options, try func())
	}{
		{"connectHook", func(o *pushy.Options, try func()) { o.Hooks.Connect = func(*pushy.Conn) { try() } }},
		{"subscribeHook", func(o *pushy.Options, try func()) { o.Hooks.Subscribe = func(*pushy.Conn, *pushy.Channel) { try() } }},
		{"occupiedHook", func(o *pushy.Options, try func()) { o.Hooks.ChannelOccupied = func(*pushy.Channel) { try() } }},
		{"unsubscribeHook", func(o *pushy.Options, try func()) { o.Hooks.Unsubscribe = func(*pushy.Conn, *pushy.Channel) { try() } }},
		{"vacatedHook", func(o *pushy.Options, try func()) { o.Hooks.ChannelVacated = func(*pushy.Channel) { try() } }},
		{"disconnectHook", func(o *pushy.Options, try func()) { o.Hooks.Disconnect = func(*pushy.Conn, int, string) { try() } }},
		{"command", func(*pushy.Options, func()) {}},
		{"typedCommand", func(*pushy.Options, func()) {}},
	} {
		for _, end := range []string{"shutdown", "close"} {
			t.Run(c.name+"/"+end, func(t *testing.T) {
				t.Parallel()
				fakeTime(t, func(t *testing.T) { shutDownFromWithin(t, c.name, c.from, end) })
			})
		}
	}
}

func shutDownFromWithin(t *testing.T, name string, from func(*pushy.Options, func()), end string) {
	var srv *pushy.Server
	got := make(chan error, 1)
	tried := false
	try := func() {
		if tried {
			return
		}
		tried = true
		if end == "close" {
			got <- srv.Close()
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		got <- srv.Shutdown(ctx)
	}
	o := pushy.Options{}
	from(&o, try)
	srv = startServer(t, o)
	srv.RegisterCommand("command", func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) { try() })
	pushy.Handle(srv, "typedCommand", func(context.Context, *pushy.Conn, struct{}) (any, error) { try(); return nil, nil })
	began := time.Now()
	session, client := inmem.Pipe("websocket")
	srv.Connect(session, nil)
	for _, text := range []string{
		`{"command":"subscribe","data":{"channel":"news"}}`,
		`{"command":"unsubscribe","data":{"channel":"news"}}`,
		`{"command":"` + name + `"}`,
	} {
		go func() { _ = client.Send(text) }() // it may have ended
		synctest.Wait()
	}
	client.Close(1000, "")
	err := <-got
	if end == "close" {
		assert.NoError(t, err)
	} else {
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	}
	assert.Less(t, time.Since(began), 10*time.Second)
	assert.Error(t, srv.Publish(t.Context(), "news", "x", 1))
	time.Sleep(time.Minute)
	assert.Zero(t, srv.Stats().Connections)
	assert.Zero(t, srv.Entries())
	assert.Equal(t, err, srv.Close(), "it has ended")
}

// Issue 11, number 26: what is called from within one Server may end another, and
// whatever has the name of a part of pushy may end any.
func TestShutdownOfAnotherServer(t *testing.T) {
	t.Parallel()
	other := startServer(t, pushy.Options{})
	var once sync.Once
	got := make(chan error, 2)
	srv := startServer(t, pushy.Options{Hooks: pushy.Hooks{Connect: func(*pushy.Conn) {
		once.Do(func() { got <- other.Shutdown(context.Background()) })
	}}})
	last := startServer(t, pushy.Options{})
	srv.RegisterCommand("stop", func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) { got <- last.Close() })
	p := connectPeer(t, srv)
	assert.NoError(t, <-got)
	p.send(`{"command":"stop"}`)
	assert.NoError(t, <-got)
	p.quiet()
}

func TestShutdownDeadlinePasses(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		var seen events
		srv := startServer(t, pushy.Options{Hooks: seen.hooks()})
		release := make(chan struct{})
		stuck := make(chan *pushy.Conn, 1)
		srv.RegisterCommand("stick", func(_ *pushy.Server, conn *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) {
			stuck <- conn
			<-release
		})
		p, q := connectPeer(t, srv), connectPeer(t, srv)
		p.subscribe("private-room", `{"a":1}`)
		q.subscribe("private-room", "")
		p.next() // the add
		p.send(`{"command":"stick"}`)
		conn := <-stuck
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		second := make(chan error, 1)
		began := time.Now()
		go func() {
			time.Sleep(time.Second)
			second <- srv.Shutdown(context.Background())
		}()
		go q.ended()
		assert.ErrorIs(t, srv.Shutdown(ctx), context.DeadlineExceeded)
		assert.GreaterOrEqual(t, time.Since(began), 3*time.Second)
		assert.LessOrEqual(t, time.Since(began), 4*time.Second, "a second for hooks")
		assert.ErrorIs(t, <-second, context.DeadlineExceeded, "the second waits for the first")
		assert.Error(t, conn.Context().Err())
		assert.ErrorIs(t, conn.Send("x", 1), pushy.ErrClosed)
		assert.Zero(t, srv.Entries())
		ended := 0
		for _, word := range seen.list() {
			if word == "disconnect 3001 server shutting down" {
				ended++
			}
		}
		assert.Equal(t, 2, ended, "hooks have run, for the one that is stuck too: %v", seen.list())
		close(release)
		p.ended()
	})
}

func TestCloseDuringShutdown(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		var seen events
		srv := startServer(t, pushy.Options{Hooks: seen.hooks()})
		release := make(chan struct{})
		srv.RegisterCommand("stick", func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) { <-release })
		p := connectPeer(t, srv)
		p.send(`{"command":"stick"}`)
		synctest.Wait()
		first := make(chan error, 1)
		go func() { first <- srv.Shutdown(context.Background()) }()
		time.Sleep(time.Minute)
		select {
		case err := <-first:
			t.Fatalf("Shutdown does not wait for a command: %v", err)
		default:
		}
		began := time.Now()
		assert.NoError(t, srv.Close())
		assert.LessOrEqual(t, time.Since(began), time.Second, "a second for hooks")
		assert.Error(t, <-first, "it did not end in order")
		assert.Equal(t, []string{"connect", "disconnect 3001 server shutting down"}, seen.list())
		close(release)
	})
}

// A second Shutdown gives up when its own context ends.
func TestSecondShutdownHasItsOwnDeadline(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{})
		release := make(chan struct{})
		srv.RegisterCommand("stick", func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) { <-release })
		p := connectPeer(t, srv)
		p.send(`{"command":"stick"}`)
		synctest.Wait()
		first := make(chan error, 1)
		go func() { first <- srv.Shutdown(context.Background()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, srv.Shutdown(ctx), context.DeadlineExceeded)
		close(release)
		p.ended()
		assert.NoError(t, <-first)
	})
}

func TestSlowConsumerIsCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		options pushy.Options
		events  int
		size    int
		reason  string
	}{
		{"connBuffer", pushy.Options{Limits: pushy.Limits{ConnBuffer: 10_000}}, 200, 1000, "slow consumer"},
		{"maxBuffered", pushy.Options{MaxBuffered: 10_000}, 200, 1000, "server buffers full"},
		{"writeTimeout", pushy.Options{WriteTimeout: 3 * time.Second}, 30, 10, "slow consumer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				var seen events
				c.options.Hooks = seen.hooks()
				srv := startServer(t, c.options)
				slow, other := connectPeer(t, srv), connectPeer(t, srv)
				slow.subscribe("private-room", `{"a":1}`)
				other.subscribe("private-room", `{"a":2}`)
				got := map[string]int{}
				done := make(chan struct{})
				go func() {
					defer close(done)
					for range c.events + 1 {
						got[other.next().Event]++
					}
				}()
				for range c.events {
					require.NoError(t, srv.Publish(t.Context(), "private-room", "news", strings.Repeat("x", c.size)))
					synctest.Wait() // the other one reads
				}
				time.Sleep(time.Minute)
				<-done
				assert.Equal(t, map[string]int{"news": c.events, "pushy:presence-quit": 1}, got, "what the other one got")
				list := seen.list()
				assert.Contains(t, list, "disconnect 3008 "+c.reason)
				assert.Equal(t, 1, srv.Stats().Connections)
				assert.Zero(t, srv.Stats().Buffered)
				end := slow.ended()
				assert.Contains(t, []int{3008, 1006}, end.Code) // who does not read does not see the goodbye
			})
		})
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		var seen events
		srv := startServer(t, pushy.Options{Hooks: seen.hooks()})
		p := connectPeer(t, srv)
		for range 200 {
			require.Equal(t, "200", p.ask(`{"command":"x"}`).field("code"))
		}
		p.send(`{"command":"x","id":7}`)
		p.expect(`pushy:error {"message":"Too many requests","code":"429","id":7}`)
		require.Equal(t, "429", p.ask(`no message at all`).field("code"), "bogus ones count")
		time.Sleep(10 * time.Millisecond)
		require.Equal(t, "200", p.ask(`{"command":"x"}`).field("code"), "100 a second come in")
		require.Equal(t, "429", p.ask(`{"command":"x"}`).field("code"))
		time.Sleep(3 * time.Second)
		began := time.Now()
		for i := 0; ; i++ { // 111 a second, for ten seconds
			if p.Send(`{"command":"x"}`) != nil {
				break
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := p.Receive(ctx)
			cancel()
			if err != nil {
				break
			}
			time.Sleep(9 * time.Millisecond)
			require.Less(t, i, 10_000)
		}
		end := p.ended()
		assert.Equal(t, 1008, end.Code)
		assert.GreaterOrEqual(t, time.Since(began), 10*time.Second, "ten seconds of refusals")
		assert.Less(t, time.Since(began), 40*time.Second)
		time.Sleep(time.Minute)
		assert.Contains(t, seen.list(), "disconnect 1008 too many requests")
	})
}
