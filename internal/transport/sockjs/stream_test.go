package sockjs_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/sockjs"
)

// streams has the carriers that stream.
func streams() (all []carrier) {
	for _, c := range carriers {
		if c.streaming {
			all = append(all, c)
		}
	}
	return all
}

// countDials returns the number of connections that the client of a site has made from now on.
func countDials(s *site) *atomic.Int64 {
	var dials atomic.Int64
	tr := s.client.Transport.(*http.Transport)
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	return &dials
}

// After the end of a stream, its connection serves the next request of any kind, over plain TCP and TLS,
// which need not be a stream of the same session.
func TestStreamsKeepTheirConnection(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		for _, c := range streams() {
			t.Run(fmt.Sprintf("%s secure=%t", c.name, secure), func(t *testing.T) {
				t.Parallel()
				s := serveSite(t, func(s *site) { s.cfg.ResponseLimit = 64 })
				if secure {
					web := httptest.NewUnstartedServer(s)
					web.StartTLS()
					t.Cleanup(web.Close)
					s.connect(web.URL, &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}})
				}
				dials := countDials(s)
				p := s.open(c)
				host := s.session()
				for i := range 20 {
					text := fmt.Sprint(i, " ", strings.Repeat("x", 64))
					host.send(text)
					require.Equal(t, []string{text}, p.receive())
					_, err := p.frame()
					require.ErrorIs(t, err, io.EOF)
					require.Equal(t, "Welcome to SockJS!\n", s.call("GET", "/", "").body)
				}
				assert.LessOrEqual(t, dials.Load(), int64(2), "only the first connection may be closed")
				host.send("again")
				require.Equal(t, []string{"again"}, p.receive())
				host.close(3000, "bye")
				assert.Equal(t, `c[3000,"bye"]`, p.next())
				host.wait(t)
			})
		}
	}
}

// rawStream requests a stream over a connection of its own, and reads the head of the response.
func rawStream(t *testing.T, s *site, c carrier, id string) (net.Conn, *bufio.Reader) {
	t.Helper()
	first := s.open(c) // from now on it is known that the connections of the server are sockets
	first.abort()
	s.session().wait(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	requestStream(t, conn, c, id)
	r := bufio.NewReader(conn)
	return conn, r
}

// reader returns a peer that reads a response of a connection of its own.
func (s *site) reader(c carrier, response *http.Response) *peer {
	return &peer{s: s, c: c, response: response, lines: bufio.NewReader(response.Body), cancel: func() {}}
}

func requestStream(t *testing.T, conn net.Conn, c carrier, id string) {
	t.Helper()
	_, err := fmt.Fprintf(conn, "%s /000/%s/%s%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", c.method, id, c.name, c.query())
	require.NoError(t, err)
}

// A client that sends its next request before the response has ended is answered afterwards.
func TestStreamWithAnEarlyRequest(t *testing.T) {
	t.Parallel()
	for _, c := range streams() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serveSite(t, func(s *site) { s.cfg.ResponseLimit = 64 })
			conn, r := rawStream(t, s, c, "early")
			host := s.session()
			first, err := http.ReadResponse(r, nil)
			require.NoError(t, err)
			p := s.reader(c, first)
			require.Equal(t, "o", p.next()) // written by the stream
			requestStream(t, conn, c, "early")
			text := strings.Repeat("x", 64)
			host.send(text)
			require.Equal(t, []string{text}, p.receive())
			_, err = p.frame()
			require.ErrorIs(t, err, io.EOF)
			host.send("second")
			second, err := http.ReadResponse(r, nil)
			require.NoError(t, err)
			p = s.reader(c, second)
			assert.Equal(t, []string{"second"}, p.receive())
			require.NoError(t, conn.Close())
			host.wait(t)
			assert.Equal(t, session.Lost, host.end.Cause)
		})
	}
}

// partialLine accepts only a part of each write at once.
type partialLine struct {
	sockjs.Line
	part atomic.Int64
	fail atomic.Bool // the rest cannot be written
}

func (l *partialLine) TryWrite(p []byte) (int, error) {
	return l.Line.TryWrite(p[:min(len(p), int(l.part.Load()))])
}

func (l *partialLine) Write(p []byte, timeout time.Duration) error {
	if l.fail.Load() {
		return errors.New("broken by the test")
	}
	return l.Line.Write(p, timeout)
}

