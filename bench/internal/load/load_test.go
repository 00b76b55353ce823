package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/deflate"
	"github.com/gopushy/pushy/pusher"
)

// A token is found wherever the bytes are split.
func TestScan(t *testing.T) {
	t.Parallel()
	var wire []byte
	for seq := range uint32(3) {
		wire = append(wire, "a[\"@ @@1234567x "...)
		wire = payload(wire, seq, 60)
	}
	for size := 1; size <= len(wire); size++ {
		c := &client{}
		var got []uint32
		for part := range chunks(wire, size) {
			buf := append(make([]byte, room), part...)
			c.scan(buf, 60-minPayload, func(seq uint32) { got = append(got, seq) })
		}
		require.Equal(t, []uint32{0, 1, 2}, got, "cut every %d bytes", size)
	}
}

func chunks(b []byte, size int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n := min(size, len(b))
			if !yield(bytes.Clone(b[:n])) {
				return
			}
			b = b[n:]
		}
	}
}

func TestPayloadSize(t *testing.T) {
	t.Parallel()
	for _, size := range []int{minPayload, 60, 200, 4000} {
		assert.Len(t, payload(nil, 12345678, size), size)
	}
	for _, size := range []int{60, 200, 969, 1000, 4000, 1000} {
		p := (&publisher{}).jsonPayload(nil, 12345678, size)
		assert.Len(t, p, size)
		assert.True(t, json.Valid(p), "%s", p)
		seq, found := token(p)
		assert.True(t, found)
		assert.EqualValues(t, 12345678, seq)
	}
}

// Two consecutive responses are decoded wherever the bytes are split.
func TestHTTPBody(t *testing.T) {
	t.Parallel()
	const one = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1A\r\n" + "abcdefghijklmnopqrstuvwxyz" + "\r\n0\r\n\r\n"
	for size := 1; size <= 2*len(one); size++ {
		h := &httpBody{}
		var body []byte
		for part := range chunks([]byte(one+one), size) {
			got, err := h.decode(part)
			require.NoError(t, err)
			body = append(body, got...)
		}
		require.True(t, h.ended)
		require.Equal(t, strings.Repeat("abcabcdefghijklmnopqrstuvwxyz", 2), string(body))

		h, body = &httpBody{}, nil
		for part := range chunks([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), size) {
			got, err := h.decode(part)
			require.NoError(t, err)
			body = append(body, got...)
		}
		require.True(t, h.ended)
		require.Equal(t, "abc", string(body))
	}
	for _, wrong := range []string{"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"} {
		_, err := (&httpBody{}).decode([]byte(wrong))
		assert.Error(t, err, wrong)
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h Histogram
	for i := range 10_000 {
		h.Add(time.Duration(i+1)*time.Microsecond, 1)
	}
	for q, want := range map[float64]time.Duration{.5: 5 * time.Millisecond, .99: 9900 * time.Microsecond, .0: time.Microsecond} {
		assert.InEpsilon(t, want, h.Quantile(q), .02, "quantile %g", q)
	}
	assert.Equal(t, 10*time.Millisecond, h.Max())
	assert.EqualValues(t, 10_000, h.Total())
	h.Add(-time.Second, 1) // a clock that steps must not end the run
	h.Add(1000*time.Hour, 1)
	assert.Equal(t, 1000*time.Hour, h.Max())
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, in string
		whole    bool
		wrong    bool
	}{
		{"whole", "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", true, false},
		{"head", "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n", false, false},
		{"body", "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\no", false, false},
		{"empty", "HTTP/1.1 204 No Content\r\n\r\n", true, false},
		{"refused", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", false, true},
		{"noLength", "HTTP/1.1 200 OK\r\n\r\n", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole, err := complete([]byte(c.in))
			assert.Equal(t, c.whole, whole)
			assert.Equal(t, c.wrong, err != nil, "%v", err)
		})
	}
}

func configFor(t *testing.T, web *httptest.Server) Config {
	t.Helper()
	addr, err := netip.ParseAddrPort(web.Listener.Addr().String())
	require.NoError(t, err)
	return Config{
		Addr: addr, PID: os.Getpid(), TLS: strings.HasPrefix(web.URL, "https"),
		Publishing: Trigger, Dialect: Framed, Clients: 20, Channels: 1,
	}
}

