package sockjs_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/origin"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
	"github.com/gopushy/pushy/internal/transport/sockjs"
	"github.com/gopushy/pushy/internal/transport/transporttest"
)

const patience = transporttest.Patience

// handshake is a WebSocket handshake.
const handshake = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// fromClient returns a WebSocket frame as clients send it.
func fromClient(f ws.Frame) []byte { return ws.MustCompileFrame(ws.MaskFrame(f)) }

func textFrame(s string) []byte { return fromClient(ws.NewTextFrame([]byte(s))) }

func closeFrame(code int, reason string) []byte {
	return fromClient(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(code), reason)))
}

// carrier is a receiving transport of SockJS over HTTP.
type carrier struct {
	name      string // the last part of its URL
	protocol  string
	method    string
	streaming bool
}

var carriers = []carrier{
	{"xhr", "xhr-polling", http.MethodPost, false},
	{"xhr_streaming", "xhr-streaming", http.MethodPost, true},
	{"eventsource", "eventsource", http.MethodGet, true},
	{"htmlfile", "htmlfile", http.MethodGet, true},
	{"jsonp", "jsonp-polling", http.MethodGet, false},
}

// eachCarrier runs a test for every transport, in parallel.
func eachCarrier(t *testing.T, test func(*testing.T, carrier)) {
	t.Parallel()
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
}

// query returns the query of a request for c.
func (c carrier) query() string {
	if c.name == "htmlfile" || c.name == "jsonp" {
		return "?c=cb"
	}
	return ""
}

// sending returns the path that accepts messages, and the status of its response.
func (c carrier) sending() (path string, status int) {
	if c.name == "jsonp" {
		return "jsonp_send", http.StatusOK
	}
	return "xhr_send", http.StatusNoContent
}

// site serves SockJS over HTTP as pushy's root package does.
type site struct {
	t        testing.TB
	cfg      sockjs.Config
	engine   *fanout.Engine
	handler  *sockjs.Handler
	admitted atomic.Int64
	requests atomic.Int64 // the number of requests so far
	sessions chan *siteConn

	mu     sync.Mutex
	all    []*siteConn
	onText func(*siteConn, string) // if nil, messages are echoed
	onCut  func()                  // called when an Outbox disconnects its session, before the session ends
	log    bytes.Buffer            // to be read after the site has been closed

	base   string
	client *http.Client
}

// siteConn is the host's end of a session.
type siteConn struct {
	session.Session
	out  *fanout.Outbox
	cut  chan int      // the codes with which the Outbox has disconnected it
	done chan struct{} // Linger has returned
	end  *session.CloseError
}

func (c *siteConn) close(code int, reason string) {
	c.out.Close(code, reason)
	c.Stop()
}

func (c *siteConn) send(text string) bool { return c.out.Send(fanout.NewFrame([]byte(text))) }

func (c *siteConn) wait(t testing.TB) {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		require.Fail(t, "session did not end")
	}
}

// newSite returns a site that does not listen yet.
func newSite(t testing.TB, change ...func(*site)) *site {
	s := &site{t: t, sessions: make(chan *siteConn, 20_000)}
	s.cfg = sockjs.Config{
		Config: transporttest.Config(), ResponseLimit: 128 << 10, DisconnectDelay: 5 * time.Second, BodyTimeout: 10 * time.Second,
		Legacy: true, ScriptURL: "/sockjs.js",
		Log: slog.New(slog.NewTextHandler(&s.log, nil)),
		Admit: func(http.ResponseWriter, *http.Request, bool) (*transport.Ticket, bool) {
			s.admitted.Add(1)
			return &transport.Ticket{Start: s.start, GiveBack: func() { s.admitted.Add(-1) }}, true
		},
	}
	for _, c := range change {
		c(s)
	}
	s.engine = fanout.New(fanout.Config{MaxBytes: 1 << 20, MaxTotal: 1 << 28, WriteTimeout: s.cfg.WriteTimeout})
	s.handler = sockjs.NewHandler(s.cfg)
	return s
}

// serveSite returns a site on a real socket.
func serveSite(t testing.TB, change ...func(*site)) *site {
	// A client on a loaded machine must not count as absent.
	patient := func(s *site) { s.cfg.DisconnectDelay = patience }
	s := newSite(t, append([]func(*site){patient}, change...)...)
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	t.Cleanup(func() { // end the remaining sessions, which otherwise stay for the disconnect delay
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range s.all {
			c.Abort()
			<-c.done
		}
	})
	s.connect(srv.URL, &http.Transport{MaxIdleConnsPerHost: 1000})
	return s
}

// serveInBubble returns a site in memory, for synctest. end must be called last.
func serveInBubble(t *testing.T, change ...func(*site)) (s *site, end func()) {
	s = newSite(t, change...)
	l := transporttest.NewListener()
	srv := &http.Server{Handler: s}
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.ErrorIs(t, srv.Serve(l), http.ErrServerClosed)
	}()
	s.connect("http://site", &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return l.Dial(ctx.Done()) // it fails after the server has closed, because a client may still send requests
	}})
	return s, func() {
		s.client.CloseIdleConnections()
		_ = srv.Close()
		<-done
	}
}

func (s *site) connect(base string, tr *http.Transport) {
	s.base, s.client = base, &http.Client{Transport: tr}
	s.t.Cleanup(tr.CloseIdleConnections)
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	origin.AllowCORS(w.Header(), r)
	s.handler.ServeSockJS(w, r, r.URL.EscapedPath())
}