// A write can be interrupted after each of its bytes, also in the frames around a response's end.
func TestStreamPartialWrites(t *testing.T) {
	t.Parallel()
	for _, c := range streams() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serveSite(t, func(s *site) { s.cfg.ResponseLimit = 100 })
			part := &partialLine{}
			s.handler.WrapLines(func(l sockjs.Line) sockjs.Line {
				one := &partialLine{Line: l}
				one.part.Store(part.part.Load())
				return one
			})
			p := s.open(c)
			host := s.session()
			for n := range 100 { // more than a chunk has
				part.part.Store(int64(n))
				var want []string
				for i := range 8 {
					text := fmt.Sprintf("%d.%d %s", n, i, strings.Repeat("é", i))
					want = append(want, text)
					require.True(t, host.send(text))
				}
				var got []string
				for len(got) < len(want) {
					got = append(got, p.receive()...)
				}
				require.Equal(t, want, got)
			}
			host.close(3000, "bye")
			assert.Equal(t, `c[3000,"bye"]`, p.next())
			host.wait(t)
			assert.Zero(t, s.engine.Waiting())
		})
	}
}

// A session whose response breaks within a frame is lost, and nothing stays queued.
func TestStreamBreaksWithinAFrame(t *testing.T) {
	t.Parallel()
	for _, c := range streams() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serveSite(t)
			broken := make(chan *partialLine, 1)
			s.handler.WrapLines(func(l sockjs.Line) sockjs.Line {
				one := &partialLine{Line: l}
				one.part.Store(1 << 20)
				broken <- one
				return one
			})
			p := s.open(c)
			host := s.session()
			line := <-broken
			line.fail.Store(true)
			line.part.Store(3)
			host.send("text")
			host.wait(t)
			assert.Equal(t, session.Lost, host.end.Cause)
			assert.Equal(t, 1006, <-host.cut)
			assert.Zero(t, s.engine.Waiting())
			_, err := p.frame()
			assert.NotEqual(t, io.EOF, err, "the response has no end")
			assert.Equal(t, 404, s.post(p.path("xhr_send"), `["x"]`).status)
		})
	}
}

// A client that does not read is disconnected when a write takes too long, and so is one for which
// too many bytes are queued.
func TestStreamToAClientThatNeverReads(t *testing.T) {
	t.Parallel()
	for _, flood := range []bool{false, true} {
		for _, c := range streams() {
			t.Run(fmt.Sprintf("%s flood=%t", c.name, flood), func(t *testing.T) {
				t.Parallel()
				s := serveSite(t, func(s *site) {
					s.cfg.WriteTimeout = time.Second
					s.cfg.ResponseLimit = 1 << 30
					if flood {
						s.cfg.WriteTimeout = patience
					}
				})
				conn, _ := rawStream(t, s, c, "stuck")
				require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
				host := s.session()
				other := s.open(c)
				beside := s.session()
				began := time.Now()
				for len(host.cut) == 0 {
					require.Less(t, time.Since(began), patience, "it was not disconnected")
					if flood || host.out.Waiting() < 512<<10 { // half of what may be queued
						host.send(strings.Repeat("x", 64<<10))
					}
					beside.send("beside")
					require.Equal(t, []string{"beside"}, other.receive())
				}
				assert.Equal(t, 3008, <-host.cut)
				if flood { // it can still receive the close frame, until Abort
					host.Abort()
				}
				host.wait(t)
				beside.close(3000, "bye")
				assert.Equal(t, `c[3000,"bye"]`, other.next())
				beside.wait(t)
				assert.Zero(t, s.engine.Waiting())
			})
		}
	}
}

// A stream needs no handler, whose goroutine has large buffers.
func TestStreamHasNoHandler(t *testing.T) { // not parallel: it looks at all goroutines
	stacks := func(function string) int {
		buf := make([]byte, 4<<20)
		return strings.Count(string(buf[:runtime.Stack(buf, true)]), function+"(")
	}
	s := serveSite(t)
	var peers []*peer
	for _, c := range streams() {
		for range 10 {
			peers = append(peers, s.open(c))
		}
	}
	deadline := time.Now().Add(patience)
	for stacks("net/http.(*conn).serve") > 0 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	assert.Zero(t, stacks("net/http.(*conn).serve"))
	for _, p := range peers {
		p.abort()
		s.session().wait(t)
	}
}

// compressor is middleware that compresses responses, and whose ResponseWriter can be unwrapped.
type compressor struct {
	http.ResponseWriter
	gz *gzip.Writer
}

func (c *compressor) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *compressor) WriteHeader(status int) {
	c.Header().Set("Content-Encoding", "gzip")
	c.ResponseWriter.WriteHeader(status)
}

