package websocket_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/transport/transporttest"
)

func TestHandshake(t *testing.T) {
	t.Parallel()
	const (
		up   = "Upgrade: websocket\r\n"
		conn = "Connection: Upgrade\r\n"
		ver  = "Sec-WebSocket-Version: 13\r\n"
		key  = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	)
	tests := []struct {
		name    string // begins with the section of RFC 6455
		line    string
		headers string
		status  int
		body    string
		header  [2]string
	}{
		{name: "1.3 accept", headers: up + conn + ver + key, status: 101, header: [2]string{"Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}},
		{name: "4.1 token list", headers: up + "Connection: keep-alive, Upgrade\r\n" + ver + key, status: 101},
		{name: "4.1 several lines", headers: "Upgrade: foo/1\r\nUpgrade: WebSocket\r\nConnection: keep-alive\r\nConnection:\tuPGRADE \r\n" + ver + key, status: 101},
		{name: "4.1 names in any case", headers: "uPGRADE: WEBSOCKET\r\ncONNECTION: UPGRADE\r\nSEC-WEBSOCKET-VERSION: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", status: 101},
		{name: "4.2.1 method", line: "POST / HTTP/1.1", headers: up + conn + ver + key + "Content-Length: 0\r\n", status: 405, header: [2]string{"Allow", "GET"}},
		{name: "4.2.1 http version", line: "GET / HTTP/1.0", headers: up + conn + ver + key, status: 400, body: "HTTP/1.1 is needed."},
		{name: "4.2.1 no upgrade", headers: conn + ver + key, status: 400, body: `Can "Upgrade" only to "WebSocket".`},
		{name: "4.2.1 other upgrade", headers: "Upgrade: h2c, websockets\r\n" + conn + ver + key, status: 400, body: `Can "Upgrade" only to "WebSocket".`},
		{name: "4.2.1 no connection", headers: up + ver + key, status: 400, body: `"Connection" must be "Upgrade".`},
		{name: "4.2.1 other connection", headers: up + "Connection: keep-alive, upgraded\r\n" + ver + key, status: 400, body: `"Connection" must be "Upgrade".`},
		{name: "4.2.1 no key", headers: up + conn + ver, status: 400, body: `"Sec-WebSocket-Key" must be 16 bytes in base64.`},
		{name: "4.2.1 key of 15 bytes", headers: up + conn + ver + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n", status: 400, body: `"Sec-WebSocket-Key" must be 16 bytes in base64.`},
		{name: "4.2.1 key of 17 bytes", headers: up + conn + ver + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE=\r\n", status: 400, body: `"Sec-WebSocket-Key" must be 16 bytes in base64.`},
		{name: "4.2.1 key not base64", headers: up + conn + ver + "Sec-WebSocket-Key: ????????????????????????\r\n", status: 400, body: `"Sec-WebSocket-Key" must be 16 bytes in base64.`},
		{name: "4.2.1 two keys", headers: up + conn + ver + key + key, status: 400, body: `"Sec-WebSocket-Key" must be 16 bytes in base64.`},
		{name: "4.4 no version", headers: up + conn + key, status: 426, body: `"Sec-WebSocket-Version" must be 13.`, header: [2]string{"Sec-WebSocket-Version", "13"}},
		{name: "4.4 old version", headers: up + conn + "Sec-WebSocket-Version: 8\r\n" + key, status: 426, body: `"Sec-WebSocket-Version" must be 13.`, header: [2]string{"Sec-WebSocket-Version", "13"}},
		{name: "4.2.2 subprotocol not taken", headers: up + conn + ver + key + "Sec-WebSocket-Protocol: a, b\r\n", status: 101, header: [2]string{"Sec-WebSocket-Protocol", ""}},
		{name: "9.1 extension not taken", headers: up + conn + ver + key + "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x;;=\r\n", status: 101, header: [2]string{"Sec-WebSocket-Extensions", ""}},
		{name: "body would be read as frames", headers: up + conn + ver + key + "Content-Length: 3\r\n\r\nabc", status: 400, body: "No body is allowed."},
		{name: "chunked body", headers: up + conn + ver + key + "Transfer-Encoding: chunked\r\n\r\n0\r\n", status: 400, body: "No body is allowed."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(false, transporttest.Config())
			c := dial(t, h.start(t))
			if tt.line == "" {
				tt.line = "GET / HTTP/1.1"
			}
			c.send([]byte(tt.line + "\r\nHost: x\r\n" + tt.headers + "\r\n"))
			res, err := http.ReadResponse(c.r, nil)
			require.NoError(t, err)
			defer res.Body.Close()
			require.Equal(t, tt.status, res.StatusCode)
			if tt.header[0] != "" {
				assert.Equal(t, tt.header[1], res.Header.Get(tt.header[0]))
			}
			if tt.status == http.StatusSwitchingProtocols {
				assert.Equal(t, "websocket", strings.ToLower(res.Header.Get("Upgrade")))
				assert.Equal(t, "upgrade", strings.ToLower(res.Header.Get("Connection")))
				return
			}
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			assert.Equal(t, tt.body, string(body))
			assert.ErrorContains(t, <-h.errs, "websocket handshake")
		})
	}
}

// Bytes that clients send directly after the handshake are already in the server's buffer when
// the connection is hijacked.
func TestHandshakeKeepsEarlyBytes(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(f.framed, transporttest.Config())
			one := frame(fin|opText, f.text("one"))
			two := frame(fin|opText, f.text("two"))
			c := dial(t, h.start(t)).connect(append(one, two[:5]...)...)
			c.send(two[5:], closeFrame(1000, ""))
			assert.Equal(t, append(f.opening(), f.echo("one"), f.echo("two"), "close:1000:"), c.rest())
		})
	}
}

