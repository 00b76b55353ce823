package pusher_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pusher"
	"github.com/gopushy/pushy/sse"
)

const (
	appKey    = "278d425bdf160c739803"
	appSecret = "7ad3773142a6692b25b8"
	secretKey = "a secret of more than sixteen bytes"
	// patience is how long a client waits for what must come.
	patience = 60 * time.Second
)

func sign(text string) string {
	mac := hmac.New(sha256.New, []byte(appSecret))
	mac.Write([]byte(text))
	return appKey + ":" + hex.EncodeToString(mac.Sum(nil))
}

// pipes is a listener in memory, so that it can be used with fake time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes {
	return &pipes{
		conns:  make(chan net.Conn),
		closed: make(chan struct{}),
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (p *pipes) Dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// node is a Server with an Adapter, and its endpoints.
type node struct {
	t     *testing.T
	srv   *pushy.Server
	p     *pusher.Adapter
	pipes *pipes
	http  *http.Client
}

func defaults(o pushy.Options) pushy.Options {
	if o.SecretKey == "" {
		o.SecretKey = secretKey
	}
	if o.Channel == nil {
		o.Channel = pusher.Channels(nil)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return o
}

func serve(t *testing.T, o pushy.Options, po ...pusher.Options) *node {
	t.Helper()
	srv, err := pushy.New(defaults(o))
	require.NoError(t, err)
	own := pusher.Options{App: "3", Key: appKey, Secret: appSecret}
	if len(po) > 0 {
		own = po[0]
		own.App, own.Key, own.Secret = "3", appKey, appSecret
	}
	p, err := pusher.New(srv, own)
	require.NoError(t, err)
	n := &node{
		t:   t,
		srv: srv,
		p:   p,
	}
	mux := http.NewServeMux()
	mux.Handle("/pushy/", srv)
	mux.Handle("/pushy/events", sse.New(srv, sse.Options{}))
	mux.Handle("/", p.Handler())
	n.authEndpoints(mux)
	n.listen(mux)
	return n
}

// listen serves the endpoints of the node until the test ends.
func (n *node) listen(handler http.Handler) {
	n.pipes = newPipes()
	n.http = &http.Client{Transport: &http.Transport{DialContext: n.pipes.Dial, DisableKeepAlives: true}}
	web := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = web.Serve(n.pipes)
	}()
	n.t.Cleanup(func() {
		_ = n.srv.Close()
		_ = web.Close()
		<-served
	})
}

// peer is a client of the Pusher protocol.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   io.Reader
	id   string
}

// got is a message that a client has received.
type got struct {
	Event   string
	Channel string
	Data    json.RawMessage
	UserID  *string `json:"user_id"`
}

// content returns the string of the data.
func (g got) content(t *testing.T) string {
	t.Helper()
	var s string
	require.NoError(t, json.Unmarshal(g.Data, &s), "data of %s is no string: %s", g.Event, g.Data)
	return s
}

// open opens a WebSocket. origin can be "".
func (n *node) open(path string, header ...string) *peer {
	n.t.Helper()
	head := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		head.Add(header[i], header[i+1])
	}
	d := ws.Dialer{NetDial: n.pipes.Dial, Header: ws.HandshakeHeaderHTTP(head)}
	conn, buffered, _, err := d.Dial(n.t.Context(), "ws://pushy.test"+path)
	require.NoError(n.t, err)
	p := &peer{
		t:    n.t,
		conn: conn,
		in:   conn,
	}
	if buffered != nil {
		p.in = io.MultiReader(bufio.NewReader(io.LimitReader(buffered, int64(buffered.Buffered()))), conn)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	return p
}

// dial connects, and receives the first message.
func (n *node) dial(header ...string) *peer {
	n.t.Helper()
	p := n.open("/app/"+appKey+"?protocol=7&client=js&version=8.6.0&flash=false", header...)
	first := p.next()
	require.Equal(n.t, "pusher:connection_established", first.Event)
	var data struct {
		SocketID        string `json:"socket_id"`
		ActivityTimeout int    `json:"activity_timeout"`
	}
	require.NoError(n.t, json.Unmarshal([]byte(first.content(n.t)), &data))
	require.Regexp(n.t, regexp.MustCompile(`^\d+\.\d+$`), data.SocketID)
	require.Equal(n.t, 30, data.ActivityTimeout)
	p.id = data.SocketID
	return p
}

// frame returns the next frame, unmasked.
func (p *peer) frame() (ws.Frame, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	return ws.ReadFrame(p.in)
}

