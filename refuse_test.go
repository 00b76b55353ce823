package pushy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/testlog"
)

// logged returns a log and what is in it, one line an element.
func logged() (*slog.Logger, func() []string) { return loggedFrom(slog.LevelInfo) }

// warned is logged without the lines of a level under slog.LevelWarn.
func warned() (*slog.Logger, func() []string) { return loggedFrom(slog.LevelWarn) }

func loggedFrom(level slog.Level) (*slog.Logger, func() []string) {
	var b testlog.Log
	return slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: level})), func() []string {
		return strings.FieldsFunc(b.String(), func(r rune) bool { return r == '\n' })
	}
}

// httpError is the JSON of an answer that is an error.
func httpError(t *testing.T, w *http.Response) (code, message string) {
	t.Helper()
	var body struct {
		Error struct{ Code, Message string }
	}
	text, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	assert.Equal(t, "application/json", w.Header.Get("Content-Type"))
	require.NoError(t, json.Unmarshal(text, &body), "%s", text)
	return body.Error.Code, body.Error.Message
}

// ask serves one request without a network.
func ask(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

var upgradeHeader = []string{
	"Connection", "Upgrade", "Upgrade", "websocket",
	"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==",
}

// Issue 11, number 15: an origin that is refused is in the log, once a minute,
// and in the answer, with the Host, at every endpoint.
func TestRefusedOriginSaysWhy(t *testing.T) {
	t.Parallel()
	endpoints := slices.Concat(sockjsDoors, []struct{ method, path string }{{"GET", "/websocket"}, {"POST", "AUTH"}})
	for _, door := range endpoints {
		t.Run(door.method+door.path, func(t *testing.T) {
			t.Parallel()
			log, lines := logged()
			srv := startServer(t, pushy.Options{Logger: log, SockJS: pushy.SockJS{Legacy: true}})
			h, target := http.Handler(srv), "http://127.0.0.1:8061/pushy/socket"+door.path
			if door.path == "AUTH" {
				h = srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil })
			}
			for range 3 {
				w := ask(h, door.method, target, "Origin", "https://app.example")
				assert.Equal(t, 403, w.StatusCode)
				code, message := httpError(t, w)
				assert.Equal(t, "403", code)
				assert.Equal(t, "Origin https://app.example is not allowed: request's Host is 127.0.0.1:8061; "+
					"behind a proxy pass Host on, or list the origin in Options.Origins", message)
				assert.Equal(t, "nosniff", w.Header.Get("X-Content-Type-Options"))
				assert.Empty(t, w.Header.Get("Access-Control-Allow-Origin"))
			}
			ask(h, door.method, target, "Origin", "https://other.example")
			require.Len(t, lines(), 2, "one for each origin")
			assert.Contains(t, lines()[0], "level=WARN")
			assert.Contains(t, lines()[0], "origin=https://app.example host=127.0.0.1:8061")
			assert.Contains(t, lines()[0], "request's Host is 127.0.0.1:8061; behind a proxy pass Host on, "+
				"or list the origin in Options.Origins")
			assert.Contains(t, lines()[1], "https://other.example")
		})
	}
}

// Issue 11, number 15: what a client chooses is bounded and escaped.
func TestRefusalShowsHostileValues(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	srv := startServer(t, pushy.Options{Logger: log})
	for _, c := range []struct{ name, origin, says string }{
		{"long", "https://" + strings.Repeat("x", 5000), "…"},
		{"bidi", "https://a\u202e.example", `\u202e`},
		{"notUTF8", "a\xff", `\xff`},
		{"quotes", `"><script>`, `\"><script>`},
		{"null", "null", "sandboxed"},
	} {
		w := ask(srv, "GET", "/pushy/socket/info", "Origin", c.origin)
		require.Equal(t, 403, w.StatusCode, c.name)
		_, message := httpError(t, w)
		assert.Contains(t, message, c.says, c.name)
		assert.Less(t, len(message), 1000, c.name)
	}
	w := ask(srv, "GET", "/pushy/socket/info", "Origin", "https://a.example", "Origin", "https://b.example")
	_, message := httpError(t, w)
	assert.Contains(t, message, "this one has 2")
	w = ask(srv, "GET", "/pushy/socket/info", "Sec-Fetch-Site", "cross-site")
	_, message = httpError(t, w)
	assert.Contains(t, message, "does not say which")
	for _, line := range lines() {
		assert.Less(t, len(line), 2000)
		assert.NotContains(t, line, "\u202e")
	}
	ask(srv, "GET", "/"+strings.Repeat("y", 100_000))
	assert.Less(t, len(lines()[len(lines())-1]), 2000)
}