type unwrapper struct{ http.ResponseWriter }

func (u unwrapper) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func TestUpgradeBehind(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		wrap  func(http.Handler) http.Handler
		works bool
	}{
		{"middleware with Unwrap", func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(unwrapper{unwrapper{w}}, r) })
		}, true},
		{"middleware without Unwrap", func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
			})
		}, false},
		{"TimeoutHandler", func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(false, transporttest.Config())
			srv := httptest.NewServer(tt.wrap(h))
			t.Cleanup(srv.Close)
			c := dial(t, srv.Listener.Addr().String())
			if tt.works {
				c.connect(frame(fin|opText, "hi")...)
				c.expect("text:hi")
				return
			}
			c.send([]byte(handshake))
			res, err := http.ReadResponse(c.r, nil)
			require.NoError(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			assert.Equal(t, http.StatusInternalServerError, res.StatusCode)
			assert.Contains(t, string(body), "cannot be hijacked")
			assert.ErrorContains(t, <-h.errs, "cannot be hijacked")
		})
	}
}

// sockjs.md row 29: over HTTP/2, a WebSocket is refused with an explanation.
func TestRow29UpgradeOverHTTP2(t *testing.T) {
	t.Parallel()
	h := newHost(false, transporttest.Config())
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Upgrade", "websocket") // which no HTTP/2 client can send
		r.Header.Set("Connection", "Upgrade")
		h.ServeHTTP(w, r)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	req, err := http.NewRequest(http.MethodGet, srv.URL, nil)
	require.NoError(t, err)
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	res, err := srv.Client().Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, 2, res.ProtoMajor)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusInternalServerError, res.StatusCode)
	assert.Contains(t, string(body), "HTTP/2")
}

func TestUpgradeOverTLS(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(f.framed, transporttest.Config())
			srv := httptest.NewUnstartedServer(h)
			srv.StartTLS()
			t.Cleanup(srv.Close)
			conn, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own server
			require.NoError(t, err)
			payload, message := f.sized(40_000)
			c := newClient(t, conn).connect(frame(fin|opText, payload)...)
			for _, want := range f.opening() {
				c.expect(want)
			}
			c.expect(f.echo(message))
			h.Conn(t).Stop(3001, "shutting down")
			for _, want := range f.closing(3001, "shutting down") {
				c.expect(want)
			}
			c.send(closeFrame(3001, ""))
			c.expectEnd()
		})
	}
}

// The deadlines of http.Server do not apply to a hijacked connection.
func TestServerDeadlinesAreCleared(t *testing.T) {
	t.Parallel()
	h := newHost(false, transporttest.Config())
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ReadTimeout = 4 * time.Second
	srv.Config.WriteTimeout = 4 * time.Second
	srv.Start()
	t.Cleanup(srv.Close)
	c := dial(t, srv.Listener.Addr().String()).connect()
	<-time.After(4500 * time.Millisecond)
	c.send(frame(fin|opText, "late"))
	c.expect("text:late")
}
