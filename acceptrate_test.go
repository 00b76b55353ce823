package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// handshakes opens WebSockets in a bubble, and tells their outcomes apart.
type handshakes struct {
	t        *testing.T
	open     func() net.Conn
	admitted []net.Conn
	closed   []net.Conn // they have received the close code 1013 and have not answered it
	refused  int        // with status 503
	n        int
}

// frame returns the next message, or the code of the close frame.
func (h *handshakes) frame(conn net.Conn) (text string, code ws.StatusCode) {
	h.t.Helper()
	f, err := ws.ReadFrame(conn)
	require.NoError(h.t, err)
	if f.Header.OpCode != ws.OpClose {
		return string(f.Payload), 0
	}
	code, reason := ws.ParseCloseFrameData(f.Payload)
	assert.Equal(h.t, "too many new connections", reason)
	return "", code
}

// one makes a handshake, of which every second one is of SockJS.
func (h *handshakes) one() {
	h.t.Helper()
	h.n++
	framed := h.n%2 == 0
	path := "/pushy/socket/websocket"
	if framed {
		path = fmt.Sprintf("/pushy/socket/0/w%d/websocket", h.n)
	}
	conn, err := upgradeMemory(h.open(), &url.URL{Scheme: "ws", Host: "site", Path: path})
	var status ws.StatusError
	if errors.As(err, &status) {
		require.Equal(h.t, 503, int(status))
		h.refused++
		_ = conn.Close()
		return
	}
	require.NoError(h.t, err)
	text, code := h.frame(conn)
	if framed {
		require.Equal(h.t, "o", text)
		text, code = h.frame(conn)
		if strings.HasPrefix(text, "c") {
			require.Equal(h.t, `c[1013,"too many new connections"]`, text)
			text, code = h.frame(conn)
		}
	}
	if code != 0 {
		require.Equal(h.t, ws.StatusCode(1013), code)
		h.closed = append(h.closed, conn)
		return
	}
	require.Contains(h.t, text, "pushy:connect")
	h.admitted = append(h.admitted, conn)
}

// Acceptance test 17 of the signed API: 2,000 handshakes at AcceptRate 200. That established
// clients are not slowed down is measured by `make soak`.
func TestAcceptRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := logged()
		accepted := 0
		srv, err := pushy.New(pushy.Options{
			SecretKey: peerKey,
			Logger:    log,
			Limits:    pushy.Limits{AcceptRate: 200, Connections: 450},
			Accept: func(*http.Request) (any, error) {
				accepted++
				return nil, nil
			},
		})
		require.NoError(t, err)
		h := &handshakes{t: t, open: listenMemory(t, srv)}
		established := connectPeer(t, srv)
		established.subscribe("room", "")
		xhr := &opener{srv: srv}
		require.Equal(t, "o\n", xhr.open("192.0.2.1:5").Body.String())
		time.Sleep(time.Second)

		for i := range 2000 {
			h.one()
			if i%100 == 0 {
				require.NoError(t, srv.Publish(t.Context(), "room", "tick", i))
				established.expect(fmt.Sprintf("tick room %d", i))
			}
		}
		assert.Len(t, h.admitted, 200)
		assert.Len(t, h.closed, 200)
		assert.Equal(t, 1600, h.refused)
		assert.Equal(t, uint64(1800), srv.Stats().Refused["acceptRate"])
		assert.Equal(t, 202, srv.Stats().Connections)
		assert.Equal(t, 201, accepted, "the host's code is not called for the others")
		all := strings.Join(lines(), "\n")
		assert.Equal(t, 1, strings.Count(all, "too many new connections of this server"), all)
		assert.Contains(t, all, "acceptRate=200 closedWith1013=200")
		assert.Contains(t, all, "raise AcceptRate, or add servers")

		// SockJS over HTTP hears it with the status; a session that is open goes on.
		times := map[string]bool{}
		for range 50 {
			w := xhr.open("192.0.2.1:6")
			require.Equal(t, 503, w.Code)
			require.Contains(t, w.Body.String(), "Options.Limits.AcceptRate is 200 a second")
			require.Equal(t, "Retry-After", w.Header().Get("Access-Control-Expose-Headers"))
			after, err := strconv.Atoi(w.Header().Get("Retry-After"))
			require.NoError(t, err)
			require.Positive(t, after)
			require.LessOrEqual(t, after, 10)
			times[w.Header().Get("Retry-After")] = true
		}
		assert.Greater(t, len(times), 3, "they do not all come back at once")
		xhr.sessions = 0
		require.Contains(t, xhr.open("192.0.2.1:5").Body.String(), "pushy:connect")

		// The places of those that were closed are free at the latest when they have not answered
		// the close frame in time: 201 + 200 + 200 is more than Limits.Connections allows.
		for _, conn := range h.closed {
			go func() { _, _ = io.Copy(io.Discard, conn) }() // until the server closes it
		}
		time.Sleep(10 * time.Second)
		first := h.admitted
		h.admitted, h.closed, h.refused = nil, nil, 0
		for range 210 {
			h.one()
		}
		assert.Len(t, h.admitted, 200)
		assert.Len(t, h.closed, 10)
		assert.Equal(t, 401, srv.Stats().Connections, "the session over HTTP has ended")
		assert.Zero(t, srv.Stats().Refused["connections"])

		// A Shutdown does not wait for those longer than for others.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for _, conn := range append(first, h.admitted...) { // they read, and do not answer
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}
		began := time.Now()
		require.NoError(t, srv.Shutdown(ctx))
		assert.LessOrEqual(t, time.Since(began), 10*time.Second, "5 s for the batches, and 5 s for clients that do not answer")
	})
}

