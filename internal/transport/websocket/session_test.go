package websocket_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/transporttest"
)

// sockjs.md row 5: a message of 512 MiB is refused because of its header, or when its fragments
// exceed the limit, with limited memory. A client that sends all of it before it reads still
// receives the reason. Not parallel, because it measures the heap.
func TestRow5HugeMessage(t *testing.T) {
	size := 512 << 20
	if testing.Short() {
		size = 128 << 20
	}
	cfg := transporttest.Config()
	cfg.CloseTimeout = 2 * time.Minute
	piece := make([]byte, 1<<20) // the content does not matter
	// sendAll sends size bytes and returns the largest live heap in that time.
	sendAll := func(c *client, head func(i int) []byte) (live uint64) {
		for i := range size / len(piece) {
			if h := head(i); h != nil {
				c.send(h)
			}
			_, err := c.Write(piece)
			require.NoError(c.t, err)
			if i%64 == 0 {
				live = max(live, transporttest.LiveHeap())
			}
		}
		return live
	}
	eight := func(n int) []byte { return binary.BigEndian.AppendUint64([]byte{127}, uint64(n)) }
	tests := []struct {
		name string
		head func(i int) []byte
		tail []byte
	}{
		{"one frame", func(i int) []byte {
			if i == 0 {
				return rawFrame(fin|opText, eight(size), "")
			}
			return nil
		}, nil},
		{"fragments", func(i int) []byte {
			if i == 0 {
				return rawFrame(opText, eight(len(piece)), "")
			}
			return rawFrame(opCont, eight(len(piece)), "")
		}, frame(fin|opCont, "")},
	}
	for _, f := range forms {
		for _, tt := range tests {
			t.Run(f.name+" "+tt.name, func(t *testing.T) {
				h := newHost(f.framed, cfg)
				c := dial(t, h.start(t)).connect()
				before := transporttest.LiveHeap()
				assert.Less(t, sendAll(c, tt.head), before+8<<20)
				for _, want := range append(f.opening(), f.closing(1009, "message too big")...) {
					c.expect(want)
				}
				c.send(tt.tail, closeFrame(1009, ""))
				c.expectEnd()
				s := h.Conn(t)
				s.Wait(t)
				assert.Empty(t, s.Got)
			})
		}
	}
}

// A header with the largest allowed length allocates nothing before the bytes arrive, and a
// session that waits for them has no buffer. Not parallel, because it measures the heap.
func TestClaimedLengthAllocatesNothing(t *testing.T) {
	const conns = 200
	h := newHost(false, transporttest.Config())
	addr := h.start(t)
	clients := make([]*client, conns)
	for i := range clients {
		clients[i] = dial(t, addr).connect()
	}
	before := transporttest.LiveHeap()
	for _, c := range clients {
		c.send(frame(fin|opPing, ""), rawFrame(fin|opText, lengthBytes(64<<10), "a"))
	}
	for _, c := range clients {
		c.expect("pong:")
	}
	assert.Less(t, transporttest.LiveHeap(), before+conns*1<<10)
}

// sockjs.md row 11: a client that disconnects is detected at once if the reader waits, and by
// the next writes if a command blocks the reader.
func TestRow11ClientLeaves(t *testing.T) {
	t.Parallel()
	t.Run("reader waits", func(t *testing.T) {
		t.Parallel()
		h := newHost(true, transporttest.Config())
		c := dial(t, h.start(t)).connect()
		c.expect("text:o")
		require.NoError(t, c.Close())
		s := h.Conn(t)
		s.Wait(t)
		assert.Equal(t, session.Lost, s.End.Cause)
		assert.Equal(t, 1006, s.End.Code)
	})
	t.Run("reader is busy", func(t *testing.T) {
		t.Parallel()
		sess, c := connectedSession(t, true)
		cut := make(chan int, 1)
		out := fanout.New(fanout.Config{MaxBytes: 1 << 20, MaxTotal: 1 << 20, WriteTimeout: time.Second}).
			NewOutbox(sess, func(code int, _ string) { cut <- code; sess.Stop() })
		sess.Start(out)
		require.NoError(t, c.Close())
		for deadline := time.After(patience); ; {
			out.Send(fanout.NewFrame([]byte("x")))
			select {
			case code := <-cut:
				assert.Equal(t, 1006, code)
			case <-deadline:
				require.Fail(t, "not noticed")
			case <-time.After(time.Millisecond):
				continue
			}
			break
		}
		_, err := sess.Receive()
		require.Error(t, err)
		sess.Linger()
	})
}

