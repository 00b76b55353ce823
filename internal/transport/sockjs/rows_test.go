package sockjs_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/session"
)

// The tests for the rows of sockjs.md on the HTTP transports of SockJS. Rows 8, 9, 11, 17 and 23
// are about WebSockets. Row 12 is about the host, whose reader recovers.

// A client that aborts and reconnects at once with the same id gets a working session: either a
// new one with an open frame, or the response is a close frame.
func TestRow01NoZombies(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := serveSite(t, func(s *site) { s.cfg.Heartbeat = 5 * time.Second })
		p := s.peer(c)
		var host *siteConn
		for i := range 60 {
			frame := p.next()
			for retry := 0; strings.HasPrefix(frame, "c[2010,") && retry < 20; retry++ {
				frame = p.next() // the server has not detected the abort yet
			}
			// A request can overtake the one that was aborted before it. Then the session has not
			// been notified of the abort, and must work as before.
			if overtook := !c.streaming && i%2 == 0 && i > 0 && frame == "h"; !overtook {
				require.Equal(t, "o", frame, "round %d", i)
				host = s.session()
			}
			p.send(`["alive"]`)
			require.Equal(t, []string{"alive"}, p.receive())
			if !c.streaming {
				abortPoll(p)
			}
			p.abort()
			if i%2 == 0 {
				host.wait(t)
			}
		}
	})
}

// abortPoll starts a poll without frames, and aborts it when the server has received it.
func abortPoll(p *peer) {
	p.s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	before := p.s.requests.Load()
	done := make(chan error, 1)
	go func() {
		res, err := p.s.do(ctx, p.c.method, p.path(p.c.name)+p.c.query(), "")
		if err == nil {
			_ = res.Body.Close()
		}
		done <- err
	}()
	require.Eventually(p.s.t, func() bool { return p.s.requests.Load() > before }, patience, time.Millisecond)
	cancel()
	require.ErrorIs(p.s.t, <-done, context.Canceled)
}

// A second request while one waits receives a close frame after a short wait, and does not
// affect the first; rows 2 and 14.
func TestRow02SecondReceiver(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := serveSite(t)
		p := s.open(c)
		host := s.session()
		frames := make(chan string, 2)
		ask := func(p *peer) {
			frame, err := p.tryNext()
			frames <- fmt.Sprint(frame, err)
			p.abort()
		}
		if c.streaming {
			go ask(&peer{s: s, c: c, id: p.id})
		} else { // each of the two can be the first
			go ask(&peer{s: s, c: c, id: p.id})
			go ask(&peer{s: s, c: c, id: p.id})
		}
		assert.Equal(t, `c[2010,"Another connection still open"]<nil>`, <-frames)
		host.send("x")
		if c.streaming {
			go ask(p)
		}
		assert.Equal(t, `a["x"]<nil>`, <-frames)
	})
}

