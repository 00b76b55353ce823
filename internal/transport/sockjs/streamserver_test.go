package sockjs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/transport/sockjs"
)

var xhrStreaming = carriers[1]

// siteOf serves a site with an http.Server and middleware.
func siteOf(t *testing.T, web *http.Server, wrap func(http.Handler) http.Handler) *site {
	t.Helper()
	s := newSite(t, func(s *site) { s.cfg.ResponseLimit = 64 })
	web.Handler = s
	if wrap != nil {
		web.Handler = wrap(s)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = web.Serve(l) }()
	t.Cleanup(func() { _ = web.Close() })
	s.connect("http://"+l.Addr().String(), &http.Transport{})
	return s
}

// pause lets real time pass, which real sockets need: nothing tells the test when a server waits.
func pause(d time.Duration) { <-time.After(d) }

// endedStream has a connection whose stream has just ended.
func endedStream(t *testing.T, s *site) (net.Conn, *bufio.Reader) {
	t.Helper()
	return streamThatEnds(t, s, "stream")
}

func streamThatEnds(t *testing.T, s *site, id string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, r := rawStream(t, s, xhrStreaming, id)
	host := s.session()
	res, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	host.send(strings.Repeat("x", 64))
	_, err = io.ReadAll(res.Body)
	require.NoError(t, err)
	return conn, r
}

// ginWriter refuses to be hijacked after the body has begun, as gin's does since 1.11.
type ginWriter struct {
	http.ResponseWriter
	size int
}

func (w *ginWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *ginWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.size += n
	return n, err
}
func (w *ginWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.size > 0 {
		return nil, nil, errors.New("gin: response body already written")
	}
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func TestStreamOfMiddlewareThatRefusesHijack(t *testing.T) {
	t.Parallel()
	for _, c := range streams() {
		t.Run(c.name, func(t *testing.T) {
			s := siteOf(t, &http.Server{}, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(&ginWriter{ResponseWriter: w}, r) })
			})
			p := s.peer(c)
			require.NoError(t, p.request())
			frame, err := p.frame()
			require.NoError(t, err)
			assert.Equal(t, "o", frame)
		})
	}
}

// gateLine is a connection that does not accept a write at once, and returns from a Write of the end of a response when the gate opens.
type gateLine struct {
	sockjs.Line
	gate chan struct{}
}

func (l *gateLine) TryWrite([]byte) (int, error) { return 0, nil }
func (l *gateLine) Write(p []byte, timeout time.Duration) error {
	err := l.Line.Write(p, timeout)
	if strings.HasSuffix(string(p), "\r\n0\r\n\r\n") {
		<-l.gate
	}
	return err
}

func TestStreamEndsWhileTheNextReceiverWaits(t *testing.T) {
	t.Parallel()
	s := siteOf(t, &http.Server{}, nil)
	gate := make(chan struct{})
	s.handler.WrapLines(func(l sockjs.Line) sockjs.Line { return &gateLine{l, gate} })
	endedStream(t, s)
	var host *siteConn
	s.mu.Lock()
	host = s.all[len(s.all)-1]
	s.mu.Unlock()
	before := s.requests.Load()
	got := make(chan string, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		res, err := s.do(ctx, "POST", "/000/stream/xhr", "")
		if err != nil {
			got <- err.Error()
			return
		}
		b, err := io.ReadAll(res.Body)
		got <- fmt.Sprint(string(b), err)
	}()
	for s.requests.Load() == before {
		pause(time.Millisecond)
	}
	pause(100 * time.Millisecond) // it is the receiver
	host.send("next")
	pause(100 * time.Millisecond)
	close(gate)
	select {
	case text := <-got:
		assert.Contains(t, text, `a["next"]`)
	case <-time.After(time.Minute):
		assert.Fail(t, "the poll has not been answered")
	}
	host.Abort()
	host.wait(t)
}

func TestStreamKeepsIdleTimeout(t *testing.T) {
	t.Parallel()
	t.Run("longer", func(t *testing.T) {
		s := siteOf(t, &http.Server{ReadHeaderTimeout: 2 * time.Second, IdleTimeout: 20 * time.Second}, nil)
		conn, r := endedStream(t, s)
		pause(3 * time.Second)
		_, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		_, err = http.ReadResponse(r, nil)
		assert.NoError(t, err, "IdleTimeout is 20 seconds")
	})
	t.Run("none", func(t *testing.T) {
		s := siteOf(t, &http.Server{IdleTimeout: time.Second}, nil)
		conn, r := endedStream(t, s)
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		_, err := r.ReadByte()
		assert.ErrorIs(t, err, io.EOF, "IdleTimeout is over")
	})
}

func TestStreamCallsNoBaseContext(t *testing.T) {
	t.Parallel()
	listeners := make(chan string, 10)
	s := siteOf(t, &http.Server{BaseContext: func(l net.Listener) context.Context {
		listeners <- fmt.Sprintf("%T", l)
		return context.Background()
	}}, nil)
	conn, r := endedStream(t, s)
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	_, err := r.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	for len(listeners) > 0 {
		assert.Equal(t, "*net.TCPListener", <-listeners)
	}
}

func TestStreamOfAConnectionThatCloses(t *testing.T) {
	t.Parallel()
	s := siteOf(t, &http.Server{}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			h.ServeHTTP(w, r)
		})
	})
	conn, r := endedStream(t, s)
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	_, err := r.ReadByte()
	assert.ErrorIs(t, err, io.EOF, "the header says that the server closes it")
}