// connectedSession returns both ends of a connection. The test uses the Session itself.
func connectedSession(t testing.TB, framed bool) (session.Session, *client) {
	t.Helper()
	h := newHost(framed, transporttest.Config())
	sessions := make(chan session.Session, 1)
	srv := httptest.NewServer(upgrader(h, sessions))
	t.Cleanup(srv.Close)
	c := dial(t, srv.Listener.Addr().String()).connect()
	sess := <-sessions
	t.Cleanup(sess.Abort)
	return sess, c
}

// Bytes that the kernel does not accept at once are written within a deadline, completely and
// in order, and the deadline is cleared afterwards.
func TestSlowReaderGetsAll(t *testing.T) {
	t.Parallel()
	cfg := transporttest.Config()
	cfg.WriteTimeout = 5 * time.Second
	s, c := openOver(t, newHost(false, cfg), false)
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	for range 2 {
		require.True(t, s.Out.Send(fanout.NewFrame([]byte(big))))
		<-time.After(50 * time.Millisecond)
		c.expect("text:" + big)
	}
	<-time.After(cfg.WriteTimeout + 100*time.Millisecond)
	s.Out.Send(fanout.NewFrame([]byte("last")))
	c.expect("text:last")
	c.send(closeFrame(1000, ""))
	assert.Equal(t, []string{"close:1000:"}, c.rest())
}

// A client that does not read is disconnected when a write takes too long, and nothing remains
// queued for it.
func TestStuckClientIsCut(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		tls  bool
	}{{"tcp", false}, {"tls", true}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := transporttest.Config()
			cfg.WriteTimeout = time.Second
			cfg.CloseTimeout = time.Hour
			s, c := openOver(t, newHost(true, cfg), tt.tls)
			c.expect("text:o") // before the big frame, otherwise the two exceed the limit
			s.Out.Send(fanout.NewFrame(stuckText))
			s.Wait(t)
			assert.Equal(t, session.Stopped, s.End.Cause)
		})
	}
}

// stuckText is larger than the buffers of the sockets of openOver.
var stuckText = bytes.Repeat([]byte("x"), 4<<20)

// openOver connects a client over sockets with small buffers, independently of the settings of
// the system, so that writes to a client that does not read soon block. Issue 11, number 28.
func openOver(t *testing.T, h *host, overTLS bool) (*transporttest.Conn, *client) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		if state != http.StateNew {
			return
		}
		if over, ok := conn.(*tls.Conn); ok {
			conn = over.NetConn()
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetWriteBuffer(64 << 10)
		}
	}
	if !overTLS {
		srv.Start()
		t.Cleanup(srv.Close)
		c := dial(t, srv.Listener.Addr().String()).connect()
		require.NoError(t, c.Conn.(*net.TCPConn).SetReadBuffer(64<<10))
		return h.Conn(t), c
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	conn, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own server
	require.NoError(t, err)
	require.NoError(t, conn.NetConn().(*net.TCPConn).SetReadBuffer(64<<10))
	c := newClient(t, conn).connect()
	return h.Conn(t), c
}

