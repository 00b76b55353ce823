package pusher_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/subscriber"
)

// visits open a connection of each protocol and use it until the context ends.
var visits = map[string]func(ctx context.Context, n *node, id string){
	"pushy": func(ctx context.Context, n *node, id string) {
		visitSocket(ctx, n, "/pushy/socket/websocket?v=2", `{"command":"subscribe","data":{"channel":"news"}}`)
	},
	"pusher": func(ctx context.Context, n *node, id string) {
		visitSocket(ctx, n, "/app/"+appKey, `{"event":"pusher:subscribe","data":{"channel":"news"}}`)
	},
	"sse": func(ctx context.Context, n *node, id string) {
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://pushy.test/pushy/events?channel=news&channel=more", nil)
		if res, err := n.http.Do(r); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	},
	"xhr": func(ctx context.Context, n *node, id string) {
		for range 3 {
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://pushy.test/pushy/socket/000/"+id+"/xhr_streaming", nil)
			res, err := n.http.Do(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	},
	"go": func(ctx context.Context, n *node, id string) {
		c, err := subscriber.Dial(ctx, "ws://pushy.test/pushy", subscriber.Options{NetDial: n.pipes.Dial})
		if err != nil {
			return
		}
		defer c.Close()
		s, err := c.Subscribe(ctx, "news", nil)
		if err != nil {
			return
		}
		context.AfterFunc(ctx, c.Close)
		for range s.Events() {
		}
	},
	"listen": func(ctx context.Context, n *node, id string) {
		for range n.srv.Subscribe(ctx, "news", "more") {
		}
	},
}

func visitSocket(ctx context.Context, n *node, path, message string) {
	d := ws.Dialer{NetDial: n.pipes.Dial}
	conn, _, _, err := d.Dial(ctx, "ws://pushy.test"+path)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	go func() { _ = ws.WriteFrame(conn, ws.MaskFrameInPlace(ws.NewTextFrame([]byte(message)))) }()
	_, _ = io.Copy(io.Discard, conn)
}

// Connections of all protocols that are lost at any moment leave nothing behind, and no figure says that
// the Server has failed.
func TestConnectionsOfAllProtocolsComeAndGo(t *testing.T) {
	t.Parallel()
	var opened, closed sync.Map
	n := serve(t, pushy.Options{
		Hooks: pushy.Hooks{
			Connect:    func(c *pushy.Conn) { opened.Store(c.ID(), true) },
			Disconnect: func(c *pushy.Conn, _ int, _ string) { closed.Store(c.ID(), true) },
		},
		Authorizer: authorizer(func(r pushy.AuthRequest) error {
			select {
			case <-r.Conn.Context().Done():
			case <-time.After(rand.N(5 * time.Millisecond)):
			}
			return nil
		}),
		Grace:  time.Second,
		SockJS: pushy.SockJS{DisconnectDelay: time.Second},
	})
	for round := range 30 {
		var visiting sync.WaitGroup
		for i := range 10 {
			for name, visit := range visits {
				visiting.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), rand.N(60*time.Millisecond))
					defer cancel()
					visit(ctx, n, fmt.Sprintf("%s-%d-%d", name, round, i))
				})
			}
		}
		require.NoError(t, n.srv.Publish(t.Context(), "news", "x", strings.Repeat("x", 1000)))
		visiting.Wait()
	}
	var s pushy.Stats
	require.Eventually(t, func() bool {
		s = n.srv.Stats()
		ended, hooks := uint64(0), uint64(0)
		for _, k := range s.Closed {
			ended += k
		}
		opened.Range(func(id, _ any) bool {
			if _, is := closed.Load(id); is {
				hooks++
			}
			return true
		})
		return s.Connections == 0 && s.Channels == 0 && s.Listeners == 0 && s.Buffered == 0 && s.Memory.Reading == 0 &&
			ended == s.Opened && hooks == s.Opened
	}, patience, 10*time.Millisecond, "%+v", &s)
	assert.Zero(t, s.Joins["unavailable"])
	assert.Zero(t, s.Joins["other"])
	n.dial().join("news") // it still serves
}

// full opens one connection of each protocol, which fill a limit.
func (n *node) full() (leave func()) {
	n.t.Helper()
	socket := n.open("/pushy/socket/websocket")
	socket.next()
	n.dial()
	r, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, "http://pushy.test/pushy/events?channel=news", nil)
	require.NoError(n.t, err)
	res, err := n.http.Do(r)
	require.NoError(n.t, err)
	require.Equal(n.t, http.StatusOK, res.StatusCode)
	c, err := subscriber.Dial(n.t.Context(), "ws://pushy.test/pushy", subscriber.Options{NetDial: n.pipes.Dial})
	require.NoError(n.t, err)
	n.t.Cleanup(c.Close)
	return func() { require.NoError(n.t, res.Body.Close()) }
}

