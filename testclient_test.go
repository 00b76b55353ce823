package pushy_test

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/gopushy/pushy"
	"github.com/stretchr/testify/require"
)

// clientPatience is how long a client waits for what must come.
const clientPatience = 60 * time.Second

// serve runs a Server of these options, with the secret key "secret" unless
// they name one, on 127.0.0.1 until the test ends.
func serve(t *testing.T, options pushy.Options) (srv *pushy.Server, baseURL string) {
	t.Helper()
	if options.SecretKey == "" {
		options.SecretKey = "secret"
	}
	if options.Logger == nil {
		options.Logger = testLogger(t)
	}
	srv, err := pushy.New(options)
	require.NoError(t, err)
	return srv, serveHandler(t, srv, srv)
}

// serveHandler serves handler, which has srv in it, until the test ends.
func serveHandler(t *testing.T, srv *pushy.Server, handler http.Handler) (baseURL string) {
	t.Helper()
	web := httptest.NewServer(handler)
	t.Cleanup(func() {
		_ = srv.Close() // first: the web server does not know of WebSockets
		web.Close()
	})
	return web.URL
}

// client is a WebSocket client, framed as SockJS does or bare. Its methods fail
// the test when what they wait for does not come; they are for the test's own
// goroutine.
type client struct {
	t      *testing.T
	conn   net.Conn
	in     io.Reader
	framed bool
	queue  []string // messages of a frame that are not received yet

	deflates   bool // the server has accepted permessage-deflate
	compressed int  // frames that arrived compressed

	id       string // the socketId of pushy:connect
	protocol string
}

// dialOption changes how a client connects.
type dialOption func(*dialing)

type dialing struct {
	path    string
	header  http.Header
	deflate bool
}

// withDeflate offers permessage-deflate.
func withDeflate(d *dialing) { d.deflate = true }

// withHeader adds a request header, such as Origin.
func withHeader(name, value string) dialOption {
	return func(d *dialing) { d.header.Add(name, value) }
}

// withPath connects under another path than /pushy/socket/….
func withPath(p string) dialOption {
	return func(d *dialing) { d.path = p }
}

// dial connects and receives pushy:connect.
func dial(t *testing.T, baseURL string, framed bool, options ...dialOption) *client {
	t.Helper()
	c, err := upgrade(t, baseURL, framed, options...)
	require.NoError(t, err, "upgrade")
	if framed {
		require.Equal(t, "o", c.Next(), "first frame")
	}
	c.connected(c.Receive())
	return c
}

// connected takes id and protocol from the text of pushy:connect.
func (c *client) connected(text string) {
	c.t.Helper()
	var connect struct {
		Event string
		Data  struct{ SocketID, Protocol string }
	}
	require.NoError(c.t, json.Unmarshal([]byte(text), &connect), "pushy:connect: %s", text)
	require.Equal(c.t, "pushy:connect", connect.Event)
	c.id, c.protocol = connect.Data.SocketID, connect.Data.Protocol
}

var sessions atomic.Int64

// upgrade connects and receives nothing. An answer other than 101 is the error,
// a ws.StatusError.
func upgrade(t *testing.T, baseURL string, framed bool, options ...dialOption) (*client, error) {
	t.Helper()
	d := dialing{path: "/pushy/socket/websocket", header: http.Header{}}
	if framed {
		d.path = "/pushy/socket/000/s" + strconv.FormatInt(sessions.Add(1), 10) + "/websocket"
	}
	for _, option := range options {
		option(&d)
	}
	dialer := ws.Dialer{Timeout: clientPatience, Header: ws.HandshakeHeaderHTTP(d.header)}
	if d.deflate {
		dialer.Extensions = append(dialer.Extensions, wsflate.Parameters{ClientMaxWindowBits: 15}.Option())
	}
	conn, rest, answer, err := dialer.Dial(t.Context(), "ws"+strings.TrimPrefix(baseURL, "http")+d.path)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	if rest == nil {
		rest = bufio.NewReader(conn)
	}
	return &client{t: t, conn: conn, in: rest, framed: framed, deflates: len(answer.Extensions) > 0}, nil
}