// Issue 11, number 15: a path at which nothing is names the prefix and the cure.
func TestWrongPathSaysWhy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, prefix, path string
		wrap               func(http.Handler) http.Handler
		says               []string
	}{
		{
			name:   "otherPrefix",
			prefix: "/rt",
			path:   "/pushy/socket/websocket",
			says:   []string{"/pushy/socket/websocket", "Options.Prefix", "/rt"},
		},
		{
			name: "longerName",
			path: "/pushyx/socket/info",
			says: []string{"/pushyx/socket/info", "Options.Prefix", "/pushy"},
		},
		{
			name: "stripPrefix",
			path: "/pushy/socket/info",
			wrap: func(h http.Handler) http.Handler { return http.StripPrefix("/pushy", h) },
			says: []string{"/pushy/socket/info", "/socket/info", `set Options.Prefix to "/"`},
		},
		{
			name:   "stripPrefixWithASlash",
			prefix: "/",
			path:   "/pushy/pushy.js",
			wrap:   func(h http.Handler) http.Handler { return http.StripPrefix("/pushy/", h) },
			says:   []string{"pushy.js", "begin with a slash", "StripPrefix"},
		},
		{
			name:   "rootWithoutStripPrefix",
			prefix: "/",
			path:   "/pushy/socket/info",
			says:   []string{"/pushy/socket/info", "Options.Prefix is /"},
		},
		{name: "mountedWithoutASlash", path: "/pushy", says: []string{"/pushy", "/pushy/", "with the slash"}},
		{name: "inside", path: "/pushy/nothing", says: []string{"/pushy/nothing", "/pushy/socket/", "/pushy/pushy.js"}},
		{name: "auth", path: "/pushy/auth", says: []string{"/pushy/auth", "Server.AuthHandler", "new Pushy("}},
		{name: "events", path: "/pushy/events", says: []string{"sse.New"}},
		{name: "encodedSlashDecoded", path: "/pushy/channel/a/b/trigger", says: []string{"a/b", "%2F", "proxy"}}, // number 18
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log, lines := logged()
			h := http.Handler(startServer(t, pushy.Options{Logger: log, Prefix: c.prefix}))
			if c.wrap != nil {
				h = c.wrap(h)
			}
			for range 2 {
				w := ask(h, "POST", c.path)
				assert.Equal(t, 404, w.StatusCode)
				assert.Equal(t, "nosniff", w.Header.Get("X-Content-Type-Options"))
				code, message := httpError(t, w)
				assert.Equal(t, "404", code)
				for _, part := range c.says {
					assert.Contains(t, message, part)
				}
			}
			require.Len(t, lines(), 1)
			assert.Contains(t, lines()[0], "level=WARN")
			for _, part := range c.says {
				assert.Contains(t, strings.ReplaceAll(lines()[0], `\"`, `"`), part)
			}
		})
	}
	off := startServer(t, pushy.Options{DisableTrigger: true, SecretKey: peerKey})
	_, message := httpError(t, ask(off, "POST", "/pushy/channel/x/trigger"))
	assert.Contains(t, message, "Options.DisableTrigger")
}