func (c *compressor) Write(p []byte) (int, error) { return c.gz.Write(p) }

func (c *compressor) FlushError() error {
	return errors.Join(c.gz.Flush(), http.NewResponseController(c.ResponseWriter).Flush())
}

// Behind middleware that changes the bytes of responses, streams are written through it.
func TestStreamBehindCompression(t *testing.T) {
	t.Parallel()
	for _, c := range streams() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serveSite(t, func(s *site) { s.cfg.ResponseLimit = 64 })
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				gz := gzip.NewWriter(w)
				s.ServeHTTP(&compressor{w, gz}, r)
				_ = gz.Close()
			}))
			t.Cleanup(web.Close)
			s.connect(web.URL, &http.Transport{})
			p := s.open(c) // the client of Go decompresses
			host := s.session()
			for i := range 10 {
				text := fmt.Sprint(i, " ", strings.Repeat("x", 64))
				host.send(text)
				require.Equal(t, []string{text}, p.receive())
			}
			host.close(3000, "bye")
			assert.Equal(t, `c[3000,"bye"]`, p.next())
			host.wait(t)
		})
	}
}

// wrappedListener has connections that are not plain sockets, as those of a listener that limits their number.
type wrappedListener struct{ net.Listener }

func (l wrappedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return struct{ net.Conn }{conn}, err
}

// The connections of a listener can be wrapped.
func TestStreamOfAWrappedListener(t *testing.T) {
	t.Parallel()
	for _, c := range streams() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serveSite(t, func(s *site) { s.cfg.ResponseLimit = 64 })
			web := httptest.NewUnstartedServer(s)
			web.Listener = wrappedListener{web.Listener}
			web.Start()
			t.Cleanup(web.Close)
			s.connect(web.URL, &http.Transport{})
			dials := countDials(s)
			p := s.open(c)
			host := s.session()
			for i := range 10 {
				text := fmt.Sprint(i, " ", strings.Repeat("x", 64))
				host.send(text)
				require.Equal(t, []string{text}, p.receive())
				_, err := p.frame()
				require.ErrorIs(t, err, io.EOF)
			}
			assert.LessOrEqual(t, dials.Load(), int64(2), "only the first connection may be closed")
			host.send("x")
			require.Equal(t, []string{"x"}, p.receive())
			p.abort()
			host.wait(t)
			assert.Equal(t, session.Lost, host.end.Cause)
		})
	}
}

// A server that is shut down does not serve the next request of a connection.
func TestStreamWhoseServerIsShutDown(t *testing.T) {
	t.Parallel()
	for _, c := range streams() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, func(s *site) { s.cfg.ResponseLimit = 64 })
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			web := &http.Server{Handler: s}
			ended := make(chan error, 1)
			go func() { ended <- web.Serve(l) }()
			s.connect("http://"+l.Addr().String(), &http.Transport{})
			_, r := rawStream(t, s, c, "shut")
			host := s.session()
			response, err := http.ReadResponse(r, nil)
			require.NoError(t, err)
			require.NoError(t, web.Shutdown(t.Context()))
			require.ErrorIs(t, <-ended, http.ErrServerClosed)
			host.send(strings.Repeat("x", 64)) // the stream ends
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			assert.Contains(t, string(body), "xxxx")
			_, err = r.ReadByte()
			assert.ErrorIs(t, err, io.EOF)
			host.Abort()
			host.wait(t)
		})
	}
}

// Clients of one channel, which receive the same messages, do not all send their next requests at the same
// time: the second response has a length at random.
func TestStreamsEndAtDifferentTimes(t *testing.T) {
	t.Parallel()
	const limit, size = 128 << 10, 4 << 10
	for _, c := range streams() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serveSite(t)
			text := strings.Repeat("x", size)
			// length returns the number of messages in a response.
			length := func(p *peer, host *siteConn) (n int) {
				for {
					host.send(text)
					if p.response == nil {
						require.NoError(t, p.request())
					}
					frame, err := p.frame()
					for ; err == nil && frame[0] == 'o'; frame, err = p.frame() {
						continue
					}
					if errors.Is(err, io.EOF) {
						return n
					}
					require.NoError(t, err)
					n += strings.Count(frame, text)
				}
			}
			lengths := map[int]bool{}
			for range 12 {
				p := s.open(c)
				host := s.session()
				for i := range 4 {
					n := length(p, host)
					assert.LessOrEqual(t, n, limit/size+1)
					if i == 1 {
						lengths[n] = true
						assert.GreaterOrEqual(t, n, limit/4/(size+100))
					} else {
						assert.GreaterOrEqual(t, n, limit/(size+100))
					}
				}
				p.abort()
				host.Abort()
				host.wait(t)
			}
			assert.Greater(t, len(lengths), 2)
		})
	}
}