// Who uses up Limits.ConnectRate of his address uses nothing of what all share.
func TestAcceptRateAfterOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, _ := logged()
		srv, err := pushy.New(pushy.Options{
			SecretKey: peerKey,
			Logger:    log,
			Limits:    pushy.Limits{AcceptRate: 5, ConnectRate: 2, ConnectBurst: 2, Connections: 4},
		})
		require.NoError(t, err)
		defer srv.Close()
		o := &opener{srv: srv}
		for range 100 {
			o.open("192.0.2.1:5")
		}
		assert.Equal(t, map[string]uint64{"connectRate": 98}, refusals(srv))
		assert.Equal(t, 200, o.open("192.0.2.2:5").Code)
		assert.Equal(t, 200, o.open("192.0.2.3:5").Code)
		assert.Equal(t, 503, o.open("192.0.2.4:5").Code)
		assert.Equal(t, uint64(1), srv.Stats().Refused["connections"], "it has not used up AcceptRate either")
		time.Sleep(6 * time.Second) // the sessions end, because nobody asks for them
		allowed := 0
		for i := range 4 {
			if o.open(fmt.Sprintf("192.0.2.%d:5", 10+i)).Code == 200 {
				allowed++
			}
		}
		assert.Equal(t, 4, allowed)
	})
}

// Clients that come back after a Shutdown spread their returns so that AcceptRate admits them.
func TestReturnRateFitsAcceptRate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		o      pushy.Options
		within float64 // of the 101st client, in milliseconds
	}{
		{"default", pushy.Options{}, 1000},
		{"lower", pushy.Options{Limits: pushy.Limits{AcceptRate: 10}}, 10_100},
		{"higher", pushy.Options{Limits: pushy.Limits{AcceptRate: 5000}}, 1000},
		{"off", pushy.Options{Limits: pushy.Limits{AcceptRate: -1}}, 1000},
		{"the host's own", pushy.Options{ReturnRate: 20, Limits: pushy.Limits{AcceptRate: 10}}, 5050},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c.o.SecretKey = peerKey
				srv := startServer(t, c.o)
				for range 100 {
					connectUser(t, srv, "")
				}
				assert.Equal(t, c.within, lastReturn(t, srv))
			})
		})
	}
}

// lastReturn returns returnWithin of a new connection.
func lastReturn(t *testing.T, srv *pushy.Server) float64 {
	t.Helper()
	conn, err := upgradeMemory(listenMemory(t, srv)(), &url.URL{
		Scheme:   "ws",
		Host:     "site",
		Path:     "/pushy/socket/websocket",
		RawQuery: "v=2",
	})
	require.NoError(t, err)
	text, _, err := wsutil.ReadServerData(conn)
	require.NoError(t, err)
	var hello struct {
		Data struct{ ReturnWithin float64 }
	}
	require.NoError(t, json.Unmarshal(text, &hello))
	return hello.Data.ReturnWithin
}