// Issue 11, number 15: what Accept refuses is in the log with its error, which
// the client does not see unless it is an *Error.
func TestRefusedByAcceptSaysWhy(t *testing.T) {
	t.Parallel()
	var typedNil *pushy.Error
	for _, c := range []struct {
		name          string
		err           error
		status        int
		code, message string
		logged        string
	}{
		{"denied", errSecret, 403, "403", "Options.Accept", errSecret.Error()},
		{"needAuth", errors.Join(pushy.ErrNeedAuth, errSecret), 401, "401", "log in", errSecret.Error()},
		{"shown", &pushy.Error{Code: "banned", Message: "You are banned"}, 403, "banned", "You are banned", "You are banned"},
		{"status", &pushy.Error{Code: "429", Message: "Slowly"}, 429, "429", "Slowly", "Slowly"},
		{"noSuchStatus", &pushy.Error{Code: "4290", Message: "Slowly"}, 403, "4290", "Slowly", "Slowly"},
		{"typedNil", typedNil, 403, "403", "Options.Accept", "level=WARN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log, lines := logged()
			srv := startServer(t, pushy.Options{
				Logger: log,
				Accept: func(*http.Request) (any, error) { return nil, c.err },
			})
			for _, door := range []struct{ method, path string }{
				{"POST", "/0/s/xhr"}, {"POST", "/0/s/xhr_streaming"}, {"GET", "/0/s/eventsource"},
			} {
				w := ask(allAbilities(srv), door.method, "/pushy/socket"+door.path)
				assert.Equal(t, c.status, w.StatusCode)
				code, message := httpError(t, w)
				assert.Equal(t, c.code, code)
				assert.Contains(t, message, c.message)
				assert.NotContains(t, message, errSecret.Error())
			}
			w := ask(allAbilities(srv), "GET", "/pushy/socket/websocket", upgradeHeader...)
			assert.Equal(t, c.status, w.StatusCode)
			require.Len(t, lines(), 1)
			assert.Contains(t, lines()[0], c.logged)
			assert.Contains(t, lines()[0], "Options.Accept")
		})
	}
	log, lines := logged()
	srv := startServer(t, pushy.Options{
		Logger: log,
		Limits: pushy.Limits{Connections: 1},
		Accept: func(*http.Request) (any, error) {
			runtime.Goexit()
			return nil, nil
		},
	})
	for range 3 { // the place is given back
		w := httptest.NewRecorder()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			allAbilities(srv).ServeHTTP(w, httptest.NewRequest("POST", "/pushy/socket/0/s/xhr", nil))
		}()
		<-ended
		assert.Equal(t, 500, w.Code)
		assert.Contains(t, w.Body.String(), `{"error":{"code":"500",`)
	}
	require.Len(t, lines(), 1)
	assert.Contains(t, lines()[0], "Goexit")
}

// able is a ResponseWriter that has what a server's has, and does nothing.
type able struct{ *httptest.ResponseRecorder }

func (able) SetReadDeadline(time.Time) error  { return nil }
func (able) SetWriteDeadline(time.Time) error { return nil }
func (able) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.New("no connection")
}

// allAbilities serves with an able ResponseWriter in place of a recorder.
func allAbilities(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(able{w.(*httptest.ResponseRecorder)}, r)
	})
}

// Issue 11, number 15: a limit that refuses says which and what it is.
func TestRefusedByALimitSaysWhy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limits pushy.Limits
		says   string
	}{
		"connections": {pushy.Limits{Connections: 1}, "Options.Limits.Connections is 1"},
		"address":     {pushy.Limits{PerAddress: 1}, "Options.Limits.PerAddress is 1"},
	} {
		log, lines := logged()
		srv := startServer(t, pushy.Options{
			Logger: log,
			Limits: c.limits,
			SockJS: pushy.SockJS{DisconnectDelay: time.Hour},
		})
		assert.Equal(t, 200, ask(allAbilities(srv), "POST", "/pushy/socket/0/a/xhr").StatusCode)
		for range 2 {
			w := ask(allAbilities(srv), "POST", "/pushy/socket/0/b/xhr")
			assert.Equal(t, 503, w.StatusCode)
			assert.Equal(t, "5", w.Header.Get("Retry-After"))
			assert.Equal(t, "Retry-After", w.Header.Get("Access-Control-Expose-Headers"))
			code, message := httpError(t, w)
			assert.Equal(t, "503", code)
			assert.Contains(t, message, c.says, name)
		}
		require.Len(t, lines(), 1)
		assert.Contains(t, lines()[0], c.says)
		assert.Contains(t, lines()[0], "192.0.2.1")
	}
}

