package pushy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// Issue 11, number 16: what the browser client makes of the URL of a prefix or
// of a socket is served, whatever they are.
func TestPrefixesWithTheBrowserClient(t *testing.T) {
	t.Parallel()
	// As client/src/address.js does.
	address := func(url string) string {
		if !strings.HasSuffix(url, "/socket") {
			url += "/socket"
		}
		return url
	}
	for _, c := range []struct{ name, prefix, sockjs, url string }{
		{"default", "", "", "/pushy"},
		{"defaultSocket", "", "", "/pushy/socket"},
		{"socket", "/socket", "", "/socket"},
		{"socketSlash", "/socket/", "", "/socket"},
		{"socketSocket", "/socket", "", "/socket/socket"},
		{"appSocket", "/app/socket", "", "/app/socket"},
		{"websocket", "/websocket", "", "/websocket"},
		{"root", "/", "", "/socket"},
		{"otherSockJS", "", "/ws", "/ws"},
		{"otherSockJSInside", "/rt", "/rt/ws", "/rt/ws"},
		{"otherSockJSSocket", "/rt", "/x/socket", "/x/socket"},
		{"sockJSIsThePrefix", "/rt", "/rt", "/rt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv, baseURL := serve(t, pushy.Options{Prefix: c.prefix, SockJS: pushy.SockJS{Prefix: c.sockjs}})
			at := address(c.url)
			dial(t, baseURL, false, withPath(at+"/websocket"))
			dial(t, baseURL, true, withPath(at+"/c/session1/websocket"))
			for _, path := range []string{"/info", ""} {
				assert.Equal(t, 200, ask(srv, "GET", at+path).StatusCode, path)
			}
			res, err := http.Post(baseURL+at+"/c/session2/xhr", "", nil)
			require.NoError(t, err)
			text, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			assert.Equal(t, "o\n", string(text))
			assert.Equal(t, 404, ask(srv, "GET", at+"/c/session2/nothing").StatusCode)
			// Nothing else is hidden by it.
			prefix := strings.TrimSuffix(c.prefix, "/")
			if c.prefix == "" {
				prefix = "/pushy"
			}
			assert.Equal(t, 200, ask(srv, "GET", prefix+"/pushy.js").StatusCode)
			assert.Equal(t, 400, ask(srv, "POST", prefix+"/channel/x/trigger").StatusCode)
		})
	}
}

// Issue 11, number 16: whatever the prefixes are, and the server and session ids of
// SockJS's URLs, each of its endpoints is found under every URL that a client makes
// of them, and nothing else is hidden.
func TestEveryPrefixServesEveryEndpoint(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{
		"", "/", "/rt", "/rt/", "/socket", "/socket/", "/app/socket", "/socket/socket", "/socket/socket/socket",
		"/websocket", "/info", "/channel", "/app/xhr",
	} {
		own := strings.TrimSuffix(prefix, "/")
		if prefix == "" {
			own = "/pushy"
		}
		for _, sockjs := range []string{
			"", "/", "/ws", "/socket", "/x/socket", "/socket/ws", own + "/", own + "/ws", own + "/socket", own + "/socket/ws", own + "/socket/socket",
		} {
			t.Run(prefix+" "+sockjs, func(t *testing.T) {
				t.Parallel()
				srv := startServer(t, pushy.Options{
					Prefix: prefix,
					SockJS: pushy.SockJS{
						Prefix:          sockjs,
						Legacy:          true,
						ScriptURL:       "/s.js",
						DisconnectDelay: time.Hour,
					},
				})
				base := strings.TrimSuffix(sockjs, "/")
				url := base // what the client is given
				if sockjs == "" {
					base, url = own+"/socket", own
				}
				fromClient := strings.TrimSuffix(url, "/socket") + "/socket"
				testEndpoints(t, srv, base)
				if fromClient != base {
					testEndpoints(t, srv, fromClient)
				}
				triggerAt := own + "/channel/%s/trigger"
				assert.Equal(t, 400, ask(srv, "POST", fmt.Sprintf(triggerAt, "x")).StatusCode)
				assert.Equal(t, 200, ask(srv, "GET", own+"/pushy.js").StatusCode)
				w := ask(srv, "POST", fmt.Sprintf(triggerAt, "x/y"))
				assert.Equal(t, 404, w.StatusCode)
				_, message := httpError(t, w)
				assert.Contains(t, message, "%2F")
			})
		}
	}
}