// Middleware has replaced the body: net/http says "Connection: close" because it has not read all of it.
func TestStreamLeavesNoBody(t *testing.T) {
	t.Parallel()
	hidden := make(chan struct{}, 1)
	s := siteOf(t, &http.Server{}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hidden" {
				hidden <- struct{}{}
				return
			}
			r2 := r.Clone(r.Context())
			r2.Body = http.NoBody
			h.ServeHTTP(w, r2)
		})
	})
	first := s.open(xhrStreaming)
	first.abort()
	s.session().wait(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	const smuggled = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
	_, err = fmt.Fprintf(conn, "POST /000/stream/xhr_streaming HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 300<<10)
	require.NoError(t, err)
	r := bufio.NewReader(conn)
	host := s.session()
	res, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	pause(100 * time.Millisecond)
	_, err = io.WriteString(conn, smuggled)
	require.NoError(t, err)
	host.send(strings.Repeat("x", 64))
	_, _ = io.ReadAll(res.Body)
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	rest, _ := io.ReadAll(r) // until the connection is closed
	assert.Empty(t, rest)
	assert.Empty(t, hidden, "a part of the body was served as a request")
}

// lateWriter writes nothing before it has 1 KB, as gzhttp's.
type lateWriter struct {
	http.ResponseWriter
	buf    []byte
	status int
	passes bool
}

func (w *lateWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *lateWriter) WriteHeader(status int)      { w.status = status }
func (w *lateWriter) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	if len(w.buf) > 1024 {
		w.pass()
	}
	return len(p), nil
}
func (w *lateWriter) pass() {
	if !w.passes {
		w.passes = true
		w.ResponseWriter.WriteHeader(w.status)
	}
	_, _ = w.ResponseWriter.Write(w.buf)
	w.buf = nil
}
func (w *lateWriter) Flush() {
	if w.passes {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
	}
}

func TestStreamOfMiddlewareThatHoldsTheHeaderBack(t *testing.T) {
	t.Parallel()
	s := siteOf(t, &http.Server{}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			late := &lateWriter{ResponseWriter: w}
			h.ServeHTTP(late, r)
			late.pass()
		})
	})
	s.cfg.ResponseLimit = 1 << 20
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	requestStream(t, conn, carriers[2], "late")
	host := s.session()
	host.send(strings.Repeat("x", 2048))
	r := bufio.NewReader(conn)
	line, _ := r.ReadString('\n')
	assert.Equal(t, "HTTP/1.1 200 OK\r\n", line)
}

// slowEnd is a connection whose client that reads the close frame late, but within WriteTimeout.
type slowEnd struct{ sockjs.Line }

func (l *slowEnd) TryWrite([]byte) (int, error) { return 0, nil }
func (l *slowEnd) Write(p []byte, timeout time.Duration) error {
	if strings.Contains(string(p), "c[3000") {
		pause(500 * time.Millisecond)
	}
	return l.Line.Write(p, timeout)
}

func TestStreamWithASlowEnd(t *testing.T) {
	t.Parallel()
	s := serveSite(t, func(s *site) { s.cfg.CloseTimeout = 100 * time.Millisecond })
	s.handler.WrapLines(func(l sockjs.Line) sockjs.Line { return &slowEnd{l} })
	p := s.open(xhrStreaming)
	host := s.session()
	host.close(3000, "bye")
	frame, err := p.frame()
	require.NoError(t, err)
	assert.Equal(t, `c[3000,"bye"]`, frame)
	host.wait(t)
}

func TestStreamDoesNotDelayShutdown(t *testing.T) {
	t.Parallel()
	web := &http.Server{}
	s := siteOf(t, web, nil)
	conn, r := endedStream(t, s)
	_, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	_, err = http.ReadResponse(r, nil)
	require.NoError(t, err, "the connection is kept")

	conn, r = streamThatEnds(t, s, "another")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, web.Shutdown(ctx))
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	_, err = r.ReadByte()
	assert.ErrorIs(t, err, io.EOF, "the connection that waits is closed")
}

// Hosts count connections by ConnState: each that is new is later hijacked or closed.
func TestStreamKeepsConnStateBalanced(t *testing.T) {
	t.Parallel()
	var fresh, over atomic.Int64
	balanced := make(chan struct{}, 1000)
	web := &http.Server{ConnState: func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			fresh.Add(1)
		case http.StateHijacked, http.StateClosed:
			if over.Add(1) == fresh.Load() {
				balanced <- struct{}{}
			}
		}
	}}
	s := siteOf(t, web, nil)
	p := s.open(xhrStreaming)
	host := s.session()
	for i := range 10 {
		text := fmt.Sprint(i, strings.Repeat("x", 64))
		host.send(text)
		require.Equal(t, []string{text}, p.receive())
		_, err := p.frame()
		require.ErrorIs(t, err, io.EOF)
	}
	host.Abort()
	host.wait(t)
	s.client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, web.Shutdown(ctx))
	assert.GreaterOrEqual(t, fresh.Load(), int64(10))
	for fresh.Load() != over.Load() {
		select {
		case <-balanced:
		case <-time.After(time.Minute):
			require.Equal(t, fresh.Load(), over.Load())
		}
	}
}
