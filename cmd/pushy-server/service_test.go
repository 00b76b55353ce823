package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// client is a bare WebSocket that has got its pushy:connect.
type client struct {
	t    *testing.T
	conn io.ReadWriter
}

func connect(t *testing.T, url string, roots *x509.CertPool) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, early, _, err := ws.Dialer{TLSConfig: &tls.Config{RootCAs: roots}}.Dial(ctx, url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	c := &client{t: t, conn: conn}
	if early != nil {
		c.conn = struct {
			io.Reader
			io.Writer
		}{io.MultiReader(io.LimitReader(early, int64(early.Buffered())), conn), conn}
	}
	assert.Contains(t, c.receive(), `"event":"pushy:connect"`)
	return c
}

func (c *client) receive() string {
	c.t.Helper()
	text, _, err := wsutil.ReadServerData(c.conn)
	require.NoError(c.t, err)
	return string(text)
}

// closeCode reads until the server closes, and returns its code. wsutil refuses codes
// that are newer than it, such as 1012.
func (c *client) closeCode() int {
	c.t.Helper()
	for {
		frame, err := ws.ReadFrame(c.conn)
		require.NoError(c.t, err)
		if frame.Header.OpCode == ws.OpClose {
			code, _ := ws.ParseCloseFrameData(frame.Payload)
			return int(code)
		}
	}
}

// postTrigger publishes {} with the secret key given, and returns the status.
func postTrigger(t *testing.T, base, secretKey string) int {
	t.Helper()
	now := time.Now().Unix()
	key, err := pushy.SignTrigger(secretKey, "news", "headline", now, []byte(`{}`))
	require.NoError(t, err)
	url := fmt.Sprintf("%s/channel/news/trigger?event=headline&timestamp=%d&auth_key=%s", base, now, key)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	status, _, _ := do(t, req)
	return status
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	const said = "pages of any origin can connect, as with the original; the config's key origins limits them"
	tests := []struct {
		name                     string
		config                   string
		rule                     string
		said                     int
		own, listed, other, null int
	}{
		{"without the key", `{}`, "any", 1, 200, 200, 200, 200},
		{"list", `{"origins":["https://a.example"]}`, "same, https://a.example", 0, 200, 200, 403, 403},
		{"empty list", `{"origins":[]}`, "same", 0, 200, 403, 403, 403},
		{"list with any", `{"origins":["*"]}`, "any", 0, 200, 200, 200, 200},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startService(t, test.config, defaultDrainTimeout, nil)
			for origin, want := range map[string]int{
				"http://" + s.addr: test.own, "https://a.example": test.listed, "https://b.example": test.other, "null": test.null, "": 200,
			} {
				status, header, _ := get(t, "http://"+s.addr+"/pushy/socket/info", origin)
				assert.Equal(t, want, status, "origin %q", origin)
				assert.Contains(t, header.Values("Vary"), "Origin")
			}
			assert.Equal(t, test.rule, s.log.wait(t, "listening")["origins"])
			assert.Equal(t, test.said, strings.Count(s.log.String(), said))
		})
	}
}

func TestPrefixes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name            string
		config          string
		trigger, socket string
	}{
		{"defaults", `{}`, "/pushy", "/pushy/socket"},
		{"prefix", `{"prefix":"/rt"}`, "/rt", "/rt/socket"},
		{"SockJS prefix", `{"sockjs":{"prefix":"/live/ws"}}`, "/pushy", "/live/ws"},
		{"both", `{"prefix":"/rt","sockjs":{"prefix":"/ws"}}`, "/rt", "/ws"},
		{"root", `{"prefix":"/"}`, "", "/socket"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startService(t, test.config, defaultDrainTimeout, nil)
			base := "http://" + s.addr
			listening := s.log.wait(t, "listening")
			assert.Equal(t, test.socket, listening["sockjs"])
			assert.Equal(t, max(test.trigger, "/"), listening["prefix"])
			for _, prefix := range []string{"", "/pushy", "/rt"} {
				want := http.StatusNotFound
				if prefix == test.trigger {
					want = http.StatusOK
				}
				assert.Equal(t, want, postTrigger(t, base+prefix, secret), "trigger under %q", prefix)
			}
			for _, prefix := range []string{"/socket", "/pushy/socket", "/rt/socket", "/live/ws", "/ws"} {
				want := http.StatusNotFound
				if prefix == test.socket {
					want = http.StatusOK
				}
				status, _, _ := get(t, base+prefix+"/info", "")
				assert.Equal(t, want, status, "SockJS under %q", prefix)
			}
			connect(t, "ws://"+s.addr+test.socket+"/websocket", nil)
			for _, path := range []string{"/healthz", "/readyz"} {
				status, _, body := get(t, base+path, "")
				assert.Equal(t, http.StatusOK, status)
				assert.Equal(t, "ok", body)
			}
		})
	}
}