// testEndpoints asks every endpoint under a URL for SockJS.
func testEndpoints(t *testing.T, srv *pushy.Server, at string) {
	t.Helper()
	status := func(method, path string) int {
		target := at + path
		if target == "" {
			target = "/"
		}
		return ask(srv, method, target).StatusCode
	}
	for _, path := range []string{"", "/"} {
		assert.Equal(t, 200, status("GET", path), "%s%s", at, path)
	}
	for _, path := range []string{"/info", "/iframe.html", "/iframe-1.2.3.html"} {
		assert.Equal(t, 204, status("OPTIONS", path), "%s%s", at, path)
	}
	assert.Equal(t, 400, status("GET", "/websocket"), at)
	ids := []string{"0", "socket", "channel", "info", "websocket", "pushy", "ws"}
	for _, server := range ids {
		for _, id := range ids {
			session := "/" + server + "/" + id
			for _, transport := range []string{
				"xhr", "xhr_send", "xhr_streaming", "eventsource", "htmlfile", "jsonp", "jsonp_send",
			} {
				assert.Equal(t, 204, status("OPTIONS", session+"/"+transport), "%s%s/%s", at, session, transport)
			}
			assert.Equal(t, 400, status("GET", session+"/websocket"), "%s%s", at, session)
			assert.Equal(t, 404, status("GET", session+"/nothing"), "%s%s", at, session)
		}
	}
	// A session is one, whichever server its URL names, and has messages both ways.
	id := strings.ReplaceAll(at, "/", "_") + "_"
	w := ask(allAbilities(srv), "POST", at+"/socket/"+id+"/xhr")
	text, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	assert.Equal(t, "o\n", string(text))
	r := httptest.NewRequest("POST", at+"/socket/"+id+"/xhr_send", strings.NewReader(`["{}"]`))
	rec := httptest.NewRecorder()
	allAbilities(srv).ServeHTTP(rec, r)
	assert.Equal(t, 204, rec.Code)
}

// Issue 11, number 16: a body that comes slowly is bounded wherever it is sent,
// also where nobody reads it.
func TestSlowBodiesAreBoundedEverywhere(t *testing.T) {
	t.Parallel()
	srv, err := pushy.New(pushy.Options{
		SecretKey:   peerKey,
		BodyTimeout: 100 * time.Millisecond,
		Logger:      testLogger(t),
		SockJS:      pushy.SockJS{Legacy: true, ScriptURL: "/s.js"},
	})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/auth", srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil }))
	mux.Handle("/", srv)
	baseURL := serveHandler(t, srv, mux)
	for _, line := range []string{
		"GET /pushy/pushy.js", "POST /pushy/pushy.js", "HEAD /pushy/pushy.mjs", "GET /pushy/pushy.mjs",
		"GET /pushy/pushy.d.ts", "GET /", "POST /elsewhere", "POST /pushy/nothing", "PUT /pushy/channel/a/b/trigger",
		"GET /pushy/socket", "GET /pushy/socket/info", "OPTIONS /pushy/socket/info", "POST /pushy/socket/nothing",
		"POST /pushy/socket/0/s/nothing", "GET /pushy/socket/iframe.html", "GET /pushy/socket/websocket",
		"POST /pushy/socket/0/s/xhr", "POST /pushy/socket/0/unknown/xhr_send", "GET /pushy/socket/0/s/eventsource",
		"POST /pushy/channel/x/trigger?event=e", "GET /pushy/channel/x/trigger", "POST /auth", "GET /auth", "OPTIONS /auth",
	} {
		for _, body := range []string{
			"Content-Length: 10\r\n\r\n[", "Transfer-Encoding: chunked\r\n\r\n5\r\n[",
			"Origin: https://evil.example\r\nContent-Length: 300000\r\n\r\n[",
		} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(baseURL, "http://"))
			require.NoError(t, err)
			_, err = io.WriteString(conn, line+" HTTP/1.1\r\nHost: x\r\n"+body)
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(clientPatience)))
			_, err = io.ReadAll(conn) // until the server has closed it
			assert.NoError(t, err, "%s %q", line, body)
			_ = conn.Close()
		}
	}
}

