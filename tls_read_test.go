package pushy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// heldConn keeps what is written until flush, or during a handshake until it is read from.
type heldConn struct {
	net.Conn
	t      *testing.T
	shakes bool
	held   []byte
}

func (c *heldConn) Write(p []byte) (int, error) {
	c.held = append(c.held, p...)
	return len(p), nil
}

func (c *heldConn) Read(p []byte) (int, error) {
	if c.shakes {
		c.flush(len(c.held))
	}
	return c.Conn.Read(p)
}

// flush writes the first n bytes of what is held.
func (c *heldConn) flush(n int) {
	_, err := c.Conn.Write(c.held[:n])
	require.NoError(c.t, err)
	c.held = c.held[n:]
}

// serveEcho is serveTLS with a command that returns its data, and without a limit of its rate.
func serveEcho(t *testing.T) (addr string) {
	t.Helper()
	srv, addr := serveTLS(t, pushy.Options{Limits: pushy.Limits{CommandRate: -1}})
	pushy.Handle(srv, "echo", func(_ context.Context, _ *pushy.Conn, text string) (string, error) { return text, nil })
	return addr
}

func echo(text string) string { return fmt.Sprintf(`{"command":"echo","id":1,"data":%q}`, text) }

// The server handles the messages of a client over TLS once and in order, wherever the segments of TCP end in the
// records. A client that has sent few messages is parked after each.
func TestTLSRecordsInAnySegments(t *testing.T) {
	t.Parallel()
	addr := serveEcho(t)
	connect := func(t *testing.T) (*secureClient, *heldConn) {
		c := dialTLS(t, addr)
		held := &heldConn{
			Conn: c.under.Conn,
			t:    t,
		}
		c.under.Conn = held
		return c, held
	}
	t.Run("split at every byte", func(t *testing.T) {
		t.Parallel()
		for cut, size := 0, 1; cut < size; {
			c, held := connect(t)
			for range 3 { // it is parked after its first messages
				c.Send(echo("first"))
				first := len(held.held)
				c.Send(echo("second"))
				size = len(held.held) - first
				held.flush(first + cut%size)
				require.Contains(t, c.Receive(), `"first"`)
				held.flush(len(held.held))
				require.Contains(t, c.Receive(), `"second"`)
				cut++
			}
			require.NoError(t, c.conn.Close())
		}
	})
	t.Run("many in one segment", func(t *testing.T) {
		t.Parallel()
		c, held := connect(t)
		for range 3 {
			for i := range 40 {
				c.Send(echo(fmt.Sprint("message ", i)))
			}
			held.flush(len(held.held))
			for i := range 40 {
				require.Contains(t, c.Receive(), fmt.Sprintf(`"message %d"`, i))
			}
		}
	})
	t.Run("a message of several records", func(t *testing.T) {
		t.Parallel()
		c, held := connect(t)
		large := strings.Repeat("large ", 9_000)
		for _, part := range []int{1, 100, 16 << 10, 17 << 10, 40 << 10} {
			c.Send(echo(large))
			held.flush(part)
			held.flush(len(held.held))
			require.Contains(t, c.Receive(), large)
			c.Send(echo("small"))
			held.flush(len(held.held))
			require.Contains(t, c.Receive(), `"small"`)
		}
	})
}

// A client can send its request, and even its first message, in the segment with the last record of its handshake, or
// split at any byte.
func TestTLSDataWithTheEndOfTheHandshake(t *testing.T) {
	t.Parallel()
	addr := serveEcho(t)
	for cut, size := 0, 1; cut < size; cut += 5 {
		raw, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		held := &heldConn{
			Conn:   raw,
			t:      t,
			shakes: true,
		}
		conn := tls.Client(held, &tls.Config{
			InsecureSkipVerify: true,
			MinVersion:         tls.VersionTLS13,
		})
		require.NoError(t, conn.Handshake())
		require.NotEmpty(t, held.held, "the client's last record")
		_, err = fmt.Fprintf(conn, "GET /pushy/socket/websocket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\n"+
			"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", addr)
		require.NoError(t, err)
		require.NoError(t, ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte(echo("early"))))))
		size = len(held.held)
		held.shakes = false
		held.flush(cut)
		held.flush(len(held.held))
		in := bufio.NewReader(conn)
		response, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, response.StatusCode)
		c := &client{
			t:    t,
			conn: conn,
			in:   in,
		}
		c.connected(c.Receive())
		require.Contains(t, c.Receive(), `"early"`)
		require.NoError(t, raw.Close())
	}
}

// mostIdleTLSHeap is the limit for TestHeapOfAnIdleTLSConnection, in bytes. A connection uses 5,500, of which 1,200 are
// pushy's, and 9,000 if it keeps the buffers of its handshake.
const mostIdleTLSHeap = 6500

// An idle connection over TLS does not keep the buffers of its handshake. Of the clients only their ends of TCP remain.
func TestHeapOfAnIdleTLSConnection(t *testing.T) { // not parallel: it measures the process
	const conns = 200
	_, addr := serveTLS(t, pushy.Options{})
	dialTLS(t, addr).subscribe() // what the first connection allocates stays for the others
	before := liveHeap()
	for range conns {
		dialTLS(t, addr).subscribe()
	}
	// The reader of the last message has not parked yet, perhaps.
	deadline := time.Now().Add(clientPatience)
	each := (liveHeap() - before) / conns
	for runtime.GOOS == "linux" && each > mostIdleTLSHeap && time.Now().Before(deadline) {
		runtime.Gosched()
		each = (liveHeap() - before) / conns
	}
	t.Logf("a connection uses %d bytes of heap, with both its ends of TCP", each)
	if runtime.GOOS == "linux" {
		assert.LessOrEqual(t, each, int64(mostIdleTLSHeap))
	}
}