func TestNoWebSocket(t *testing.T) {
	t.Parallel()
	s := startService(t, `{"sockjs":{"websocket":false}}`, defaultDrainTimeout, nil)
	status, _, body := get(t, "http://"+s.addr+"/pushy/socket/info", "")
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, body, `"websocket":false`)
	status, _, _ = get(t, "http://"+s.addr+"/pushy/socket/websocket", "")
	assert.Equal(t, http.StatusNotFound, status)
}

func TestCompress(t *testing.T) {
	t.Parallel()
	dialer := ws.Dialer{}
	dialer.Extensions = append(dialer.Extensions, wsflate.Parameters{}.Option())
	for config, accepted := range map[string]int{`{"compress":512}`: 1, `{"compress":0}`: 0, `{}`: 0} {
		s := startService(t, config, defaultDrainTimeout, nil)
		conn, _, handshake, err := dialer.Dial(t.Context(), "ws://"+s.addr+"/pushy/socket/websocket")
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		assert.Len(t, handshake.Extensions, accepted, config)
	}
}

func TestLimitsArrive(t *testing.T) {
	t.Parallel()
	s := startService(t, `{"limits":{"connections":1}}`, defaultDrainTimeout, nil)
	connect(t, "ws://"+s.addr+"/pushy/socket/websocket", nil)
	_, _, _, err := ws.Dial(t.Context(), "ws://"+s.addr+"/pushy/socket/websocket")
	var refused ws.StatusError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, http.StatusServiceUnavailable, int(refused))
}

func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	s := startService(t, `{}`, defaultDrainTimeout, nil)
	for size, want := range map[int]int{16 << 10: http.StatusOK, 64 << 10: http.StatusRequestHeaderFieldsTooLarge} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.addr+"/healthz", nil)
		require.NoError(t, err)
		req.Header.Set("X-Long", strings.Repeat("x", size))
		status, _, _ := do(t, req)
		assert.Equal(t, want, status, "%d bytes", size)
	}
}

func TestHealthMethods(t *testing.T) {
	t.Parallel()
	s := startService(t, `{}`, defaultDrainTimeout, nil)
	for method, want := range map[string]int{http.MethodHead: http.StatusOK, http.MethodPost: http.StatusMethodNotAllowed} {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.addr+"/healthz", nil)
		require.NoError(t, err)
		status, _, body := do(t, req)
		assert.Equal(t, want, status, method)
		assert.Empty(t, body)
	}
}

// TestShutdown stops the clock with a hook that does not return: what is seen
// meanwhile is the middle of the shutdown.
func TestShutdown(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := startService(t, `{}`, time.Hour, func(c *config) {
		c.options.Hooks.Disconnect = func(*pushy.Conn, int, string) { <-release }
	})
	c := connect(t, "ws://"+s.addr+"/pushy/socket/websocket", nil)
	s.signals <- syscall.SIGINT
	assert.Equal(t, 1012, c.closeCode())
	status, _, body := get(t, "http://"+s.addr+"/readyz", "")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Equal(t, "shutting down", body)
	status, _, body = get(t, "http://"+s.addr+"/healthz", "")
	assert.Equal(t, http.StatusOK, status, "it must not be killed while it closes connections")
	assert.Equal(t, "ok", body)
	s.signals <- syscall.SIGHUP // no reason to end
	s.log.wait(t, "nothing to reload: no certificate")
	close(release)
	assert.Equal(t, 0, s.wait(t))
	assert.Equal(t, "interrupt", s.log.wait(t, "shutting down")["signal"])
	s.log.wait(t, "stopped")
	listener, ok := s.service.listener.(*net.TCPListener)
	require.True(t, ok)
	require.ErrorIs(t, listener.SetDeadline(time.Time{}), net.ErrClosed)
}