// Invalid JSON is an error, and nothing is dropped with a 204: a value that is not a string
// arrives as an empty message, to which pushy responds with an error. Also row 6.
func TestRow07Bodies(t *testing.T) {
	t.Parallel()
	const limit = 1 << 10
	s := serveSite(t, func(s *site) {
		s.cfg.MaxMessage = limit
		s.onText = func(c *siteConn, text string) { c.send("<" + text + ">") }
	})
	text := strings.Repeat("x", limit)
	tests := []struct {
		name, body string
		status     int
		answer     string
		delivered  []string
	}{
		{"messages", `["a","b"]`, 204, "", []string{"<a>", "<b>"}},
		{"blanks", " [ \"a\" , \"b\" ]\r\n", 204, "", []string{"<a>", "<b>"}},
		{"no messages", `[]`, 204, "", nil},
		{"one alone", `"x"`, 204, "", []string{"<x>"}},
		{"an object", `{"a":1}`, 204, "", []string{"<>"}},
		{"null", `null`, 204, "", []string{"<>"}},
		{"a number among texts", `["a",1,"b"]`, 204, "", []string{"<a>", "<>", "<b>"}},
		{"nested", `[["a"],{"b":["]"]}]`, 204, "", []string{"<>", "<>"}},
		{"nothing", ``, 500, "Payload expected.", nil},
		{"blanks only", " ", 500, "Broken JSON encoding.", nil},
		{"cut off", `["x`, 500, "Broken JSON encoding.", nil},
		{"garbage behind", `["a"]x`, 500, "Broken JSON encoding.", nil},
		{"two texts", `["a"]["b"]`, 500, "Broken JSON encoding.", nil},
		{"good, then broken", `["a",]`, 500, "Broken JSON encoding.", nil},
		{"deep", strings.Repeat("[", limit), 500, "Broken JSON encoding.", nil},
		{"at the limit", `["` + text + `"]`, 204, "", []string{"<" + text + ">"}},
		{"over the limit", `["` + text + `x"]`, 413, `{"error":{"code":"413","message":"a message has at most 1024 bytes, and a body at most 1000 messages"}}`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := s.open(carriers[0])
			for _, chunked := range []bool{false, true} {
				var body io.Reader = strings.NewReader(tt.body)
				if chunked {
					body = struct{ io.Reader }{body}
				}
				res, err := s.client.Post(s.base+p.path("xhr_send"), "text/plain", body)
				require.NoError(t, err)
				text, err := io.ReadAll(res.Body)
				require.NoError(t, err)
				require.NoError(t, res.Body.Close())
				assert.Equal(t, tt.status, res.StatusCode)
				assert.Equal(t, tt.answer, string(text))
			}
			p.send(`["end"]`)
			var got []string
			for len(got) == 0 || got[len(got)-1] != "<end>" {
				got = append(got, p.receive()...)
			}
			assert.Equal(t, append(append(tt.delivered, tt.delivered...), "<end>"), got)
		})
	}
}

// A client that sends while its commands are busy blocks no goroutine, and one that continues is
// disconnected.
func TestRow10InboxIsBounded(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`["x"]`, `["` + strings.Repeat("x", 60<<10) + `"]`} {
		release, entered := make(chan struct{}), make(chan struct{}, 2000)
		s := serveSite(t, func(s *site) {
			s.cfg.DisconnectDelay = 10 * time.Minute // the client does not poll while it sends
			s.onText = func(*siteConn, string) {
				entered <- struct{}{}
				<-release
			}
		})
		free := sync.OnceFunc(func() { close(release) })
		t.Cleanup(free) // runs before the clean-up of the site, which waits for the command
		p := s.open(carriers[0])
		host := s.session()
		n := 0
		for ; n < 2000 && len(host.cut) == 0; n++ {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			res, err := s.do(ctx, "POST", p.path("xhr_send"), body)
			cancel()
			require.NoError(t, err)
			_ = res.Body.Close()
			require.Equal(t, 204, res.StatusCode)
			if n > 1010 || len(body) > 100 && n > 10 {
				break
			}
		}
		<-entered
		free()
		assert.Equal(t, `c[1008,"too many messages waiting"]`, p.next())
		host.wait(t)
		assert.Equal(t, session.Fault, host.end.Cause)
		assert.Empty(t, entered, "what waited was not dropped")
	}
}

// HTTP and WebSocket sessions with the same id are separate, and an id can be used again when
// its session has ended.
func TestRow13IDs(t *testing.T) {
	t.Parallel()
	s := serveSite(t)
	p := s.open(carriers[0])
	over := s.session()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, strings.Replace(handshake, "GET /", "GET "+p.path("websocket"), 1))
	require.NoError(t, err)
	reader := bufio.NewReader(conn)
	res, err := http.ReadResponse(reader, nil)
	require.NoError(t, err)
	require.Equal(t, 101, res.StatusCode)
	next := func() string {
		f, err := ws.ReadFrame(reader)
		require.NoError(t, err)
		return string(f.Payload)
	}
	assert.Equal(t, "o", next())
	assert.NotSame(t, over, s.session())
	p.send(`["http"]`)
	assert.Equal(t, []string{"http"}, p.receive())
	_, err = conn.Write(textFrame(`["ws"]`))
	require.NoError(t, err)
	assert.Equal(t, `a["ws"]`, next())
	_, err = conn.Write(closeFrame(1000, ""))
	require.NoError(t, err)

	over.Abort()
	over.wait(t)
	assert.Equal(t, 404, s.post(p.path("xhr_send"), `["x"]`).status)
	assert.Equal(t, "o", p.next())
	assert.NotSame(t, over, s.session())
	over = nil
}