// refusals tries to connect with each protocol, and returns how each is refused.
func (n *node) refusals(header ...string) map[string]string {
	n.t.Helper()
	status := func(method, path string, more ...string) string {
		r := newRequest(n.t, method, path, nil, append(more, header...)...)
		ctx, cancel := context.WithTimeout(n.t.Context(), patience)
		defer cancel()
		res, err := n.http.Do(r.WithContext(ctx))
		require.NoError(n.t, err)
		body, _ := io.ReadAll(res.Body) // a busy answer is aborted
		require.NoError(n.t, res.Body.Close())
		event, _, _ := strings.Cut(string(body), "\n")
		if res.StatusCode == http.StatusOK {
			return event
		}
		return strconv.Itoa(res.StatusCode)
	}
	code, _ := n.open("/app/"+appKey, header...).closed()
	head := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		head.Set(header[i], header[i+1])
	}
	dialling := subscriber.Options{
		NetDial: n.pipes.Dial,
		Header:  head,
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 200*time.Millisecond) // of the bubble
	defer cancel()
	_, err := subscriber.Dial(ctx, "ws://pushy.test/pushy", dialling)
	require.Error(n.t, err)
	var answer *subscriber.CloseError
	goClient := "tries again"
	if errors.As(err, &answer) && ctx.Err() == nil {
		goClient = strconv.Itoa(answer.Status)
	}
	upgrade := []string{
		"Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", "13",
		"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==",
	}
	return map[string]string{
		"WebSocket":  status(http.MethodGet, "/pushy/socket/websocket", upgrade...),
		"SockJS":     status(http.MethodPost, "/pushy/socket/000/refused/xhr"),
		"SSE":        status(http.MethodGet, "/pushy/events?channel=news", "Accept", "text/event-stream"),
		"SSE status": status(http.MethodGet, "/pushy/events?channel=news"),
		"Pusher":     strconv.Itoa(code),
		"Go client":  goClient,
	}
}

// Limits count the connections of all protocols together, and the rules of the host are the same for all.
func TestAllProtocolsHaveTheSameLimits(t *testing.T) {
	t.Parallel()
	later := map[string]string{
		"WebSocket":  "503",
		"SockJS":     "503",
		"SSE":        "event: pushy:busy",
		"SSE status": "503",
		"Pusher":     "4100",
		"Go client":  "tries again",
	}
	never := map[string]string{
		"WebSocket":  "403",
		"SockJS":     "403",
		"SSE":        "403",
		"SSE status": "403",
		"Pusher":     "4009",
		"Go client":  "403",
	}
	tooOften := maps.Clone(later)
	for _, kind := range []string{"WebSocket", "SockJS", "SSE status"} {
		tooOften[kind] = "429"
	}
	for name, c := range map[string]struct {
		options pushy.Options
		header  []string
		fill    bool
		want    map[string]string
		reason  string // in Stats.Refused
	}{
		"connections": {
			options: pushy.Options{Limits: pushy.Limits{Connections: 4}},
			fill:    true,
			want:    later,
			reason:  "connections",
		},
		"address": {
			options: pushy.Options{
				Limits:  pushy.Limits{PerAddress: 4},
				Address: func(*http.Request) string { return "192.0.2.1" },
			},
			fill:   true,
			want:   later,
			reason: "address",
		},
		"rate of an address": {
			options: pushy.Options{
				Limits:  pushy.Limits{ConnectRate: 1, ConnectBurst: 4},
				Address: func(*http.Request) string { return "192.0.2.1" },
			},
			fill:   true,
			want:   tooOften,
			reason: "connectRate",
		},
		"origin": {
			header: []string{"Origin", "https://other.example"},
			want:   never,
			reason: "origin",
		},
		"accept": {
			options: pushy.Options{Accept: func(*http.Request) (any, error) { return nil, pushy.ErrDenied }},
			want:    never,
			reason:  "accept",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := serve(t, c.options)
				if c.fill {
					leave := n.full()
					assert.Equal(t, 4, n.srv.Stats().Connections)
					defer func() {
						leave()
						time.Sleep(time.Minute)
						n.dial() // in place of the stream
					}()
				}
				assert.Equal(t, c.want, n.refusals(c.header...))
				refused := n.srv.Stats().Refused
				assert.GreaterOrEqual(t, refused[c.reason], uint64(len(c.want)))
				for reason, k := range refused {
					assert.True(t, k == 0 || reason == c.reason, "%d %s", k, reason)
				}
			})
		})
	}
}