// Issue 11, number 14: AllowOrigin is asked in addition, with the origin as
// browsers send it.
func TestAllowOrigin(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	var mu sync.Mutex
	var asked []string
	srv := startServer(t, pushy.Options{
		Logger:  log,
		Origins: []string{"https://listed.example"},
		SockJS:  pushy.SockJS{Legacy: true, ScriptURL: "/s.js"},
		AllowOrigin: func(r *http.Request, origin string) bool {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, origin)
			if origin == "https://panic.example" {
				panic("boom")
			}
			return origin == "https://tenant.example" || origin == "null" && r.URL.Query().Get("key") == "k"
		},
	})
	auth := srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil })
	status := func(header ...string) int {
		return ask(srv, "GET", "/pushy/socket/info?key=k", header...).StatusCode
	}
	assert.Equal(t, 200, status("Origin", "https://listed.example"))
	assert.Equal(t, 200, status("Origin", "http://example.com"), "the own")
	assert.Equal(t, 403, status("Sec-Fetch-Site", "cross-site"), "no page to ask about")
	assert.Equal(t, 403, status("Origin", "https://tenant.example", "Origin", "https://tenant.example"))
	assert.Empty(t, asked)
	assert.Equal(t, 200, status("Origin", "HTTPS://Tenant.example:443"))
	assert.Equal(t, 200, status("Origin", "null"))
	assert.Equal(t, 200, status("Sec-Fetch-Site", "cross-site", "Referer", "https://tenant.example/page?secret"))
	assert.Equal(t, 403, status("Origin", "https://evil.example"))
	assert.Equal(t, []string{"https://tenant.example", "null", "https://tenant.example", "https://evil.example"}, asked)
	for range 3 {
		assert.Equal(t, 403, status("Origin", "https://panic.example"))
	}
	panics := 0
	for _, line := range lines() {
		if strings.Contains(line, "AllowOrigin panicked") {
			panics++
			assert.Contains(t, line, "boom")
		}
	}
	assert.Equal(t, 1, panics)

	w := ask(auth, "OPTIONS", "/auth", "Origin", "https://tenant.example", "Access-Control-Request-Headers", "authorization")
	assert.Equal(t, 204, w.StatusCode)
	assert.Equal(t, "https://tenant.example", w.Header.Get("Access-Control-Allow-Origin"))
	w = ask(srv, "GET", "/pushy/socket/iframe.html", "Sec-Fetch-Site", "cross-site", "Referer", "https://tenant.example/")
	assert.Equal(t, 200, w.StatusCode)
	assert.Equal(t, "frame-ancestors 'self' https://listed.example https://tenant.example",
		w.Header.Get("Content-Security-Policy"))
	assert.Contains(t, w.Header.Values("Vary"), "Referer")
}

// Issue 11, number 14: entries that can never match are refused in New, with
// the reason; wildcards are allowed, and may frame.
func TestOriginEntries(t *testing.T) {
	t.Parallel()
	for listed, reason := range map[string]string{
		"https://bücher.example":  "Punycode",
		"https://*.com":           "star",
		"http://[fe80::1%25eth0]": "zone",
		"wss://a.example":         "https",
		"null":                    "AllowOrigin",
	} {
		_, err := pushy.New(pushy.Options{SecretKey: peerKey, Origins: []string{listed}})
		require.ErrorContains(t, err, "pushy: Options.Origins: ")
		assert.ErrorContains(t, err, reason)
	}
	srv := startServer(t, pushy.Options{
		Origins: []string{"https://*.example.com", "http://127.1:03000", "http://[0:0:0:0:0:0:0:1]:8080", "file://"},
		SockJS:  pushy.SockJS{Legacy: true, ScriptURL: "/s.js"},
	})
	for origin, status := range map[string]int{
		"https://a.b.example.com": 200, "https://example.com.evil.example": 403, "http://127.0.0.1:3000": 200,
		"http://[::1]:8080": 200, "file://": 200, "null": 403,
	} {
		w := ask(srv, "GET", "http://server.example/pushy/socket/info", "Origin", origin)
		assert.Equal(t, status, w.StatusCode, origin)
	}
	w := ask(srv, "GET", "http://server.example/pushy/socket/iframe.html")
	assert.Equal(t, "frame-ancestors 'self' https://*.example.com http://127.0.0.1:3000 http://[::1]:8080 file:",
		w.Header.Get("Content-Security-Policy"))
}