// Scripts of other pages cannot use a session whose id they know, and a later request with
// another origin is not the client that was admitted; also row 15. Ids are not logged.
func TestRow14IDsAreThePages(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := serveSite(t)
		mine, evil := "http://mine.example", "http://evil.example"
		p := s.peer(c)
		p.header = []string{"Origin", mine}
		require.Equal(t, "o", p.next())
		sending, ok := c.sending()
		for origin, want := range map[string]int{evil: 404, "null": 404, s.base: 404, mine: ok, "": ok} {
			header := []string{"Content-Type", "text/plain"}
			if origin != "" {
				header = append(header, "Origin", origin)
			}
			assert.Equal(t, want, s.post(p.path(sending), `["x"]`, header...).status, origin)
		}
		assert.Equal(t, 404, s.call(c.method, p.path(c.name)+c.query(), "", "Origin", evil).status)
		assert.EqualValues(t, 1, s.admitted.Load())
		host := s.session()
		host.Abort()
		host.wait(t)
		p.abort()
		assert.NotContains(t, s.log.String(), p.id)

		// The same applies to a session whose first request had no Origin, like that of a script.
		p = s.peer(c)
		p.header = []string{"Referer", mine + "/page", "Sec-Fetch-Site", "cross-site"}
		require.Equal(t, "o", p.next())
		for origin, want := range map[string]int{evil: 404, s.base: 404, mine: ok} {
			assert.Equal(t, want, s.post(p.path(sending), `["x"]`, "Content-Type", "text/plain", "Origin", origin).status, origin)
		}
		p.abort()
	})
}

// Messages that were sent before Close reach a client that polls, followed by the close frame,
// and xhr_send to a session that is ending is not an error: rows 24 and 25.
func TestRow25LastWords(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := serveSite(t, func(s *site) { s.cfg.ResponseLimit = 10 })
		p := s.open(c)
		host := s.session()
		for p.response != nil { // until the stream is full, so that no receiver is attached
			host.send("a text over the limit")
			if _, err := p.frame(); err != nil {
				break
			}
		}
		host.send("last")
		host.send("words")
		host.close(3000, "Go away!")
		p.send(`["too late"]`)
		var got []string
		for {
			frame := p.next()
			if strings.HasPrefix(frame, "c") {
				assert.Equal(t, `c[3000,"Go away!"]`, frame)
				break
			}
			got = append(got, frame)
		}
		assert.Equal(t, `"last""words"`, strings.NewReplacer("a[", "", "]", "", ",", "", `"a text over the limit"`, "").Replace(strings.Join(got, "")))
		host.wait(t)
		p.abort()
	})
}

type hidden struct{ http.ResponseWriter }

type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// With middleware that has Unwrap, everything works. Without Unwrap, and under
// http.TimeoutHandler, there is a clear response and one line in the log.
func TestRow27Middleware(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		tests := []struct {
			name  string
			wrap  func(http.Handler) http.Handler
			works bool
		}{
			{"unwrap", func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(wrapped{wrapped{w}}, r) })
			}, true},
			{"hidden", func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(hidden{w}, r) })
			}, false},
			{"TimeoutHandler", func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }, false},
		}
		for _, tt := range tests {
			s := newSite(t)
			srv := httptest.NewServer(tt.wrap(s))
			s.connect(srv.URL, &http.Transport{})
			p := s.peer(c)
			if tt.works {
				require.Equal(t, "o", p.next(), tt.name)
				p.send(`["x"]`)
				require.Equal(t, []string{"x"}, p.receive(), tt.name)
				p.abort()
				s.session().Abort()
			} else {
				for range 2 {
					got := s.call(c.method, p.path(c.name)+c.query(), "")
					assert.Equal(t, 500, got.status, tt.name)
					assert.Contains(t, got.body, `{"error":{"code":"500","message":"the server is not set up for this transport`)
				}
				assert.Zero(t, s.admitted.Load())
			}
			s.client.CloseIdleConnections()
			srv.Close()
			if !tt.works {
				assert.Equal(t, 1, strings.Count(s.log.String(), "\n"), s.log.String())
				assert.Contains(t, s.log.String(), "ResponseWriter is hidden by middleware")
			}
		}
	})
}