func TestShutdownCutsConnections(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := startService(t, `{}`, time.Millisecond, func(c *config) {
		c.options.Hooks.Disconnect = func(*pushy.Conn, int, string) { <-release }
	})
	t.Cleanup(func() { close(release) })
	connect(t, "ws://"+s.addr+"/pushy/socket/websocket", nil)
	s.signals <- syscall.SIGTERM
	assert.Equal(t, 1, s.wait(t))
	assert.Equal(t, "context deadline exceeded", s.log.wait(t, "not all connections could be closed in time")["error"])
}

func TestShutdownCutsRequests(t *testing.T) {
	t.Parallel()
	s := startService(t, `{}`, 100*time.Millisecond, nil)
	conn := slowTrigger(t, s.addr)
	s.signals <- syscall.SIGTERM
	assert.Equal(t, 1, s.wait(t))
	assert.Equal(t, "context deadline exceeded", s.log.wait(t, "not all requests could be answered in time")["error"])
	_, err := io.Copy(io.Discard, conn)
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the request's connection is cut")
}

func TestSecondSignal(t *testing.T) {
	t.Parallel()
	s := startService(t, `{}`, time.Hour, nil)
	slowTrigger(t, s.addr)
	s.signals <- syscall.SIGTERM
	s.log.wait(t, "shutting down")
	s.signals <- syscall.SIGINT
	assert.Equal(t, 1, s.wait(t))
	assert.Equal(t, "interrupt", s.log.wait(t, "ended immediately")["signal"])
}

// After the signal the server serves as before for drainDelay, and only /readyz says that it ends.
// A second signal does not wait for the end of the delay.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	s := startService(t, `{"drainDelay":"1h"}`, defaultDrainTimeout, nil)
	connect(t, "ws://"+s.addr+"/pushy/socket/websocket", nil)
	s.signals <- syscall.SIGTERM
	assert.Equal(t, "1h0m0s", s.log.wait(t, "shutting down")["delay"])
	for path, want := range map[string]int{"/readyz": http.StatusServiceUnavailable, "/healthz": http.StatusOK} {
		require.Eventually(t, func() bool {
			status, _, _ := get(t, "http://"+s.addr+path, "")
			return status == want
		}, patience, 10*time.Millisecond, path)
	}
	connect(t, "ws://"+s.addr+"/pushy/socket/websocket", nil)
	assert.Equal(t, http.StatusOK, postTrigger(t, "http://"+s.addr+"/pushy", secret))
	assert.Equal(t, 2, s.service.pushy.Stats().Connections)
	s.signals <- syscall.SIGTERM
	assert.Equal(t, exitFailed, s.wait(t))
	assert.NotContains(t, s.log.String(), "closing connections")
}

