package pushy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/testlog"
)

// Issue 11, number 26: a func of the host that decides about a request and does not
// return is answered at each endpoint over a real connection, which then serves the
// next request; no place among the connections is lost.
func TestFailingDecisions(t *testing.T) {
	eachFault(t, func(t *testing.T, fail func(), log *testlog.Log) {
		srv, base := serve(t, pushy.Options{
			SecretKey: peerKey,
			Logger:    log.Logger(),
			SockJS:    pushy.SockJS{Legacy: true, DisconnectDelay: time.Hour},
			Limits:    pushy.Limits{Connections: 6, PerAddress: 6},
			AllowOrigin: func(_ *http.Request, origin string) bool {
				if origin == "https://fail.example" {
					fail()
				}
				return true
			},
			Address: func(r *http.Request) string {
				if r.Header.Get("X-Address") == "fail" {
					fail()
				}
				return "192.0.2.1"
			},
			Accept: func(r *http.Request) (any, error) {
				if r.Header.Get("X-Accept") == "fail" {
					fail()
				}
				return nil, nil
			},
		})
		client := &http.Client{Timeout: peerPatience, Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		ask := func(method, path string, header ...string) int {
			r, err := http.NewRequestWithContext(t.Context(), method, base+"/pushy/socket"+path, nil)
			require.NoError(t, err)
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			res, err := client.Do(r)
			require.NoError(t, err, "%s %s %v", method, path, header)
			if res.StatusCode != 200 { // else it streams
				_, err = io.Copy(io.Discard, res.Body)
				require.NoError(t, err)
			}
			require.NoError(t, res.Body.Close())
			return res.StatusCode
		}
		endpoints := []struct{ method, path string }{
			{"POST", "/0/%s/xhr"}, {"POST", "/0/%s/xhr_streaming"}, {"GET", "/0/%s/eventsource"}, {"GET", "/0/%s/htmlfile?c=x"},
			{"GET", "/0/%s/jsonp?c=x"}, {"GET", "/0/%s/websocket"}, {"GET", "/websocket"},
		}
		for i, e := range endpoints {
			path := e.path
			if strings.Contains(path, "%s") {
				path = fmt.Sprintf(path, fmt.Sprintf("fails%d", i))
			}
			var more []string
			if strings.HasSuffix(path, "websocket") {
				more = upgradeHeader
			}
			for range 3 {
				assert.Equal(t, 403, ask(e.method, path, append(more, "Origin", "https://fail.example")...))
				assert.Contains(t, []int{403, 500}, ask(e.method, path, append(more, "X-Accept", "fail")...))
			}
		}
		for _, e := range []struct{ method, path string }{{"GET", "/info"}, {"OPTIONS", "/info"}, {"GET", ""}, {"POST", "/0/none/xhr_send"}} {
			assert.Equal(t, 403, ask(e.method, e.path, "Origin", "https://fail.example"))
		}
		assert.Equal(t, 200, ask("POST", "/0/counted/xhr", "X-Address", "fail"))
		for i := range 5 {
			assert.Equal(t, 200, ask("POST", fmt.Sprintf("/0/s%d/xhr", i)), "all places are there")
		}
		assert.Equal(t, 503, ask("POST", "/0/more/xhr"))
		for _, option := range []string{"Options.AllowOrigin", "Options.Address", "Options.Accept"} {
			assert.Contains(t, log.String(), option)
		}
		require.NoError(t, srv.Close())
		assert.Zero(t, srv.Stats().Connections)
	})
}

// Issue 11, number 18: over a Unix socket everything works, and Options.Address says
// who is counted.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "pushy") // t.TempDir is too long for a socket's name
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	log, lines := logged()
	srv, err := pushy.New(pushy.Options{
		SecretKey: peerKey,
		Logger:    log,
		Limits:    pushy.Limits{PerAddress: 2},
		Address:   func(r *http.Request) string { return r.Header.Get("X-Real-IP") },
		SockJS:    pushy.SockJS{DisconnectDelay: time.Hour},
	})
	require.NoError(t, err)
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	web := &http.Server{Handler: srv, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	client := &http.Client{
		Timeout: peerPatience,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
		},
	}
	status := func(path, address string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://app.example/pushy/socket/0"+path, strings.NewReader(`["{}"]`))
		require.NoError(t, err)
		r.Header.Set("X-Real-IP", address)
		r.Header.Set("Origin", "http://app.example")
		res, err := client.Do(r)
		require.NoError(t, err)
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode, string(text)
	}
	for i := range 2 {
		code, text := status(fmt.Sprintf("/a%d/xhr", i), "192.0.2.1")
		require.Equal(t, 200, code, text)
		code, text = status(fmt.Sprintf("/a%d/xhr", i), "192.0.2.1")
		require.Equal(t, 200, code)
		assert.Contains(t, text, "pushy:connect")
		code, _ = status(fmt.Sprintf("/a%d/xhr_send", i), "192.0.2.1")
		require.Equal(t, 204, code)
	}
	code, text := status("/a3/xhr", "192.0.2.1")
	assert.Equal(t, 503, code)
	assert.Contains(t, text, "192.0.2.1, from Options.Address")
	code, _ = status("/b/xhr", "192.0.2.2")
	assert.Equal(t, 200, code)
	for i := range 2 {
		code, _ = status(fmt.Sprintf("/c%d/xhr", i), "")
		assert.Equal(t, 200, code, "unknown ones count as one")
	}
	code, text = status("/c3/xhr", "")
	assert.Equal(t, 503, code)
	assert.Contains(t, text, "the connection has no address")
	assert.NotEmpty(t, lines())

	raw, err := net.Dial("unix", socket)
	require.NoError(t, err)
	defer raw.Close()
	_, err = io.WriteString(raw, "GET /pushy/socket/websocket HTTP/1.1\r\nHost: x\r\nX-Real-IP: 192.0.2.3\r\nUpgrade: websocket\r\n"+
		"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, raw.SetReadDeadline(time.Now().Add(peerPatience)))
	got := ""
	for buf := make([]byte, 4096); !strings.Contains(got, "socketId"); {
		n, err := raw.Read(buf)
		require.NoError(t, err)
		got += string(buf[:n])
	}
	assert.Contains(t, got, "101 Switching Protocols")
	require.NoError(t, srv.Close())
	client.CloseIdleConnections()
	require.NoError(t, web.Shutdown(t.Context()))
	require.ErrorIs(t, <-served, http.ErrServerClosed)
}