// Issue 11, number 16: pages that isolate themselves may load the client, and
// no answer is taken for another type than it says.
func TestHeadersOfAnswers(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{SockJS: pushy.SockJS{Legacy: true, ScriptURL: "/s.js"}})
	auth := srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil })
	for _, file := range []string{"pushy.js", "more.js", "pushy.mjs", "pushy.d.ts"} {
		for _, method := range []string{"GET", "HEAD"} {
			w := ask(srv, method, "/pushy/"+file, "Origin", "https://elsewhere.example")
			assert.Equal(t, 200, w.StatusCode)
			assert.Equal(t, "cross-origin", w.Header.Get("Cross-Origin-Resource-Policy"))
			assert.Equal(t, "*", w.Header.Get("Access-Control-Allow-Origin"))
		}
	}
	for _, c := range []struct {
		h      http.Handler
		method string
		target string
	}{
		{srv, "GET", "/pushy/pushy.js"}, {srv, "POST", "/pushy/pushy.js"}, {srv, "GET", "/pushy/"}, {srv, "GET", "/"},
		{srv, "GET", "/pushy/socket"}, {srv, "GET", "/pushy/socket/info"}, {srv, "OPTIONS", "/pushy/socket/info"},
		{srv, "POST", "/pushy/socket/info"}, {srv, "GET", "/pushy/socket/iframe.html"},
		{srv, "GET", "/pushy/socket/0/s/websocket"}, {srv, "POST", "/pushy/socket/0/s/xhr_send"},
		{srv, "POST", "/pushy/channel/x/trigger"}, {srv, "GET", "/pushy/channel/x/trigger"},
		{srv, "POST", "/pushy/channel/x/y/trigger"},
		{auth, "POST", "/auth"}, {auth, "GET", "/auth"}, {auth, "OPTIONS", "/auth"},
		{allAbilities(srv), "POST", "/pushy/socket/0/s/xhr"}, {allAbilities(srv), "GET", "/pushy/socket/0/t/jsonp?c=x"},
	} {
		w := ask(c.h, c.method, c.target)
		assert.Equal(t, "nosniff", w.Header.Get("X-Content-Type-Options"), "%s %s", c.method, c.target)
	}
}

// Issue 11, number 16: a deadline of the request's context, as chi's Timeout
// sets it, ends a response and not its session.
func TestContextDeadlinesDoNotEndSessions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ method, transport string }{
		{"POST", "xhr"}, {"POST", "xhr_streaming"}, {"GET", "eventsource"}, {"GET", "jsonp?c=x"}, {"GET", "htmlfile?c=x"},
	} {
		t.Run(c.transport, func(t *testing.T) {
			t.Parallel()
			log, lines := logged()
			ended := make(chan int, 1)
			srv, err := pushy.New(pushy.Options{
				SecretKey: peerKey,
				Logger:    log,
				SockJS:    pushy.SockJS{Legacy: true},
				Hooks:     pushy.Hooks{Disconnect: func(_ *pushy.Conn, code int, _ string) { ended <- code }},
			})
			require.NoError(t, err)
			baseURL := serveHandler(t, srv, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithTimeout(r.Context(), 300*time.Millisecond)
				defer cancel()
				srv.ServeHTTP(w, r.WithContext(ctx))
			}))
			got := ""
			next := func() {
				r, err := http.NewRequestWithContext(t.Context(), c.method, baseURL+"/pushy/socket/0/session/"+c.transport, nil)
				require.NoError(t, err)
				res, err := http.DefaultClient.Do(r)
				require.NoError(t, err)
				text, err := io.ReadAll(res.Body)
				require.NoError(t, err, "the response ends as it should")
				require.NoError(t, res.Body.Close())
				require.Equal(t, 200, res.StatusCode)
				require.NotEmpty(t, text)
				got += string(text)
			}
			for range 5 {
				next()
			}
			assert.Contains(t, got, "pushy:connect")
			assert.Equal(t, 1, strings.Count(got, "pushy:connect"), "one session")
			var conn *pushy.Conn
			id := got[strings.Index(got, `socketId`):]
			id = id[strings.IndexAny(id, "0123456789abcdef"):]
			id = strings.TrimLeft(id[strings.IndexByte(id, ':')+1:], `\":`)
			id = id[:36]
			conn, ok := srv.Conn(id)
			require.True(t, ok, id)
			require.NoError(t, conn.Send("late", 7))
			got = ""
			next()
			assert.Contains(t, got, "late")
			select {
			case code := <-ended:
				assert.Fail(t, "ended", "%d", code)
			default:
			}
			require.Len(t, lines(), 1, "once")
			assert.Contains(t, lines()[0], "deadline")
		})
	}
}

// hiding is middleware's ResponseWriter without Unwrap.
type hiding struct {
	http.ResponseWriter
	http.Flusher
	http.Hijacker
}

// showing is one with Unwrap.
type showing struct{ http.ResponseWriter }

