package websocket_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
	"github.com/gopushy/pushy/internal/transport/sockjs"
	"github.com/gopushy/pushy/internal/transport/transporttest"
	"github.com/gopushy/pushy/internal/transport/websocket"
)

// patience is the longest wait in tests over real sockets.
const patience = transporttest.Patience

// host serves WebSockets of one form.
type host struct {
	*transporttest.Host
	cfg  *websocket.Config
	errs chan error // of failed upgrades
}

func newHost(framed bool, cfg transport.Config) *host {
	h := &host{
		Host: transporttest.NewHost(cfg.WriteTimeout),
		cfg:  websocket.New(websocket.Config{Config: cfg}),
		errs: make(chan error, 100),
	}
	if framed {
		h.cfg = sockjs.Framed(cfg)
	}
	return h
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if sess := h.upgrade(w, r); sess != nil {
		go h.Serve(sess) // TestMain checks that it ends
	}
}

func (h *host) upgrade(w http.ResponseWriter, r *http.Request) session.Session {
	key, refused := websocket.CheckHandshake(r)
	if refused != nil {
		refused.Write(w)
		h.errs <- fmt.Errorf("websocket handshake: %s", refused.Text)
		return nil
	}
	sess, err := websocket.Upgrade(w, r, key, h.cfg)
	if err != nil {
		h.errs <- err
		return nil
	}
	return sess
}

// start serves h on a real socket.
func (h *host) start(t testing.TB) (addr string) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// client is the client of a test: it sends bytes and receives frames.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

const handshake = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

func dial(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t: t, Conn: conn, r: bufio.NewReader(conn)}
}

// connect makes the handshake, and sends extra bytes directly after it.
func (c *client) connect(extra ...byte) *client {
	c.t.Helper()
	c.connectWith("", extra...)
	return c
}

// connectWith is connect with an offer of extensions. It returns the extensions that are accepted.
func (c *client) connectWith(offer string, extra ...byte) (accepted string) {
	c.t.Helper()
	lines := handshake
	if offer != "" {
		lines = strings.TrimSuffix(handshake, "\r\n") + "Sec-WebSocket-Extensions: " + offer + "\r\n\r\n"
	}
	c.send([]byte(lines), extra)
	res, err := http.ReadResponse(c.r, nil)
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusSwitchingProtocols, res.StatusCode)
	return strings.Join(res.Header.Values("Sec-WebSocket-Extensions"), ",")
}

func (c *client) send(parts ...[]byte) {
	c.t.Helper()
	_, err := c.Write(slices.Concat(parts...))
	require.NoError(c.t, err)
}

// wireFrame is a frame from the server. Its text is "op:payload", and for a
// close frame "close:code:reason".
type wireFrame struct {
	op      byte
	payload []byte
}

func (f wireFrame) String() string {
	switch f.op {
	case 1:
		return "text:" + string(f.payload)
	case 8:
		if len(f.payload) < 2 {
			return "close:" + string(f.payload)
		}
		return fmt.Sprintf("close:%d:%s", binary.BigEndian.Uint16(f.payload), f.payload[2:])
	case 9:
		return "ping:" + string(f.payload)
	case 10:
		return "pong:" + string(f.payload)
	}
	return fmt.Sprintf("opcode %d", f.op)
}

func (c *client) readFrame() (wireFrame, error) {
	var head [10]byte
	if _, err := io.ReadFull(c.r, head[:2]); err != nil {
		return wireFrame{}, err
	}
	if head[0]&0x70 != 0 || head[0]&0x80 == 0 || head[1]&0x80 != 0 {
		return wireFrame{}, fmt.Errorf("server sent a frame starting % x", head[:2])
	}
	n := int64(head[1])
	switch n {
	case 126:
		if _, err := io.ReadFull(c.r, head[2:4]); err != nil {
			return wireFrame{}, err
		}
		n = int64(binary.BigEndian.Uint16(head[2:]))
	case 127:
		if _, err := io.ReadFull(c.r, head[2:10]); err != nil {
			return wireFrame{}, err
		}
		n = int64(binary.BigEndian.Uint64(head[2:]))
	}
	f := wireFrame{op: head[0] & 15, payload: make([]byte, n)}
	_, err := io.ReadFull(c.r, f.payload)
	return f, err
}

// expect requires that the next frame is want.
func (c *client) expect(want string) {
	c.t.Helper()
	f, err := c.readFrame()
	require.NoError(c.t, err, "waiting for %s", want)
	require.Equal(c.t, want, f.String())
}

// expectEnd reads until the server has closed the connection, and requires
// that it did so without a reset.
func (c *client) expectEnd() {
	c.t.Helper()
	f, err := c.readFrame()
	require.ErrorIs(c.t, err, io.EOF, "got frame %q", f)
}

// rest reads all frames until the end of the connection.
func (c *client) rest() (frames []string) {
	c.t.Helper()
	for {
		f, err := c.readFrame()
		if err != nil {
			require.ErrorIs(c.t, err, io.EOF)
			return frames
		}
		frames = append(frames, f.String())
	}
}

const (
	fin    = 0x80
	opCont = 0
	opText = 1
	opBin  = 2
	opEnd  = 8
	opPing = 9
	opPong = 10
)

// frame is a masked frame with the shortest length.
func frame(first byte, payload string) []byte {
	return rawFrame(first, lengthBytes(uint64(len(payload))), payload)
}

func lengthBytes(n uint64) []byte {
	switch {
	case n < 126:
		return []byte{byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{126}, uint16(n))
	}
	return binary.BigEndian.AppendUint64([]byte{127}, n)
}

// rawFrame returns a masked frame with the given length bytes.
func rawFrame(first byte, length []byte, payload string) []byte {
	mask := [4]byte{0x9a, 0x01, 0xff, 0x37}
	b := append([]byte{first}, length...)
	b[1] |= 0x80
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

func closeFrame(code int, reason string) []byte {
	return frame(fin|opEnd, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

// quote returns s as JSON.stringify writes it.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s)
	return strings.TrimSuffix(b.String(), "\n")
}

// form is framed or bare.
type form struct {
	name   string
	framed bool
}

var forms = []form{{"framed", true}, {"bare", false}}

// text returns the payload of a message s in this form.
func (f form) text(s string) string {
	if f.framed {
		return "[" + quote(s) + "]"
	}
	return s
}

// sized returns a payload of n bytes, and the message in it.
func (f form) sized(n int) (payload, message string) {
	if f.framed {
		message = strings.Repeat("x", n-4)
	} else {
		message = strings.Repeat("x", n)
	}
	return f.text(message), message
}

// echo returns the frame with which the host echoes a message.
func (f form) echo(s string) string {
	if f.framed {
		return "text:a[" + quote(s) + "]"
	}
	return "text:" + s
}

// closing returns the frames that the host sends when it ends the session first.
func (f form) closing(code int, reason string) []string {
	end := fmt.Sprintf("close:%d:%s", code, reason)
	if f.framed {
		return []string{fmt.Sprintf("text:c[%d,%s]", code, quote(reason)), end}
	}
	return []string{end}
}

// opening returns the frames that the host sends first.
func (f form) opening() []string {
	if f.framed {
		return []string{"text:o"}
	}
	return nil
}
