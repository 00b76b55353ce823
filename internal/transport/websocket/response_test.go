package websocket_test

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/transporttest"
	"github.com/gopushy/pushy/internal/transport/websocket"
)

// writeCounter is the server's end of a connection, and records its writes.
type writeCounter struct {
	net.Conn
	mu     sync.Mutex
	writes []string
}

func (c *writeCounter) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, string(p))
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// hijackable is a ResponseWriter of which only Hijack is used.
type hijackable struct {
	http.ResponseWriter
	conn net.Conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

const (
	response = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	responseKey = "dGhlIHNhbXBsZSBub25jZQ=="
)

// upgraded returns a Session that is not started, and the two ends of its connection.
func upgraded(t *testing.T, h *host) (session.Session, *writeCounter, *client) {
	server, conn := net.Pipe()
	c := newClient(t, conn)
	w := &writeCounter{Conn: server}
	sess, err := websocket.Upgrade(hijackable{conn: w}, nil, responseKey, h.cfg)
	require.NoError(t, err)
	return sess, w, c
}

func (c *client) readResponse() {
	c.t.Helper()
	got := make([]byte, len(response))
	for n := 0; n < len(got); {
		m, err := c.r.Read(got[n:])
		require.NoError(c.t, err)
		n += m
	}
	require.Equal(c.t, response, string(got))
}

// The response to the handshake and the first frames are one write.
func TestResponseAndFirstFramesAreOneWrite(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHost(f.framed, transporttest.Config())
				h.Mute = true
				sess, w, c := upgraded(t, h)
				s := h.Open(sess)
				s.Out.Hold()
				sess.Start(s.Out)
				require.True(t, s.Out.Send(fanout.NewFrame([]byte("hello"))))
				synctest.Wait()
				require.Empty(t, w.writes, "before Release")
				s.Out.Release()
				c.readResponse()
				for _, want := range f.opening() {
					c.expect(want)
				}
				c.expect(f.echo("hello"))
				synctest.Wait()
				assert.Len(t, w.writes, 1)
				sess.Abort()
				s.Out.Discard()
				_, err := sess.Receive()
				require.Error(t, err)
				sess.Linger()
			})
		})
	}
}

// With RespondFirst, the response is written before the Session starts.
func TestRespondFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := transporttest.Config()
		cfg.RespondFirst = true
		h := newHost(true, cfg)
		server, conn := net.Pipe()
		c := newClient(t, conn)
		sessions := make(chan session.Session, 1)
		go func() {
			sess, err := websocket.Upgrade(hijackable{conn: server}, nil, responseKey, h.cfg)
			assert.NoError(t, err)
			sessions <- sess
		}()
		c.readResponse()
		sess := <-sessions
		require.NotNil(t, sess)
		sess.Abort()
		_, err := sess.Receive()
		require.Error(t, err)
		sess.Linger()
	})
}

// A client that is disconnected before anything was written receives the response before the
// close frame: without it the frame would be no HTTP.
func TestResponsePrecedesCloseFrame(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		end  func(s *transporttest.Conn)
	}{
		{
			name: "closed before Start",
			end: func(s *transporttest.Conn) {
				s.Out.Close(4001, "go")
				s.Session.Start(s.Out)
			},
		},
		{
			name: "closed after Start",
			end: func(s *transporttest.Conn) {
				s.Session.Start(s.Out)
				s.Out.Close(4001, "go")
			},
		},
		{
			name: "closed while it is held",
			end: func(s *transporttest.Conn) {
				s.Out.Hold()
				s.Session.Start(s.Out)
				s.Out.Close(4001, "go")
				s.Out.Release()
			},
		},
		{
			name: "too many bytes are queued",
			end: func(s *transporttest.Conn) {
				s.Out.Hold()
				s.Session.Start(s.Out)
				for s.Out.Send(fanout.NewFrame(make([]byte, 300<<10))) {
				}
				s.Out.Release()
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHost(false, transporttest.Config())
				sess, _, c := upgraded(t, h)
				s := h.Open(sess)
				tt.end(s)
				c.readResponse()
				frame, err := c.readFrame()
				require.NoError(t, err)
				assert.Contains(t, []string{"close:4001:go", "close:3008:slow consumer"}, frame.String())
				sess.Stop()
				_, err = sess.Receive()
				require.Error(t, err)
				_ = c.Close()
				sess.Linger()
			})
		})
	}
}

// The error of a response that cannot be written is returned for the log.
func TestResponseCannotBeWritten(t *testing.T) {
	t.Parallel()
	cfg := transporttest.Config()
	cfg.RespondFirst = true
	h := newHost(false, cfg)
	server, conn := net.Pipe()
	require.NoError(t, conn.Close())
	_, err := websocket.Upgrade(hijackable{conn: server}, nil, responseKey, h.cfg)
	require.ErrorContains(t, err, "websocket handshake")
	_, err = server.Write(nil)
	assert.Error(t, err, "the connection is closed")
}