func (s showing) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Issue 11, number 17: middleware that only the HTTP transports fail on is in
// the log at the first WebSocket, with the type of its writer, once.
func TestMiddlewareWithoutUnwrapIsLogged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		wrap  func(http.Handler) http.Handler
		works bool
		says  []string // nil for no line
	}{
		{"none", func(h http.Handler) http.Handler { return h }, true, nil},
		{"unwrap", func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(showing{showing{w}}, r) })
		}, true, nil},
		{"gzipLike", func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(showing{hiding{w, w.(http.Flusher), w.(http.Hijacker)}}, r)
			})
		}, true, []string{
			"pushy_test.hiding", "SetReadDeadline SetWriteDeadline", "Unwrap() http.ResponseWriter",
			"cannot use WebSockets will fail",
		}},
		{"TimeoutHandler", func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }, false,
			[]string{"http.timeoutWriter", "Hijack Flush SetReadDeadline SetWriteDeadline", "http.TimeoutHandler"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log, lines := logged()
			srv, err := pushy.New(pushy.Options{SecretKey: peerKey, Logger: log})
			require.NoError(t, err)
			baseURL := serveHandler(t, srv, c.wrap(srv))
			for range 3 {
				if c.works {
					dial(t, baseURL, true)
					continue
				}
				_, err := upgrade(t, baseURL, true)
				require.ErrorContains(t, err, "500")
			}
			res := knock(t, baseURL, "POST", "/0/s/xhr")
			if c.says == nil {
				assert.Equal(t, 200, res.StatusCode)
				assert.Empty(t, lines())
				return
			}
			assert.Equal(t, 500, res.StatusCode)
			_, message := httpError(t, res)
			assert.Contains(t, message, "middleware")
			require.Len(t, lines(), 1)
			assert.Contains(t, lines()[0], "level=WARN")
			for _, part := range c.says {
				assert.Contains(t, lines()[0], part)
			}
		})
	}
}

// Issue 11, number 18: Options.Address names who Limits.PerAddress counts.
func TestAddressIsCounted(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	srv := startServer(t, pushy.Options{
		Logger: log,
		Limits: pushy.Limits{PerAddress: 1},
		SockJS: pushy.SockJS{DisconnectDelay: time.Hour},
		Address: func(r *http.Request) string {
			if r.Header.Get("X-Real-IP") == "panic" {
				panic("boom")
			}
			return r.Header.Get("X-Real-IP")
		},
	})
	sessions := 0
	opens := func(address, remote string) int {
		sessions++
		r := httptest.NewRequest("POST", "/pushy/socket/0/s"+strings.Repeat("x", sessions)+"/xhr", nil)
		r.Header.Set("X-Real-IP", address)
		r.RemoteAddr = remote
		w := httptest.NewRecorder()
		srv.ServeHTTP(able{w}, r)
		return w.Code
	}
	const proxy = "10.0.0.1:1234"
	assert.Equal(t, 200, opens("192.0.2.1", proxy))
	assert.Equal(t, 503, opens("192.0.2.1", proxy))
	assert.Equal(t, 503, opens(" 192.0.2.1:99 ", proxy))
	assert.Equal(t, 503, opens("::ffff:192.0.2.1", proxy))
	assert.Equal(t, 200, opens("192.0.2.2", proxy))
	assert.Equal(t, 200, opens("2001:db8::1", proxy))
	assert.Equal(t, 503, opens("[2001:db8::2]:443", proxy))
	for _, line := range lines() {
		assert.Contains(t, line, "PerAddress")
	}

	// What is no address counts as the proxy, and gets nobody around the limit.
	before := len(lines())
	assert.Equal(t, 200, opens("unknown", proxy))
	assert.Equal(t, 503, opens("", proxy))
	assert.Equal(t, 503, opens("panic", proxy))
	assert.Equal(t, 503, opens("192.0.2.9, 192.0.2.8", proxy))
	assert.Equal(t, 200, opens("a\nb", "@"))
	assert.Equal(t, 503, opens("c", ""))
	assert.Equal(t, 503, opens("panic", "@"))
	after := strings.Join(lines()[before:], "\n")
	assert.Equal(t, 1, strings.Count(after, "Options.Address returned what is no IP address"))
	assert.Equal(t, 1, strings.Count(after, "Options.Address panicked"))
}