// The process is not ready, accepts a client all the same, and closes the connections when the
// delay is over.
func TestProcessDrains(t *testing.T) {
	t.Parallel()
	const delay = 12 * time.Second // on a busy machine each of the steps until its end can take seconds
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0,"drainDelay":"`+delay.String()+`"}`)
	url := "ws://" + p.addr + "/pushy/socket/websocket"
	early := connect(t, url, nil)
	began := time.Now()
	p.signal(t, syscall.SIGTERM)
	p.log.wait(t, "shutting down")
	require.Eventually(t, func() bool {
		status, _, _ := get(t, "http://"+p.addr+"/readyz", "")
		return status == http.StatusServiceUnavailable
	}, patience, 10*time.Millisecond)
	late := connect(t, url, nil)
	assert.Equal(t, 1012, early.closeCode())
	assert.Equal(t, 1012, late.closeCode())
	assert.GreaterOrEqual(t, time.Since(began), delay)
	assert.Equal(t, exitOK, p.status(t))
	closing := p.log.wait(t, "closing connections")
	assert.EqualValues(t, 2, closing["connections"])
	assert.Equal(t, "15s", closing["timeout"])
}

// A client that neither answers the close frame nor ends its connection delays the end no longer
// than drainTimeout.
func TestProcessDrainTimeout(t *testing.T) {
	t.Parallel()
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0,"drainTimeout":"1s"}`)
	connect(t, "ws://"+p.addr+"/pushy/socket/websocket", nil)
	p.signal(t, syscall.SIGTERM)
	assert.Equal(t, exitFailed, p.status(t))
	assert.Equal(t, "context deadline exceeded", p.log.wait(t, "not all connections could be closed in time")["error"])
}

// A second SIGTERM ends the process during the delay.
func TestProcessSecondSignal(t *testing.T) {
	t.Parallel()
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0,"drainDelay":"1h"}`)
	p.signal(t, syscall.SIGTERM)
	p.log.wait(t, "shutting down")
	p.signal(t, syscall.SIGTERM)
	assert.Equal(t, exitFailed, p.status(t))
	p.log.wait(t, "ended immediately")
}

// slowTrigger makes a request whose body the server waits for.
func slowTrigger(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn := dial(t, addr)
	_, err := fmt.Fprintf(conn, "POST /pushy/channel/news/trigger?event=e&timestamp=%d&auth_key=x HTTP/1.1\r\nHost: %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n", time.Now().Unix(), addr)
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "100 Continue", "the server reads the body")
	return conn
}

func TestProcess(t *testing.T) {
	t.Parallel()
	p := startProcess(t, `{"secretKey":"of the file, which is long","host":"127.0.0.1","port":0,"sockjs":{"heartbeat_delay":25}}`, "PUSHY_SECRET_KEY="+secret)
	_, port, err := net.SplitHostPort(p.addr)
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	assert.Positive(t, n, "the port it has picked")
	listening := p.log.wait(t, "listening")
	for key, want := range map[string]any{"level": "INFO", "tls": false, "prefix": "/pushy", "sockjs": "/pushy/socket", "origins": "any"} {
		assert.Equal(t, want, listening[key], key)
	}
	assert.Equal(t, "sockjs.heartbeat_delay", p.log.wait(t, "delay under 1000 read as seconds; write milliseconds")["key"])

	assert.Equal(t, http.StatusOK, postTrigger(t, "http://"+p.addr+"/pushy", secret))
	assert.Equal(t, http.StatusForbidden, postTrigger(t, "http://"+p.addr+"/pushy", "of the file, which is long"))

	c := connect(t, "ws://"+p.addr+"/pushy/socket/websocket", nil)
	newer := connect(t, "ws://"+p.addr+"/pushy/socket/websocket?v=2", nil)
	p.signal(t, syscall.SIGTERM)
	assert.Equal(t, 1012, c.closeCode())
	assert.Regexp(t, `^\{"event":"pushy:drain","data":\{"returnIn":\d+\}\}$`, newer.receive())
	assert.Equal(t, 1012, newer.closeCode())
	assert.Equal(t, 0, p.status(t))
	assert.Equal(t, "terminated", p.log.wait(t, "shutting down")["signal"])
	assert.NotContains(t, p.log.String(), "of the file")
}

func TestProcessInterrupted(t *testing.T) {
	t.Parallel()
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":"0"}`)
	p.signal(t, syscall.SIGHUP)
	p.log.wait(t, "nothing to reload: no certificate")
	p.signal(t, syscall.SIGINT)
	assert.Equal(t, 0, p.status(t))
}

func TestServeFails(t *testing.T) {
	t.Parallel()
	s := startService(t, `{}`, defaultDrainTimeout, nil)
	require.NoError(t, s.service.listener.Close())
	assert.Equal(t, 1, s.wait(t))
	assert.NotEmpty(t, s.log.wait(t, "cannot serve")["error"])
}
