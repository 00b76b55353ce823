package sse_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/testlog"
	"github.com/gopushy/pushy/sse"
)

const secret = "a secret key for tests"

// site is a Server with its streams at /pushy/events, which clients reach in memory, so that it works
// in a synctest bubble.
type site struct {
	t      *testing.T
	srv    *pushy.Server
	web    *http.Server
	pipes  chan net.Conn
	closed chan struct{}
	lines  *testlog.Log
}

// start starts a site until the test ends. wrap is middleware, or nil.
func start(t *testing.T, o pushy.Options, so sse.Options, wrap func(http.Handler) http.Handler) *site {
	t.Helper()
	s := &site{
		t:      t,
		pipes:  make(chan net.Conn),
		closed: make(chan struct{}),
		lines:  &testlog.Log{},
	}
	if o.SecretKey == "" {
		o.SecretKey = secret
	}
	o.Logger = slog.New(slog.NewTextHandler(s.lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	s.srv, err = pushy.New(o)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/pushy/", s.srv)
	mux.Handle("/pushy/events", sse.New(s.srv, so))
	var handler http.Handler = mux
	if wrap != nil {
		handler = wrap(mux)
	}
	if strings.HasSuffix(t.Name(), handlerWrites) {
		handler = unhijackable(handler)
	}
	s.web = &http.Server{
		Handler:  handler,
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelError),
	}
	go func() { _ = s.web.Serve(s) }()
	t.Cleanup(func() {
		_ = s.srv.Close()
		_ = s.web.Close()
	})
	return s
}

// unhijackable is middleware from which the connection cannot be taken, so that handlers write.
func unhijackable(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&plainWriter{w, http.NewResponseController(w)}, r)
	})
}

type plainWriter struct {
	http.ResponseWriter
	rc *http.ResponseController
}

func (w *plainWriter) FlushError() error                  { return w.rc.Flush() }
func (w *plainWriter) SetReadDeadline(t time.Time) error  { return w.rc.SetReadDeadline(t) }
func (w *plainWriter) SetWriteDeadline(t time.Time) error { return w.rc.SetWriteDeadline(t) }

// Accept, Close and Addr implement net.Listener.
func (s *site) Accept() (net.Conn, error) {
	select {
	case c := <-s.pipes:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *site) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

func (s *site) Addr() net.Addr { return &net.UnixAddr{Name: "test"} }

// dial connects.
func (s *site) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case s.pipes <- &pipe{server}:
		return client, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// pipe is a connection with the address of a client.
type pipe struct{ net.Conn }

func (p *pipe) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1234} }

// edit changes a request.
type edit func(r *http.Request)

func header(name, value string) edit { return func(r *http.Request) { r.Header.Add(name, value) } }

func method(m string) edit { return func(r *http.Request) { r.Method = m } }

// get sends a request for /pushy/events with a query, as a page that reads events does.
func (s *site) get(query string, edits ...edit) *http.Response {
	s.t.Helper()
	res, err := s.try(s.t.Context(), query, edits...)
	require.NoError(s.t, err)
	return res
}

func (s *site) try(ctx context.Context, query string, edits ...edit) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pushy.example/pushy/events?"+query, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "text/event-stream")
	for _, edit := range edits {
		edit(r)
	}
	tr := &http.Transport{
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return s.dial() },
		DisableCompression: true,
		DisableKeepAlives:  true,
	}
	return tr.RoundTrip(r)
}

// refused sends a request that must be refused, and returns the answer and its body.
func (s *site) refused(query string, edits ...edit) (*http.Response, string) {
	s.t.Helper()
	res := s.get(query, edits...)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	require.NoError(s.t, err)
	return res, string(body)
}

// stream is an open stream.
type stream struct {
	t    *testing.T
	res  *http.Response
	in   *bufio.Reader
	open event // pushy:open
	last string
}

// listen opens a stream and receives pushy:open.
func (s *site) listen(query string, edits ...edit) *stream {
	s.t.Helper()
	st := s.stream(query, edits...)
	st.open = st.next()
	require.Equal(s.t, "pushy:open", st.open.name)
	return st
}

func (s *site) stream(query string, edits ...edit) *stream {
	s.t.Helper()
	res := s.get(query, edits...)
	require.Equal(s.t, http.StatusOK, res.StatusCode)
	require.Equal(s.t, "text/event-stream", res.Header.Get("Content-Type"))
	st := &stream{
		t:   s.t,
		res: res,
		in:  bufio.NewReader(res.Body),
	}
	s.t.Cleanup(st.close)
	return st
}

func (st *stream) close() { _ = st.res.Body.Close() }

// event is an event as EventSource dispatches it.
type event struct {
	name  string
	data  string
	id    string // the last id of the stream
	retry int    // -1 if it has none
}

// read reads the next event by the rules of the HTML standard ("Interpreting an event stream"). A
// comment is an event of the name ":".
func (st *stream) read() (event, error) {
	e := event{retry: -1}
	var data []string
	for {
		line, err := st.line()
		if err != nil {
			return e, err
		}
		if line == "" {
			e.id = st.last
			if data == nil {
				if e.name == ":" {
					return e, nil
				}
				e.name = ""
				continue
			}
			e.data = strings.Join(data, "\n")
			return e, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "":
			e.name = ":"
		case "event":
			e.name = value
		case "data":
			data = append(data, value)
		case "id":
			if !strings.Contains(value, "\x00") {
				st.last = value
			}
		case "retry":
			if e.retry, err = strconv.Atoi(value); err != nil {
				return e, err
			}
		}
	}
}

// line reads a line, which ends with CR, LF or CRLF. The server uses LF, so a CR is a fault.
func (st *stream) line() (string, error) {
	line, err := st.in.ReadString('\n')
	switch {
	case err != nil && line != "":
		return "", fmt.Errorf("the stream ends within the line %q: %w", line, err)
	case err != nil:
		return "", err
	case strings.Contains(line, "\r"):
		return "", fmt.Errorf("a line with CR: %q", line)
	}
	return strings.TrimSuffix(line, "\n"), nil
}

// next receives an event that is not a heartbeat.
func (st *stream) next() event {
	st.t.Helper()
	for {
		e, err := st.read()
		require.NoError(st.t, err)
		if e.name != ":" {
			return e
		}
	}
}

// ends receives the end of the response: aborted or not.
func (st *stream) ends(aborted bool) {
	st.t.Helper()
	e, err := st.read()
	for err == nil && e.name == ":" {
		e, err = st.read()
	}
	require.Error(st.t, err, "%+v", e)
	if aborted {
		require.ErrorIs(st.t, err, io.ErrUnexpectedEOF)
		return
	}
	require.ErrorIs(st.t, err, io.EOF)
	require.False(st.t, errors.Is(err, io.ErrUnexpectedEOF))
}

// handlerWrites ends the name of a test in which the handlers of all streams write.
const handlerWrites = "handlerWrites"

// bubble runs a test with fake time, twice: with streams that are written as WebSockets are, where that is
// possible, and with others.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	for _, name := range []string{"socket", handlerWrites} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, test)
		})
	}
}

// settle waits until nothing happens any more without time passing.
func settle() { synctest.Wait() }

func pause(d time.Duration) { time.Sleep(d) }

func newReader(res *http.Response) *bufio.Reader { return bufio.NewReader(res.Body) }
