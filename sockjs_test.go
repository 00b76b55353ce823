package pushy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopushy/pushy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sockjsDoors are the doors of SockJS over HTTP.
var sockjsDoors = []struct{ method, path string }{
	{"GET", "/info"}, {"POST", "/0/s/xhr"}, {"POST", "/0/s/xhr_streaming"}, {"GET", "/0/s/eventsource"},
	{"GET", "/0/s/htmlfile?c=x"}, {"GET", "/0/s/jsonp?c=x"}, {"POST", "/0/s/xhr_send"}, {"POST", "/0/s/jsonp_send"},
	{"OPTIONS", "/0/s/xhr"}, {"GET", "/0/s/websocket"}, {"GET", "/iframe.html"},
}

// knock makes a request at a door and returns the answer's head.
func knock(t *testing.T, baseURL, method, path string, header ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientPatience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, baseURL+"/pushy/socket"+path, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// sockjs.md rows 18, 19 and 21: a page of an origin that is not allowed gets in
// at no door, and no session is opened for it.
func TestRow19OriginsAtEveryDoor(t *testing.T) {
	t.Parallel()
	srv, baseURL := serve(t, pushy.Options{
		Origins: []string{"https://friend.example"}, SockJS: pushy.SockJS{Legacy: true, ScriptURL: "/s.js"},
	})
	refused := uint64(0)
	for _, header := range [][]string{
		{"Origin", "http://evil.example"}, {"Origin", "null"}, {"Origin", "http://friend.example"},
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
	} {
		for _, door := range sockjsDoors {
			res := knock(t, baseURL, door.method, door.path, header...)
			assert.Equal(t, 403, res.StatusCode, "%s %s", door, header)
			assert.Equal(t, "Origin", res.Header.Get("Vary"))
			assert.Empty(t, res.Header.Get("Access-Control-Allow-Origin"))
			refused++
			assert.Equal(t, refused, srv.Stats().Refused["origin"])
		}
	}
	assert.Zero(t, srv.Stats().Connections)
	for _, door := range sockjsDoors {
		res := knock(t, baseURL, door.method, door.path, "Origin", "https://friend.example")
		assert.NotEqual(t, 403, res.StatusCode, door)
		assert.Equal(t, "Origin", res.Header.Get("Vary"))
		assert.Equal(t, "https://friend.example", res.Header.Get("Access-Control-Allow-Origin"))
		assert.Equal(t, "true", res.Header.Get("Access-Control-Allow-Credentials"))
	}
}

// sockjs.md row 22: sessions beyond the cap are refused on every transport, and
// counted; those that are there go on.
func TestRow22ConnectionsAreCapped(t *testing.T) {
	t.Parallel()
	srv, baseURL := serve(t, pushy.Options{Limits: pushy.Limits{Connections: 1}, SockJS: pushy.SockJS{Legacy: true}})
	keeper := dial(t, baseURL, true)
	refused := uint64(0)
	for range 100 {
		for _, door := range sockjsDoors[1:6] {
			res := knock(t, baseURL, door.method, door.path)
			require.Equal(t, 503, res.StatusCode, door)
			require.Equal(t, "5", res.Header.Get("Retry-After"))
			_, err := io.Copy(io.Discard, res.Body) // so that one connection is enough
			require.NoError(t, err)
			refused++
		}
	}
	_, err := upgrade(t, baseURL, true)
	require.Error(t, err)
	assert.Equal(t, refused+1, srv.Stats().Refused["connections"])
	assert.Equal(t, 1, srv.Stats().Connections)
	keeper.Send(`{"command":"SUBSCRIBE","data":{"channel":"a"}}`)
	assert.Contains(t, keeper.Receive(), "pushy:subscription-success")
}

// sockjs.md row 22: however many sessions a client opens over one connection,
// there are as many as may be, and those that are there go on.
func TestRow22FloodOverOneConnection(t *testing.T) {
	t.Parallel()
	const limit, asked = 1000, 20_000
	srv, baseURL := serve(t, pushy.Options{
		Limits: pushy.Limits{Connections: limit}, SockJS: pushy.SockJS{DisconnectDelay: time.Hour},
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(baseURL, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	go func() {
		w := bufio.NewWriter(conn)
		for i := range asked {
			_, _ = fmt.Fprintf(w, "POST /pushy/socket/0/flood%d/xhr HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", i)
		}
		_ = w.Flush()
	}()
	got := map[int]int{}
	for r := bufio.NewReader(conn); got[200]+got[503] < asked; {
		res, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		got[res.StatusCode]++
	}
	assert.Equal(t, map[int]int{200: limit, 503: asked - limit}, got)
	assert.Equal(t, limit, srv.Stats().Connections)
	assert.Equal(t, uint64(asked-limit), srv.Stats().Refused["connections"])
	first, err := io.ReadAll(knock(t, baseURL, "POST", "/0/flood0/xhr").Body)
	require.NoError(t, err)
	assert.Contains(t, string(first), "pushy:connect")
}

// One address cannot take all places, if the host says so; others get theirs,
// and a place that is left is free.
func TestRow22PerAddress(t *testing.T) {
	t.Parallel()
	srv, err := pushy.New(pushy.Options{
		SecretKey: "a secret of sixteen bytes", Limits: pushy.Limits{PerAddress: 2}, SockJS: pushy.SockJS{DisconnectDelay: time.Hour},
	})
	require.NoError(t, err)
	var from atomic.Value
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = from.Load().(string)
		srv.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	t.Cleanup(func() { _ = srv.Close() })
	opens := func(addr, id string) int {
		from.Store(addr)
		return knock(t, web.URL, "POST", "/0/"+id+"/xhr").StatusCode
	}
	assert.Equal(t, 200, opens("[2001:db8::1]:1", "a"))
	assert.Equal(t, 200, opens("[2001:db8::2]:2", "b"))
	assert.Equal(t, 503, opens("[2001:db8::3]:3", "c"))
	_, err = upgrade(t, web.URL, true)
	assert.Error(t, err)
	assert.Equal(t, 200, opens("192.0.2.1:1", "c"))
	assert.Equal(t, uint64(2), srv.Stats().Refused["address"])
	from.Store("[2001:db8::1]:1")
	var hello struct{ Data struct{ SocketID string } }
	text, err := io.ReadAll(knock(t, web.URL, "POST", "/0/a/xhr").Body)
	require.NoError(t, err)
	var messages []string
	require.NoError(t, json.Unmarshal(text[1:], &messages))
	require.NoError(t, json.Unmarshal([]byte(messages[0]), &hello))
	conn, ok := srv.Conn(hello.Data.SocketID)
	require.True(t, ok)
	require.NoError(t, conn.Close(3500, "enough"))
	_, err = io.ReadAll(knock(t, web.URL, "POST", "/0/a/xhr").Body)
	require.NoError(t, err)
	<-conn.Context().Done()
	require.Eventually(t, func() bool { return srv.Stats().Connections == 2 }, clientPatience, time.Millisecond)
	assert.Equal(t, 200, opens("[2001:db8::3]:3", "d"))
}

// Bodies that are too large or do not come are counted, with the reason.
func TestRow22BodiesAreCounted(t *testing.T) {
	t.Parallel()
	srv, baseURL := serve(t, pushy.Options{BodyTimeout: 50 * time.Millisecond, Limits: pushy.Limits{MessageBytes: 10}})
	for reason, head := range map[string]string{
		"slow body":  "Content-Length: 10\r\n\r\n[",
		"large body": "Content-Length: 11\r\n\r\n",
		"":           "Content-Length: 10\r\n\r\n", // and goes
	} {
		before := srv.Stats().Refused[reason]
		conn, err := net.Dial("tcp", strings.TrimPrefix(baseURL, "http://"))
		require.NoError(t, err)
		_, err = io.WriteString(conn, "POST /pushy/socket/0/s/xhr HTTP/1.1\r\nHost: x\r\n"+head)
		require.NoError(t, err)
		if reason == "" {
			_ = conn.Close()
			continue
		}
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(clientPatience)))
		_, err = http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		assert.Equal(t, before+1, srv.Stats().Refused[reason], reason)
		_ = conn.Close()
	}
	assert.Zero(t, srv.Stats().Connections)

	// Nor does one that is refused unread hold its connection.
	for _, ask := range []string{"/0/s/xhr HTTP/1.1\r\nOrigin: http://evil.example", "/0/unknown/xhr_send HTTP/1.1"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(baseURL, "http://"))
		require.NoError(t, err)
		_, err = io.WriteString(conn, "POST /pushy/socket"+ask+"\r\nHost: x\r\nContent-Length: 10\r\n\r\n[")
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(clientPatience)))
		_, err = io.ReadAll(conn)
		assert.NoError(t, err, ask)
		_ = conn.Close()
	}
}