// gone is a ResponseWriter whose connection is closed.
type gone struct{ http.ResponseWriter }

func (gone) SetReadDeadline(time.Time) error  { return net.ErrClosed }
func (gone) SetWriteDeadline(time.Time) error { return net.ErrClosed }

// A client that disconnects at any moment is not reported as an error of the host.
func TestRow27GoneIsNotMisplaced(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := newSite(t)
		w := httptest.NewRecorder()
		s.ServeHTTP(gone{w}, httptest.NewRequest(c.method, "/000/abc/"+c.name+c.query(), nil))
		assert.Equal(t, http.StatusRequestTimeout, w.Code)
		assert.Empty(t, s.log.String())
	})
}

// The timeouts of the http.Server do not end responses that wait, and still apply to other
// requests of the same connection.
func TestRow28ServerTimeouts(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		const timeout = 2 * time.Second // long enough for a loaded machine
		s := newSite(t)
		srv := httptest.NewUnstartedServer(s)
		srv.Config.ReadTimeout, srv.Config.WriteTimeout, srv.Config.IdleTimeout = timeout, timeout, patience
		srv.Start()
		t.Cleanup(srv.Close)
		s.connect(srv.URL, &http.Transport{})
		p := s.open(c)
		host := s.session()
		time.AfterFunc(timeout+timeout/2, func() { host.send("x") })
		assert.Equal(t, []string{"x"}, p.receive())
		p.send(`["y"]`)
		assert.Equal(t, []string{"y"}, p.receive())
		p.abort()
		host.Abort()
	})
}

// TLS and HTTP/2.
func TestRow29HTTP2(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		for _, h2 := range []bool{false, true} {
			s := newSite(t)
			srv := httptest.NewUnstartedServer(s)
			srv.EnableHTTP2 = h2
			srv.StartTLS()
			t.Cleanup(srv.Close)
			s.connect(srv.URL, &http.Transport{
				ForceAttemptHTTP2: h2,
				TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the test's own server
			})
			p := s.peer(c)
			require.NoError(t, p.request())
			assert.Equal(t, map[bool]int{false: 1, true: 2}[h2], p.response.ProtoMajor)
			assert.Equal(t, "o", p.next())
			host := s.session()
			for i := range 5 {
				p.send(fmt.Sprintf(`["%d"]`, i))
				assert.Equal(t, []string{fmt.Sprint(i)}, p.receive())
			}
			if p.response == nil {
				abortPoll(p)
			}
			p.abort()
			host.wait(t)
			assert.Equal(t, session.Lost, host.end.Cause)
		}
	})
}

// Independently of how it is mounted and which side shuts down, the client receives a close
// frame, and http.Server.Shutdown is not blocked; rows 26, 30 and 31.
func TestRow31Shutdown(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := newSite(t)
		mux := http.NewServeMux()
		mux.Handle("/deep/socket/", http.StripPrefix("/deep/socket", s))
		srv := httptest.NewServer(mux)
		t.Cleanup(srv.Close)
		s.connect(srv.URL+"/deep/socket", &http.Transport{})
		p := s.open(c)
		waiting := make(chan string, 1)
		go func() {
			frame, err := p.tryNext()
			if err != nil {
				frame = err.Error()
			}
			waiting <- frame
		}()
		host := s.session()
		host.close(3001, "server shutting down")
		assert.Equal(t, `c[3001,"server shutting down"]`, <-waiting)
		host.wait(t)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		assert.NoError(t, srv.Config.Shutdown(ctx))
		p.abort()
	})
}