// lateLine returns from a Write of the end of a response only when the client has disconnected.
type lateLine struct {
	sockjs.Line
	gone chan struct{}
}

func (l *lateLine) TryWrite([]byte) (int, error) { return 0, nil }

func (l *lateLine) Write(p []byte, timeout time.Duration) error {
	err := l.Line.Write(p, timeout)
	if strings.HasSuffix(string(p), "\r\n0\r\n\r\n") {
		<-l.gone
	}
	return err
}

func (l *lateLine) Await() error {
	err := l.Line.Await()
	time.AfterFunc(10*time.Millisecond, func() { close(l.gone) })
	return err
}

// A client can close its connection as soon as it has read the end of a response. Its session goes on with
// the next request.
func TestStreamThatIsClosedAtItsEnd(t *testing.T) {
	t.Parallel()
	for _, c := range streams() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serveSite(t, func(s *site) { s.cfg.ResponseLimit = 64 })
			s.handler.WrapLines(func(l sockjs.Line) sockjs.Line { return &lateLine{l, make(chan struct{})} })
			conn, r := rawStream(t, s, c, "closed")
			host := s.session()
			response, err := http.ReadResponse(r, nil)
			require.NoError(t, err)
			host.send(strings.Repeat("x", 64))
			_, err = io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, conn.Close())
			p := &peer{s: s, c: c, id: "closed"}
			host.send("next")
			assert.Equal(t, []string{"next"}, p.receive())
			host.Abort()
			host.wait(t)
		})
	}
}

// A stream whose client has disconnected ends its session before the next receiver can have it.
func TestStreamEndsItsSessionFirst(t *testing.T) {
	t.Parallel()
	for _, c := range streams() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ending := make(chan struct{})
			end := make(chan struct{})
			var once sync.Once
			s := serveSite(t, func(s *site) {
				s.onCut = func() {
					once.Do(func() {
						close(ending)
						<-end
					})
				}
			})
			p := s.open(c)
			first := s.session()
			p.abort()
			<-ending
			before := s.requests.Load()
			go func() {
				defer close(end)
				for s.requests.Load() == before {
					runtime.Gosched()
				}
				pause(50 * time.Millisecond) // in which the request finds the session
			}()
			requests := before + 1
			frame := p.next()
			for ; strings.HasPrefix(frame, "c[2010,"); requests++ { // a loaded machine
				p.abort()
				frame = p.next()
			}
			require.Equal(t, "o", frame)
			assert.Equal(t, requests, s.requests.Load(), "the first response has the frame")
			first.wait(t)
			host := s.session()
			host.send("new")
			assert.Equal(t, []string{"new"}, p.receive())
		})
	}
}

// The end of a response does not say that the connection is closed, so it serves the next request, also
// if the session has ended.
func TestStreamKeepsTheConnectionOfASessionThatEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*siteConn){
		"close": func(c *siteConn) { c.close(3000, "bye") },
		"abort": func(c *siteConn) { c.Abort() },
	} {
		for _, c := range streams() {
			t.Run(name+" "+c.name, func(t *testing.T) {
				t.Parallel()
				s := serveSite(t)
				conn, r := rawStream(t, s, c, "ends")
				host := s.session()
				response, err := http.ReadResponse(r, nil)
				require.NoError(t, err)
				p := s.reader(c, response)
				require.Equal(t, "o", p.next())
				assert.False(t, response.Close)
				end(host)
				_, err = io.ReadAll(p.lines)
				require.NoError(t, err)
				_, err = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				require.NoError(t, err)
				_, err = http.ReadResponse(r, nil)
				assert.NoError(t, err)
			})
		}
	}
}

// It waits for that request no longer than for the peer's end of a WebSocket.
func TestStreamClosesTheConnectionOfASessionThatEnded(t *testing.T) {
	t.Parallel()
	s := serveSite(t, func(s *site) { s.cfg.CloseTimeout = 100 * time.Millisecond })
	conn, r := rawStream(t, s, xhrStreaming, "ends")
	host := s.session()
	response, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	host.close(3000, "bye")
	_, err = io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute))) // less than an idle connection has
	_, err = r.ReadByte()
	assert.ErrorIs(t, err, io.EOF)
}