// All dialects of pushy work, and the figures are plausible.
func TestPushy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		dialect  Dialect
		tls      bool
		channels int
		load     Load
	}{
		{"framed", Framed, false, 1, Load{Size: 200, Window: 8}},
		{"bare", Bare, false, 1, Load{Size: 60, Window: 64}},
		{"channels", Framed, false, 10, Load{Size: 4000, Window: 8}},
		{"tls", Framed, true, 1, Load{Size: 4000, Window: 8}},
		{"rate", Framed, false, 1, Load{Size: 200, Rate: 500}},
		{"streaming", Streaming, false, 1, Load{Size: 4000, Window: 8}}, // many responses
		{"polling", Polling, false, 1, Load{Size: 200, Window: 8}},
		{"polling, TLS", Polling, true, 1, Load{Size: 4000, Window: 8}},
		{"pusher", Pusher, false, 1, Load{Size: 200, Window: 8}},
		{"mixed", Mixed, false, 1, Load{Size: 200, Window: 8}},
		{"json", Framed, false, 1, Load{Size: 1000, JSON: true, Window: 8}},
		{"deflated", Deflated, false, 1, Load{Size: 1000, JSON: true, Window: 8}},
		{"deflated, channels", Deflated, false, 10, Load{Size: 4000, JSON: true, Window: 8}},
		{"deflated, TLS", Deflated, true, 1, Load{Size: 4000, JSON: true, Window: 8}},
		{"halved", Halved, false, 1, Load{Size: 1000, JSON: true, Window: 8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv, err := pushy.New(pushy.Options{
				SecretKey: Secret,
				Channel:   pusher.Channels(nil),
				Compress:  deflate.From(512),
			})
			require.NoError(t, err)
			adapter, err := pusher.New(srv, pusher.Options{App: "1", Key: PusherKey, Secret: "the secret of the application"})
			require.NoError(t, err)
			mux := http.NewServeMux()
			mux.Handle("/", srv)
			mux.Handle("/app/", adapter.Handler())
			web := httptest.NewUnstartedServer(mux)
			if c.tls {
				web.StartTLS()
			} else {
				web.Start()
			}
			defer web.Close()
			defer srv.Close()
			cfg := configFor(t, web)
			cfg.Dialect, cfg.Channels = c.dialect, c.channels
			clients, err := Connect(t.Context(), cfg)
			require.NoError(t, err)
			defer clients.Close()
			assert.Equal(t, 20, srv.Stats().Connections)
			c.load.Warm, c.load.Time = 50*time.Millisecond, 300*time.Millisecond
			r, err := clients.Run(c.load)
			require.NoError(t, err)
			assert.Positive(t, r.Events)
			assert.Equal(t, r.Events*int64(20/c.channels), r.Deliveries)
			assert.Positive(t, r.CPU)
			assert.Positive(t, r.P50)
			assert.LessOrEqual(t, r.P50, r.P99)
			assert.Equal(t, c.dialect == Deflated || c.dialect == Halved, srv.Stats().Compressed.Events > 0)
			if c.dialect == Deflated {
				assert.Less(t, r.Bytes, r.Deliveries*int64(c.load.Size)*6/10)
			} else if c.dialect != Halved {
				assert.Greater(t, r.Bytes, r.Deliveries*int64(c.load.Size))
			}
		})
	}
}

func TestTriggers(t *testing.T) {
	t.Parallel()
	srv, err := pushy.New(pushy.Options{SecretKey: Secret})
	require.NoError(t, err)
	web := httptest.NewServer(srv)
	defer web.Close()
	defer srv.Close()
	var r Requests
	for r.Count == 0 { // on a busy machine, none can be answered within so short a time
		r, err = Triggers(configFor(t, web), 4, 200, 20*time.Millisecond, 100*time.Millisecond)
		require.NoError(t, err)
	}
	assert.LessOrEqual(t, r.Count, int64(srv.Stats().Published))
}

// A server that loses, duplicates or reorders events, or disconnects a client, is detected.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		send  func(conn net.Conn, n int, frame []byte, last *[]byte) // event n to one of the clients
		error string
	}{
		{"lost", func(conn net.Conn, n int, frame []byte, _ *[]byte) {
			if n != 3 {
				_, _ = conn.Write(frame)
			}
		}, "a client got event 4 where 3 was to come"},
		{"doubled", func(conn net.Conn, n int, frame []byte, _ *[]byte) {
			_, _ = conn.Write(frame)
			if n == 3 {
				_, _ = conn.Write(frame)
			}
		}, "a client got event 3 where 4 was to come"},
		{"swapped", func(conn net.Conn, n int, frame []byte, last *[]byte) {
			if n == 3 {
				*last = frame
				return
			}
			_, _ = conn.Write(append(frame, *last...))
			*last = nil
		}, "a client got event 4 where 3 was to come"},
		{"cut", func(conn net.Conn, n int, frame []byte, _ *[]byte) {
			if n == 3 {
				_ = conn.Close()
				return
			}
			_, _ = conn.Write(frame)
		}, "a client lost its connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			web := httptest.NewServer(faulty(c.send))
			defer web.Close()
			cfg := configFor(t, web)
			cfg.Dialect, cfg.Publishing, cfg.Clients = Plain, Post, 3
			clients, err := Connect(t.Context(), cfg)
			require.NoError(t, err)
			defer clients.Close()
			_, err = clients.Run(Load{Size: 200, Window: 8, Time: time.Second})
			require.ErrorContains(t, err, c.error)
		})
	}
}

// faulty sends events to all clients; to the first client it sends them with send.
func faulty(send func(net.Conn, int, []byte, *[]byte)) http.Handler {
	var mu sync.Mutex
	var conns []net.Conn
	var last []byte
	n := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		// An event that is published after the client has received the response is sent to it.
		mu.Lock()
		defer mu.Unlock()
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err == nil {
			conns = append(conns, conn)
		}
	})
	mux.HandleFunc("POST /publish", func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		frame := ws.MustCompileFrame(ws.NewTextFrame(data))
		mu.Lock()
		defer mu.Unlock()
		for i, conn := range conns {
			if i == 0 {
				send(conn, n, bytes.Clone(frame), &last)
			} else {
				_, _ = conn.Write(frame)
			}
		}
		n++
		_, _ = fmt.Fprint(w, "ok")
	})
	return mux
}