// Issue 11, number 18: behind a Unix socket nobody is counted, which is logged
// once.
func TestUnixSocketsAreNotCounted(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	srv, err := pushy.New(pushy.Options{
		SecretKey: peerKey,
		Logger:    log,
		Limits:    pushy.Limits{PerAddress: 1, ConnectRate: 1, ConnectBurst: 1},
	})
	require.NoError(t, err)
	listener, err := net.Listen("unix", t.TempDir()+"/s")
	require.NoError(t, err)
	web := &http.Server{Handler: srv}
	go func() { _ = web.Serve(listener) }()
	t.Cleanup(func() {
		_ = srv.Close()
		_ = web.Close()
	})
	for _, id := range []string{"a", "b", "c"} {
		conn, err := net.Dial("unix", listener.Addr().String())
		require.NoError(t, err)
		_, err = io.WriteString(conn, "POST /pushy/socket/0/"+id+"/xhr HTTP/1.1\r\n"+
			"Host: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		assert.Equal(t, 200, res.StatusCode)
		_ = conn.Close()
	}
	require.Len(t, lines(), 1)
	assert.Contains(t, lines()[0], "limits of one address have no effect")
	assert.Contains(t, lines()[0], `limits="Limits.PerAddress, Limits.ConnectRate"`)
	assert.Contains(t, lines()[0], "Options.Address")
}

// Issue 11, number 16: a prefix that no request can have is refused, since clients
// resolve dot segments before they send a path.
func TestPrefixesThatNoRequestHas(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"/a/../b", "/./a", "/a/.", "/..", "/a//b", "//", "/a//", "a", "/a b"} {
		_, err := pushy.New(pushy.Options{SecretKey: peerKey, Prefix: prefix})
		assert.ErrorContains(t, err, "pushy: Options.Prefix must be a plain path", prefix)
		_, err = pushy.New(pushy.Options{SecretKey: peerKey, SockJS: pushy.SockJS{Prefix: prefix}})
		assert.ErrorContains(t, err, "pushy: Options.SockJS.Prefix must be a plain path", prefix)
	}
	for _, prefix := range []string{"/", "/a", "/a/b/", "/...", "/.well-known/x", "/a..b"} {
		startServer(t, pushy.Options{Prefix: prefix})
	}
}

// Issue 11, number 17: middleware that bounds bodies, or takes them away, is answered
// with its own limit, or as if there were no body.
func TestMiddlewareAroundBodies(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	srv, err := pushy.New(pushy.Options{SecretKey: peerKey, Logger: log, SockJS: pushy.SockJS{Legacy: true}})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/pushy/", srv)
	mux.Handle("/auth", srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil }))
	const form = "application/x-www-form-urlencoded"
	bounded := serveHandler(t, srv, http.MaxBytesHandler(mux, 10))
	post := func(base, path, contentType, body string) (status int, message string) {
		res, err := http.Post(base+path, contentType, strings.NewReader(body))
		require.NoError(t, err, path)
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err, path)
		require.NoError(t, res.Body.Close())
		return res.StatusCode, string(text)
	}
	open, _ := post(bounded, "/pushy/socket/0/a/xhr", "", "")
	require.Equal(t, 200, open)
	for path, contentType := range map[string]string{
		"/auth":                         form,
		"/pushy/socket/0/a/xhr_send":    "",
		"/pushy/socket/0/a/jsonp_send":  form,
		"/pushy/channel/news/trigger?x": "application/json",
	} {
		if strings.Contains(path, "trigger") {
			key, err := pushy.SignTrigger(peerKey, "news", "x", time.Now().Unix(), []byte("{}"))
			require.NoError(t, err)
			path = fmt.Sprintf("/pushy/channel/news/trigger?event=x&timestamp=%d&auth_key=%s", time.Now().Unix(), key)
		}
		status, message := post(bounded, path, contentType, `["{}"]`+strings.Repeat(" ", 20))
		assert.Equal(t, 413, status, path)
		assert.NotContains(t, message, "65536", path)
	}
	all := strings.Join(lines(), "\n")
	assert.Contains(t, all, "10 bytes")
	assert.Contains(t, all, "http.MaxBytesHandler")
	assert.NotContains(t, all, "raise")

	nobody := serveHandler(t, srv, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = nil
		mux.ServeHTTP(w, r)
	}))
	for path, want := range map[string]int{
		"/auth":                       400,
		"/pushy/socket/0/b/xhr":       200,
		"/pushy/socket/0/b/xhr_send":  500, // "Payload expected."
		"/pushy/channel/news/trigger": 400,
		"/pushy/pushy.js":             405,
	} {
		if strings.HasSuffix(path, "_send") {
			status, _ := post(nobody, "/pushy/socket/0/b/xhr", "", "")
			require.Equal(t, 200, status)
		}
		status, _ := post(nobody, path, form, "")
		assert.Equal(t, want, status, path)
	}
}