func (s *site) start(sess session.Session) {
	c := &siteConn{Session: sess, cut: make(chan int, 10), done: make(chan struct{})}
	c.out = s.engine.NewOutbox(sess, func(code int, _ string) {
		c.cut <- code
		if s.onCut != nil {
			s.onCut()
		}
		if code == 1006 {
			sess.Abort()
		}
		sess.Stop()
	})
	s.mu.Lock()
	s.all = append(s.all, c)
	s.mu.Unlock()
	s.sessions <- c
	go s.serve(c)
}

func (s *site) serve(c *siteConn) {
	defer close(c.done)
	c.Start(c.out)
	for {
		p, err := c.Receive()
		if err != nil {
			_ = errors.As(err, &c.end)
			break
		}
		if s.onText != nil {
			s.onText(c, string(p))
		} else {
			c.send(string(p))
		}
	}
	switch c.end.Cause {
	case session.Closed, session.Fault:
		c.out.Close(c.end.Code, c.end.Reason)
	case session.Lost:
		c.out.Discard()
	}
	c.Linger()
}

// session returns the next session that was opened.
func (s *site) session() *siteConn {
	s.t.Helper()
	select {
	case c := <-s.sessions:
		return c
	case <-time.After(patience):
		require.Fail(s.t, "no session was opened")
		return nil
	}
}

// do makes a request; header is a list of names and values.
func (s *site) do(ctx context.Context, method, path, body string, header ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.base+path, strings.NewReader(body))
	require.NoError(s.t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return s.client.Do(r)
}

// answer is a response that was read completely.
type answer struct {
	status int
	body   string
	header http.Header
}

func (s *site) call(method, path, body string, header ...string) answer {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	res, err := s.do(ctx, method, path, body, header...)
	require.NoError(s.t, err, "%s %s", method, path)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(s.t, err, "%s %s", method, path)
	return answer{res.StatusCode, string(text), res.Header}
}

func (s *site) post(path, body string, header ...string) answer {
	s.t.Helper()
	return s.call(http.MethodPost, path, body, header...)
}

var peers atomic.Int64

// peer is a client of one session.
type peer struct {
	s  *site
	c  carrier
	id string

	header   []string // the header of its requests for frames
	response *http.Response
	lines    *bufio.Reader
	cancel   context.CancelFunc
}

func (s *site) peer(c carrier) *peer {
	return &peer{s: s, c: c, id: fmt.Sprintf("id%d", peers.Add(1))}
}

// open returns a peer that has read its open frame.
func (s *site) open(c carrier) *peer {
	s.t.Helper()
	p := s.peer(c)
	require.Equal(s.t, "o", p.next())
	return p
}

func (p *peer) path(what string) string { return "/000/" + p.id + "/" + what }

// request sends the request that receives frames.
func (p *peer) request() error {
	ctx, cancel := context.WithCancel(context.Background())
	res, err := p.s.do(ctx, p.c.method, p.path(p.c.name)+p.c.query(), "", p.header...)
	if err != nil {
		cancel()
		return err
	}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		cancel()
		return fmt.Errorf("%d %s", res.StatusCode, text)
	}
	p.response, p.lines, p.cancel = res, bufio.NewReader(res.Body), cancel
	return nil
}

// abort ends the current request as a client does that disconnects.
func (p *peer) abort() {
	if p.response != nil {
		p.cancel()
		_ = p.response.Body.Close()
		p.response = nil
	}
}

// frame returns the next frame of the current response, or io.EOF at its end.
func (p *peer) frame() (string, error) {
	for {
		line, err := p.lines.ReadString('\n')
		if err != nil {
			p.abort()
			return "", err
		}
		if frame, ok := p.c.unframe(strings.TrimRight(line, "\r\n")); ok {
			if !p.c.streaming {
				_, err = p.lines.ReadByte()
				p.abort()
				if err != io.EOF {
					return "", fmt.Errorf("more than a frame: %w", err)
				}
			}
			return frame, nil
		}
	}
}

// unframe returns the SockJS frame in a line, if there is one.
func (c carrier) unframe(line string) (frame string, ok bool) {
	switch c.name {
	case "xhr_streaming":
		return line, line != "" && len(line) != 2048
	case "eventsource":
		return strings.CutPrefix(line, "data: ")
	case "htmlfile":
		return unquoted(line, "p(")
	case "jsonp":
		return unquoted(line, "/**/cb(")
	}
	return line, line != ""
}

func unquoted(line, call string) (frame string, ok bool) {
	text, is := strings.CutPrefix(line, call)
	text, is2 := strings.CutSuffix(text, ");")
	ok = is && is2 && json.Unmarshal([]byte(text), &frame) == nil
	return frame, ok
}

// tryNext returns the next frame. It sends more requests if necessary.
func (p *peer) tryNext() (string, error) {
	for {
		if p.response == nil {
			if err := p.request(); err != nil {
				return "", err
			}
		}
		if frame, err := p.frame(); err == nil || err != io.EOF {
			return frame, err
		}
	}
}

func (p *peer) next() string {
	p.s.t.Helper()
	frame, err := p.tryNext()
	require.NoError(p.s.t, err)
	return frame
}

// receive returns the messages of the next frame, which must have messages.
func (p *peer) receive() (messages []string) {
	p.s.t.Helper()
	frame := p.next()
	require.True(p.s.t, strings.HasPrefix(frame, "a"), "frame %s", frame)
	require.NoError(p.s.t, json.Unmarshal([]byte(frame[1:]), &messages), "frame %s", frame)
	return messages
}

// send sends a SockJS frame, and requires that it is accepted.
func (p *peer) send(frame string) {
	p.s.t.Helper()
	path, status := p.c.sending()
	require.Equal(p.s.t, status, p.s.post(p.path(path), frame, "Content-Type", "text/plain").status)
}