// sockjs.md row 15: who a client is was decided by the request that opened the
// session; later ones prove nothing. Row 31: all are told of a shutdown.
func TestRow15AcceptDecidesOnce(t *testing.T) {
	t.Parallel()
	users := make(chan any, 10)
	srv, baseURL := serve(t, pushy.Options{
		Accept: func(r *http.Request) (any, error) { return r.Header.Get("X-User"), nil },
		Hooks:  pushy.Hooks{Connect: func(c *pushy.Conn) { users <- c.User() }},
	})
	read := func(res *http.Response) string {
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return string(text)
	}
	assert.Equal(t, "o\n", read(knock(t, baseURL, "POST", "/0/id/xhr", "X-User", "ann")))
	assert.True(t, strings.HasPrefix(read(knock(t, baseURL, "POST", "/0/id/xhr", "X-User", "mallory")), `a["`))
	assert.Equal(t, "ann", <-users)
	assert.Equal(t, 1, srv.Stats().Connections)
	down := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		down <- srv.Shutdown(ctx)
	}()
	assert.Equal(t, `c[3001,"server shutting down"]`+"\n", read(knock(t, baseURL, "POST", "/0/id/xhr")))
	assert.NoError(t, <-down)
	assert.Empty(t, users)
	assert.Equal(t, 503, knock(t, baseURL, "POST", "/0/new/xhr").StatusCode)
}