// Issue 11, number 12: preflights allow the headers that are asked for, to
// allowed origins only, at AuthHandler and at SockJS's endpoints.
func TestPreflights(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Origins: []string{"https://app.example"}})
	auth := srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil })
	for _, c := range []struct {
		h              http.Handler
		target, unused string
		methods        string
	}{
		{auth, "/auth", "Content-Type", "POST, OPTIONS"},
		{srv, "/pushy/socket/0/s/xhr_send", "", "OPTIONS, POST"},
	} {
		preflight := func(origin string, asked ...string) *http.Response {
			header := []string{"Origin", origin, "Access-Control-Request-Method", "POST"}
			for _, a := range asked {
				header = append(header, "Access-Control-Request-Headers", a)
			}
			return ask(c.h, "OPTIONS", c.target, header...)
		}
		w := preflight("https://app.example", "authorization,x-csrf-token")
		assert.Equal(t, 204, w.StatusCode)
		assert.Equal(t, "authorization,x-csrf-token", w.Header.Get("Access-Control-Allow-Headers"))
		assert.Equal(t, "https://app.example", w.Header.Get("Access-Control-Allow-Origin"))
		assert.Equal(t, "true", w.Header.Get("Access-Control-Allow-Credentials"))
		assert.Equal(t, c.methods, w.Header.Get("Access-Control-Allow-Methods"))
		assert.NotEmpty(t, w.Header.Get("Access-Control-Max-Age"))
		assert.Equal(t, []string{"Origin", "Access-Control-Request-Headers"}, w.Header.Values("Vary"))
		w = preflight("https://app.example", "authorization", "x-csrf-token")
		assert.Equal(t, "authorization, x-csrf-token", w.Header.Get("Access-Control-Allow-Headers"))
		for _, hostile := range []string{"*", "a\x00b", "a<b", strings.Repeat("x", 3000), "bü"} {
			w = preflight("https://app.example", hostile)
			assert.Equal(t, c.unused, w.Header.Get("Access-Control-Allow-Headers"))
		}
		w = preflight("https://app.example")
		assert.Equal(t, c.unused, w.Header.Get("Access-Control-Allow-Headers"))
		w = preflight("https://evil.example", "authorization")
		assert.Equal(t, 403, w.StatusCode)
		for name := range w.Header {
			assert.NotContains(t, name, "Access-Control")
		}
	}
}

// Issue 11, number 25: what allow returns decides between final and not.
func TestAuthHandlerErrors(t *testing.T) {
	t.Parallel()
	const internal = `{"error":{"code":"500","message":"Internal error"}}`
	var typedNil *pushy.Error
	for _, c := range []struct {
		name   string
		allow  func() (any, error)
		status int
		body   string
		logs   string // "" for no line
	}{
		{"denied", func() (any, error) { return nil, errors.Join(errSecret, pushy.ErrDenied) }, 403,
			`{"error":{"code":"403","message":"not authorized"}}`, ""},
		{"needAuth", func() (any, error) { return nil, pushy.ErrNeedAuth }, 401,
			`{"error":{"code":"401","message":"authentication needed"}}`, ""},
		{"shown", func() (any, error) { return nil, &pushy.Error{Code: "paid", Message: "Only for members"} }, 403,
			`{"error":{"code":"paid","message":"Only for members"}}`, ""},
		{"shownStatus", func() (any, error) { return nil, &pushy.Error{Code: "404", Message: "No such room"} }, 404,
			`{"error":{"code":"404","message":"No such room"}}`, ""},
		{"shownNeedAuth", func() (any, error) {
			return nil, errors.Join(pushy.ErrNeedAuth, &pushy.Error{Message: "Log in"})
		}, 401, `{"error":{"code":"401","message":"Log in"}}`, ""},
		{"internal", func() (any, error) { return nil, errSecret }, 500, internal, errSecret.Error()},
		{"typedNil", func() (any, error) { return nil, typedNil }, 500, internal, "AuthHandler"},
		{"panics", func() (any, error) { panic(errSecret) }, 500, internal, errSecret.Error()},
		{"goexit", func() (any, error) { runtime.Goexit(); return nil, nil }, 500, internal, "Goexit"},
		{"noObject", func() (any, error) { return 7, nil }, 500, internal, "AuthHandler"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log, lines := logged()
			srv := startServer(t, pushy.Options{Logger: log})
			h := srv.AuthHandler(func(*http.Request, string, string) (any, error) { return c.allow() })
			for range 3 {
				r := httptest.NewRequest("POST", "/auth", strings.NewReader("channel=private-x&connection_id="+someID))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				w := httptest.NewRecorder()
				served := make(chan struct{})
				go func() { // which Goexit ends
					defer close(served)
					h.ServeHTTP(w, r)
				}()
				<-served
				assert.Equal(t, c.status, w.Code)
				assert.Equal(t, `{"batch":100,`+c.body[1:], w.Body.String())
			}
			if c.logs == "" {
				assert.Empty(t, lines())
				return
			}
			require.Len(t, lines(), 1, "one a minute")
			assert.Contains(t, lines()[0], c.logs)
		})
	}
}