// text returns the next text message. It answers pings.
func (p *peer) text() string {
	p.t.Helper()
	for {
		f, err := p.frame()
		require.NoError(p.t, err)
		switch f.Header.OpCode {
		case ws.OpText:
			return string(f.Payload)
		case ws.OpPing:
			p.write(ws.NewPongFrame(f.Payload))
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(f.Payload)
			p.t.Fatalf("closed with %d %q", code, reason)
		}
	}
}

func (p *peer) next() got {
	p.t.Helper()
	var g got
	text := p.text()
	require.NoError(p.t, json.Unmarshal([]byte(text), &g), text)
	return g
}

// expect receives a message of that event, and returns it.
func (p *peer) expect(event string) got {
	p.t.Helper()
	g := p.next()
	require.Equal(p.t, event, g.Event, "channel %s data %s", g.Channel, g.Data)
	return g
}

// closed reads until the close frame, and returns its code and reason.
func (p *peer) closed() (int, string) {
	p.t.Helper()
	for {
		f, err := p.frame()
		require.NoError(p.t, err, "no close frame")
		if f.Header.OpCode == ws.OpClose {
			code, reason := ws.ParseCloseFrameData(f.Payload)
			return int(code), reason
		}
	}
}

func (p *peer) write(f ws.Frame) {
	p.t.Helper()
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	require.NoError(p.t, ws.WriteFrame(p.conn, ws.MaskFrameInPlace(f)))
}

func (p *peer) sendText(text string) {
	p.t.Helper()
	p.write(ws.NewTextFrame([]byte(text)))
}

// send sends an event with data, a value.
func (p *peer) send(event, channel string, data any) {
	p.t.Helper()
	m := map[string]any{"event": event}
	if channel != "" {
		m["channel"] = channel
	}
	if data != nil {
		m["data"] = data
	}
	text, err := json.Marshal(m)
	require.NoError(p.t, err)
	p.sendText(string(text))
}

// ask sends a subscription, with a signature if the channel needs one.
func (p *peer) ask(channel string, channelData ...string) {
	p.t.Helper()
	data := map[string]any{"channel": channel}
	if strings.HasPrefix(channel, "private-") || strings.HasPrefix(channel, "presence-") {
		text := p.id + ":" + channel
		if len(channelData) > 0 {
			text += ":" + channelData[0]
			data["channel_data"] = channelData[0]
		}
		data["auth"] = sign(text)
	}
	p.send("pusher:subscribe", "", data)
}

// join subscribes, and returns the data of the answer.
func (p *peer) join(channel string, channelData ...string) string {
	p.t.Helper()
	p.ask(channel, channelData...)
	g := p.expect("pusher_internal:subscription_succeeded")
	require.Equal(p.t, channel, g.Channel)
	return g.content(p.t)
}

// refused subscribes, and returns the status and the type of the error.
func (p *peer) refused(data map[string]any) (status int, kind string) {
	p.t.Helper()
	p.send("pusher:subscribe", "", data)
	g := p.expect("pusher:subscription_error")
	require.Equal(p.t, data["channel"], g.Channel)
	var e struct {
		Type, Error string
		Status      int
	}
	require.NoError(p.t, json.Unmarshal([]byte(g.content(p.t)), &e))
	require.NotEmpty(p.t, e.Error)
	return e.Status, e.Type
}

// sync receives nothing but the answer to a ping.
func (p *peer) sync() {
	p.t.Helper()
	p.send("pusher:ping", "", map[string]any{})
	p.expect("pusher:pong")
}

// failed receives pusher:error and returns its code, 0 for null.
func (p *peer) failed() (code int, channel string) {
	p.t.Helper()
	g := p.expect("pusher:error")
	var e struct {
		Code    *int
		Message string
		Channel string
	}
	require.NoError(p.t, json.Unmarshal(g.Data, &e))
	require.NotEmpty(p.t, e.Message)
	if e.Code != nil {
		code = *e.Code
	}
	return code, e.Channel
}

// leave closes the connection on purpose.
func (p *peer) leave() {
	p.t.Helper()
	p.write(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))
	for {
		if _, err := p.frame(); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, io.ErrUnexpectedEOF) {
				p.t.Fatal(err)
			}
			return
		}
	}
}

func channelData(user string) string {
	return `{"user_id":` + strconv.Quote(user) + `,"user_info":{"name":"N` + user + `"}}`
}