// Abort ends a Write that is blocked, and does not block itself.
func TestAbortEndsStuckWrite(t *testing.T) {
	t.Parallel()
	for _, overTLS := range []bool{false, true} {
		t.Run(map[bool]string{false: "tcp", true: "tls"}[overTLS], func(t *testing.T) {
			t.Parallel()
			cfg := transporttest.Config()
			cfg.WriteTimeout, cfg.CloseTimeout = time.Hour, time.Hour
			s, _ := openOver(t, newHost(false, cfg), overTLS)
			s.Out.Send(fanout.NewFrame(stuckText))
			<-time.After(20 * time.Millisecond)
			s.Session.Abort()
			s.Session.Abort()
			s.Wait(t)
			assert.Equal(t, session.Lost, s.End.Cause)
			select {
			case <-s.Out.Done():
			case <-time.After(patience):
				assert.Fail(t, "write did not end")
			}
		})
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	t.Run("before receive, with messages waiting", func(t *testing.T) {
		t.Parallel()
		sess, c := connectedSession(t, false)
		out := fanout.New(fanout.Config{MaxBytes: 1 << 20, MaxTotal: 1 << 20, WriteTimeout: time.Second}).NewOutbox(sess, func(int, string) {})
		sess.Start(out)
		c.send(frame(fin|opText, "one"), frame(fin|opText, "two"))
		p, err := sess.Receive()
		require.NoError(t, err)
		assert.Equal(t, "one", string(p))
		out.Close(3001, "shutting down")
		sess.Stop()
		_, first := sess.Receive()
		var end *session.CloseError
		require.ErrorAs(t, first, &end)
		assert.Equal(t, session.Stopped, end.Cause)
		sess.Stop()
		_, again := sess.Receive()
		assert.Same(t, end, again)
		c.expect("close:3001:shutting down")
		c.send(closeFrame(3001, ""))
		sess.Linger()
		sess.Stop()
		sess.Abort()
		c.expectEnd()
	})
	t.Run("while receiving", func(t *testing.T) {
		t.Parallel()
		for _, f := range forms {
			h := newHost(f.framed, transporttest.Config())
			c := dial(t, h.start(t)).connect()
			s := h.Conn(t)
			// In the other order, the session may still receive the answer of a client to the close frame.
			s.Session.Stop()
			s.Out.Close(3500, "removed")
			for _, want := range append(f.opening(), f.closing(3500, "removed")...) {
				c.expect(want)
			}
			// Messages that arrive after the server has stopped are discarded.
			c.send(frame(opText, "half a "), frame(fin|opPing, ""), frame(fin|opCont, "message"), closeFrame(3500, "removed"))
			c.expectEnd()
			s.Wait(t)
			assert.Equal(t, session.Stopped, s.End.Cause)
			assert.Empty(t, s.Got)
		}
	})
}

// Calls all methods that any goroutine may call, while messages are sent and received.
func TestConcurrentEnds(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			cfg := transporttest.Config()
			cfg.Heartbeat = time.Millisecond
			cfg.CloseTimeout = 50 * time.Millisecond
			h := newHost(f.framed, cfg)
			addr := h.start(t)
			var wg sync.WaitGroup
			for i := range 40 {
				c := dial(t, addr)
				c.send([]byte(handshake))
				s := h.Conn(t)
				defer s.Wait(t)
				if _, err := http.ReadResponse(c.r, nil); err != nil {
					continue // on a busy machine, its heartbeats have ended it already
				}
				go func() {
					for {
						if _, err := c.readFrame(); err != nil {
							return
						}
					}
				}()
				for _, end := range []func(){
					s.Session.Stop, s.Session.Stop, s.Session.Abort, func() { s.Stop(3001, "bye") }, s.Out.Discard,
					func() { s.Out.Close(3008, "slow"); s.Session.Stop() },
					func() {
						_, _ = c.Write(cat(frame(fin|opPing, "p"), frame(fin|opText, f.text("x")), closeFrame(1000, "")))
					},
					func() { _ = c.Close() },
				}[i%3:] {
					wg.Add(1)
					go func() {
						defer wg.Done()
						end()
					}()
				}
			}
			wg.Wait()
		})
	}
}

func TestCloseReasons(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 100)
	tests := []struct {
		name   string
		code   int
		reason string
		bare   string
	}{
		{"plain", 3001, "shutting down", "close:3001:shutting down"},
		{"cut between runes", 3000, long, "close:3000:" + long[:122]},
		{"not UTF-8", 3000, "a\xffb", "close:3000:a\uFFFDb"},
		{"1005 is not sent", 1005, "x", "close:"},
		{"1006 is not sent", 1006, "x", "close:"},
		{"1015 is not sent", 1015, "x", "close:"},
		{"0 is not sent", 0, "", "close:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, f := range forms {
				h := newHost(f.framed, transporttest.Config())
				c := dial(t, h.start(t)).connect()
				s := h.Conn(t)
				s.Stop(tt.code, tt.reason)
				want := f.opening()
				if f.framed && tt.bare != "close:" {
					want = append(want, f.closing(tt.code, strings.ToValidUTF8(tt.reason, "\uFFFD"))[0])
				}
				for _, w := range append(want, tt.bare) {
					c.expect(w)
				}
				c.send(closeFrame(1000, ""))
				c.expectEnd()
			}
		})
	}
}