// Send sends one message of the protocol, such as {"command":…}.
func (c *client) Send(text string) {
	c.t.Helper()
	if c.framed {
		quoted, err := json.Marshal([]string{text})
		require.NoError(c.t, err)
		text = string(quoted)
	}
	c.SendFrame(ws.OpText, text)
}

// SendFrame sends one whole WebSocket message as it is.
func (c *client) SendFrame(op ws.OpCode, payload string) {
	c.t.Helper()
	require.NoError(c.t, c.conn.SetWriteDeadline(time.Now().Add(clientPatience)))
	frame := ws.MaskFrameInPlace(ws.NewFrame(op, true, []byte(payload)))
	require.NoError(c.t, ws.WriteFrame(c.conn, frame), "send %s", payload)
}

// Receive returns the next message of the protocol.
func (c *client) Receive() string {
	c.t.Helper()
	if !c.framed {
		return c.Next()
	}
	for len(c.queue) == 0 {
		frame := c.Next()
		require.Equal(c.t, byte('a'), frame[0], "frame %s", frame)
		require.NoError(c.t, json.Unmarshal([]byte(frame[1:]), &c.queue), "frame %s", frame)
	}
	text := c.queue[0]
	c.queue = c.queue[1:]
	return text
}

// Next returns the next WebSocket message as it came: with framing, "o", "h",
// a[…] or c[…].
func (c *client) Next() string {
	c.t.Helper()
	frame, err := c.read()
	require.NoError(c.t, err, "no message came")
	if frame.Header.OpCode == ws.OpClose {
		code, reason := ws.ParseCloseFrameData(frame.Payload)
		require.FailNow(c.t, "closed where a message was due", "%d %s", code, reason)
	}
	require.NotEmpty(c.t, frame.Payload, "empty message")
	return string(frame.Payload)
}

// Closed returns how the server ends the connection, which must be what comes
// next, and ends it on this side too. Without a close frame the code is 1006.
func (c *client) Closed() (code int, reason string) {
	c.t.Helper()
	frame, err := c.read()
	if err != nil {
		require.NotErrorIs(c.t, err, errTimeout, "the server does not close")
		return 1006, ""
	}
	require.Equal(c.t, ws.OpClose, frame.Header.OpCode, "a message came where a close was due: %s", frame.Payload)
	status, reason := ws.ParseCloseFrameData(frame.Payload)
	_ = ws.WriteFrame(c.conn, ws.MaskFrame(ws.NewCloseFrame(frame.Payload))) // the server may be gone
	_ = c.conn.Close()
	return int(status), reason
}

// Close says good-bye with a code and returns the server's answer, which may
// come after messages that were on their way.
func (c *client) Close(code int, reason string) (answer int) {
	c.t.Helper()
	c.SendFrame(ws.OpClose, string(ws.NewCloseFrameBody(ws.StatusCode(code), reason)))
	for {
		frame, err := c.read()
		require.NoError(c.t, err, "no close frame came")
		if frame.Header.OpCode == ws.OpClose {
			_ = c.conn.Close()
			status, _ := ws.ParseCloseFrameData(frame.Payload)
			return int(status)
		}
	}
}

// read returns the next frame and answers pings meanwhile.
func (c *client) read() (ws.Frame, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(clientPatience)); err != nil {
		return ws.Frame{}, err
	}
	for {
		frame, err := ws.ReadFrame(c.in)
		if err == nil && frame.Header.Rsv1() && c.deflates {
			frame, err = wsflate.DecompressFrame(frame)
			c.compressed++
		}
		if err != nil || frame.Header.OpCode.IsData() || frame.Header.OpCode == ws.OpClose {
			return frame, err
		}
		if frame.Header.OpCode == ws.OpPing {
			if err := ws.WriteFrame(c.conn, ws.MaskFrame(ws.NewPongFrame(frame.Payload))); err != nil {
				return frame, err
			}
		}
	}
}

// errTimeout is what reading ends with when nothing comes.
var errTimeout = os.ErrDeadlineExceeded

// testLogger writes a Server's log to the test's output.
func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