// What a chat user writes reaches every transport as it was written: on
// eventsource, whose clients apply unescape or decodeURI to each frame, without
// a %, or it could forge messages of the server. Issue 11, number 1.
func TestPercentIsDeliveredAsWritten(t *testing.T) {
	t.Parallel()
	srv, baseURL := serve(t, pushy.Options{SockJS: pushy.SockJS{Legacy: true}, Heartbeat: -1})
	srv.RegisterCommand("echo", func(_ *pushy.Server, conn *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
		_ = conn.Reply("echoed", data)
	})
	srv.RegisterCommand("leave", func(_ *pushy.Server, conn *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) {
		_ = conn.Close(3500, `100% %41 %5C%22`)
	})
	const forged = `%41 100% %u0041 %5C%22}}%22,%22{%5C%22event%5C%22:%5C%22forged%5C%22}`
	want := `{"event":"echoed","data":{"text":"` + forged + `"}}`
	for _, framed := range []bool{true, false} {
		c := dial(t, baseURL, framed)
		c.Send(`{"command":"echo","data":{"text":"` + forged + `"}}`)
		assert.Equal(t, want, c.Receive(), "framed: %t", framed)
	}
	for _, path := range []string{"xhr", "xhr_streaming", "eventsource", "htmlfile?c=cb", "jsonp?c=cb"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			p := &sockjsPlay{play: &play{t: t, baseURL: baseURL}, session: "percent-" + strings.TrimSuffix(path, "?c=cb")}
			p.session = strings.ReplaceAll(p.session, "_", "-")
			method := http.MethodPost
			if path != "xhr" && path != "xhr_streaming" {
				method = http.MethodGet
			}
			var all []string // the frames that came, as they came
			var res asked
			next := func(what string) {
				t.Helper()
				for {
					if res.body == nil {
						res = p.ask(request{Method: method, Path: p.path(path)})
						require.Equal(t, 200, res.status)
					}
					line, err := res.body.ReadString('\n')
					if err != nil {
						res = asked{} // a poll has ended
					}
					all = append(all, line)
					if strings.Contains(line, what) {
						return
					}
				}
			}
			next("pushy:connect")
			body, err := json.Marshal([]string{`{"command":"echo","data":{"text":"` + forged + `"}}`, `{"command":"leave"}`})
			require.NoError(t, err)
			text := string(body)
			require.Equal(t, 204, p.ask(request{Method: "POST", Path: p.path("xhr_send"), Body: &text}).status)
			next("c[3500")
			if path == "eventsource" {
				assert.NotContains(t, strings.Join(all, ""), "%")
			}
			quoted, err := json.Marshal(want)
			require.NoError(t, err)
			unescaped := strings.ReplaceAll(strings.Join(all, ""), `\u0025`, "%")
			if strings.Contains(path, "?") { // a string in a script once more
				quoted, err = json.Marshal(string(quoted))
				require.NoError(t, err)
				quoted = quoted[1 : len(quoted)-1]
			}
			assert.Contains(t, unescaped, string(quoted))
			assert.Contains(t, unescaped, `100% %41 %5C%22`)
		})
	}
}

// A client over HTTP receives its id only when the Connect hook has returned, as
// one over a WebSocket does. Issue 11, number 19.
func TestConnectHookComesBeforeTheID(t *testing.T) {
	t.Parallel()
	for _, door := range sockjsDoors[1:6] {
		t.Run(door.path, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var returned atomic.Bool
				srv := startServer(t, pushy.Options{
					SockJS: pushy.SockJS{Legacy: true}, Heartbeat: -1,
					Hooks: pushy.Hooks{Connect: func(c *pushy.Conn) {
						_ = c.Send("from the hook", nil)
						time.Sleep(time.Second)
						returned.Store(true)
					}},
				})
				listener := &memoryConns{conns: make(chan net.Conn), closed: make(chan struct{})}
				web := &http.Server{Handler: srv}
				go func() { _ = web.Serve(listener) }()
				transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
					server, conn := net.Pipe()
					listener.conns <- server
					return conn, nil
				}}
				defer func() {
					_ = srv.Close()
					_ = web.Close()
					transport.CloseIdleConnections()
				}()
				for all := ""; !strings.Contains(all, "pushy:connect"); { // one request after the other
					r, err := http.NewRequestWithContext(t.Context(), door.method, "http://site/pushy/socket"+door.path, nil)
					require.NoError(t, err)
					res, err := transport.RoundTrip(r)
					require.NoError(t, err)
					in := bufio.NewReader(res.Body)
					for {
						line, err := in.ReadString('\n')
						all += line
						if strings.Contains(line, "pushy:connect") || strings.Contains(line, "from the hook") {
							assert.True(t, returned.Load(), "before the hook has returned: %s", line)
							break
						}
						if err != nil {
							break
						}
					}
					_ = res.Body.Close()
				}
			})
		})
	}
}