// Issue 11, number 25: an Authorizer's fault is no refusal.
func TestAuthorizerFaults(t *testing.T) {
	t.Parallel()
	const unavailable = `pushy:subscription-failed {"channel":"news","reason":"Temporarily unavailable"}`
	var typedNil *pushy.Error
	for _, c := range []struct {
		name   string
		err    error
		answer string
		logs   string
	}{
		{"denied", pushy.ErrDenied, `pushy:subscription-failed {"channel":"news","reason":"Invalid credentials"}`, ""},
		{"internal", errSecret, unavailable, errSecret.Error()},
		{"typedNil", typedNil, unavailable, "Authorizer"},
		{"code", errors.Join(errSecret, &pushy.Error{Code: "quota", Message: "Too many rooms"}),
			`pushy:subscription-failed {"channel":"news","reason":"Too many rooms","code":"quota"}`, ""},
		{"noCode", &pushy.Error{Message: "Too many rooms"},
			`pushy:subscription-failed {"channel":"news","reason":"Too many rooms"}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log, lines := logged()
			srv := startServer(t, pushy.Options{Logger: log, Authorizer: allowAll{c.err}})
			p := connectPeer(t, srv)
			for range 2 {
				p.send(`{"command":"subscribe","data":{"channel":"News"}}`)
				p.expect(c.answer)
			}
			if c.logs == "" {
				assert.Empty(t, lines())
				return
			}
			require.Len(t, lines(), 1)
			assert.Contains(t, lines()[0], c.logs)
		})
	}
	log, lines := logged()
	srv := startServer(t, pushy.Options{Logger: log, Authorizer: panicking{}})
	p := connectPeer(t, srv)
	p.send(`{"command":"subscribe","data":{"channel":"news"},"id":1}`)
	p.expect(`pushy:subscription-failed {"channel":"news","reason":"Temporarily unavailable","id":1}`)
	require.Len(t, lines(), 1)
	assert.Contains(t, lines()[0], "Authorizer panicked")
}

type panicking struct{}

func (panicking) Authorize(context.Context, pushy.AuthRequest) error { panic("boom") }

// Issue 11, numbers 16 and 20: the time for a body is over when it is there. It
// ended the context of what the host does afterwards.
func TestBodyTimeoutIsForTheBody(t *testing.T) {
	t.Parallel()
	srv, err := pushy.New(pushy.Options{SecretKey: peerKey, BodyTimeout: time.Second, Logger: testLogger(t)})
	require.NoError(t, err)
	baseURL := serveHandler(t, srv, srv.AuthHandler(func(r *http.Request, _, _ string) (any, error) {
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		case <-time.After(2 * time.Second):
			return nil, nil
		}
	}))
	res, err := http.PostForm(baseURL, url.Values{"channel": {"private-x"}, "connection_id": {someID}})
	require.NoError(t, err)
	assert.Equal(t, 200, res.StatusCode)
	require.NoError(t, res.Body.Close())
}

// Issue 11, number 15: a proxy that does not pass the upgrade on makes every
// client fall back to HTTP, which nobody would notice.
func TestRefusedHandshakeIsLogged(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	srv := startServer(t, pushy.Options{Logger: log})
	for range 3 {
		w := ask(srv, "GET", "/pushy/socket/websocket", "Sec-WebSocket-Version", "13")
		assert.Equal(t, 400, w.StatusCode)
		text, err := io.ReadAll(w.Body)
		require.NoError(t, err)
		assert.Equal(t, `Can "Upgrade" only to "WebSocket".`, string(text), "SockJS's own words")
	}
	require.Len(t, lines(), 1)
	assert.Contains(t, lines()[0], "level=WARN")
	assert.Contains(t, lines()[0], "proxy_set_header Upgrade")
}
