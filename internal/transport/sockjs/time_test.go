package sockjs_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/session"
)

// inBubble runs a test for every transport in fake time.
func inBubble(t *testing.T, test func(*testing.T, *site, carrier)) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		synctest.Test(t, func(t *testing.T) {
			s, end := serveInBubble(t)
			defer end()
			test(t, s, c)
		})
	})
}

// raw sends a request and does not read the response.
func (p *peer) raw(t *testing.T, body string) net.Conn {
	conn, err := p.s.client.Transport.(*http.Transport).DialContext(t.Context(), "tcp", "site")
	require.NoError(t, err)
	_, err = fmt.Fprintf(conn, "%s %s%s HTTP/1.1\r\nHost: site\r\nContent-Length: %d\r\n\r\n%s",
		p.c.method, p.path(p.c.name), p.c.query(), len(body), body)
	require.NoError(t, err)
	return conn
}

// ended asserts when and how a session has ended.
func (c *siteConn) ended(t *testing.T, began time.Time, after time.Duration) {
	t.Helper()
	<-c.done
	assert.Equal(t, after, time.Since(began))
	assert.Equal(t, session.Lost, c.end.Cause, c.end)
}

// A client of each transport that never reads is disconnected when a write takes too long, its
// queued bytes are dropped, and it delays no other client.
func TestRow03ClientThatNeverReads(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site, c carrier) {
		stuck := s.peer(c)
		conn := stuck.raw(t, "")
		host := s.session()
		began := time.Now()
		var others []*siteConn
		arrived := make(chan time.Duration, 1000)
		for _, c := range carriers {
			for range 3 {
				p := s.open(c)
				others = append(others, s.session())
				go func() {
					for {
						frame, err := p.tryNext()
						if err != nil || frame[0] != 'a' {
							p.abort()
							return
						}
						arrived <- time.Since(began)
					}
				}()
			}
		}
		synctest.Wait()
		for i := range 10 {
			time.Sleep(100 * time.Millisecond)
			sent := time.Since(began)
			host.send(strings.Repeat("x", 90<<10)) // ten of them are below the limit
			for _, o := range others {
				o.send(fmt.Sprint(i))
			}
			for range others {
				require.Equal(t, sent, <-arrived)
			}
		}
		synctest.Wait() // until the writes of the others have updated the queued bytes
		assert.Equal(t, int64(10*90<<10), s.engine.Waiting())
		assert.Equal(t, 3008, <-host.cut)
		assert.Equal(t, 5*time.Second, time.Since(began))
		<-host.done
		assert.Zero(t, s.engine.Waiting())
		_ = conn.Close()
		for _, o := range others {
			o.close(3000, "bye")
			<-o.done
		}
	})
}

// A client for which more bytes than the limit are queued is disconnected at once; row 4 for
// absent clients.
func TestRow03BoundOfOneClient(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site, c carrier) {
		conn := s.peer(c).raw(t, "")
		host := s.session()
		began := time.Now()
		for host.send(strings.Repeat("x", 64<<10)) {
			require.LessOrEqual(t, s.engine.Waiting(), int64(1<<20))
		}
		assert.Zero(t, time.Since(began))
		assert.Equal(t, 3008, <-host.cut)
		assert.Zero(t, s.engine.Waiting())
		<-host.done
		assert.LessOrEqual(t, time.Since(began), 5*time.Second) // the timeout of its write
		_ = conn.Close()
	})
}

// The session of a client that sends no request ends after the delay, and its queued bytes are
// dropped. A client that sends a request within the delay keeps its session.
func TestRow04AbsentPoller(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site, c carrier) {
		if c.streaming {
			s.cfg.ResponseLimit = 1
		}
		p := s.open(c)
		host := s.session()
		if c.streaming { // after this, the client needs a new request
			host.send(strings.Repeat("x", 128<<10))
			p.receive()
			_, err := p.frame()
			require.ErrorIs(t, err, io.EOF)
		}
		for i := range 20 {
			time.Sleep(4999 * time.Millisecond)
			text := fmt.Sprint(i)
			if c.streaming {
				text += strings.Repeat("x", 128<<10)
			}
			host.send(text)
			require.Equal(t, []string{text}, p.receive())
			if c.streaming {
				_, err := p.frame()
				require.ErrorIs(t, err, io.EOF)
			}
		}
		synctest.Wait() // until the last frame has been subtracted from the queued bytes
		began := time.Now()
		require.True(t, host.send(strings.Repeat("x", 1<<20)))
		host.ended(t, began, 5*time.Second)
		assert.Zero(t, s.engine.Waiting())
		assert.Equal(t, "o", p.next(), "the id is free again")
		p.abort()
		s.session().ended(t, time.Now(), map[bool]time.Duration{true: 0, false: 5 * time.Second}[c.streaming])
	})
}

// A client that sends a request after the Outbox has disconnected it receives a close frame.
func TestRow04SlowConsumerIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, end := serveInBubble(t)
		defer end()
		p := s.open(carriers[0])
		host := s.session()
		for host.send(strings.Repeat("x", 64<<10)) {
			continue
		}
		time.Sleep(4 * time.Second)
		assert.Equal(t, `c[3008,"slow consumer"]`, p.next())
		<-host.done
		time.Sleep(4 * time.Second)
		assert.Equal(t, `c[3008,"slow consumer"]`, p.next())
		time.Sleep(1001 * time.Millisecond)
		assert.Equal(t, "o", p.next())
		(<-s.sessions).Abort()
	})
}

// A peer that has disappeared without notice: a poll ends with its heartbeat, and a stream after
// two. The session ends if no request arrives within the delay after that.
func TestRow16HalfOpen(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site, c carrier) {
		p := s.open(c)
		host := s.session()
		began := time.Now()
		bound := 55 * time.Second
		beats := 0
		if !c.streaming {
			bound = 30 * time.Second
		}
		for { // the kernel accepts bytes for a peer that has disappeared
			frame, err := "", error(nil)
			if p.response == nil && !c.streaming {
				require.NoError(t, p.request())
			}
			if frame, err = p.frame(); err != nil {
				break
			}
			assert.Equal(t, "h", frame)
			beats++
			assert.Equal(t, time.Duration(beats)*25*time.Second, time.Since(began))
			if !c.streaming {
				break
			}
		}
		assert.GreaterOrEqual(t, beats, 1)
		host.ended(t, began, bound)
		p.abort()
	})
}

// After such an end of a stream, the next one continues, and no message is lost.
func TestRow16StreamGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site, c carrier) {
		p := s.open(c)
		host := s.session()
		for i := range 40 {
			time.Sleep(4 * time.Second)
			host.send(fmt.Sprint(i))
			frame := p.next()
			for frame == "h" {
				frame = p.next()
			}
			require.Equal(t, fmt.Sprintf(`a["%d"]`, i), frame)
		}
		assert.Empty(t, s.sessions, "another session was opened")
		p.abort()
		host.Abort()
		<-host.done
	})
}

// At every endpoint, a body must arrive within ten seconds.
func TestRow22BodiesThatDoNotCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, end := serveInBubble(t)
		defer end()
		p := s.open(carriers[0])
		host := s.session()
		for _, path := range []string{"xhr_send", "jsonp_send", "xhr", "xhr_streaming"} {
			conn, err := s.client.Transport.(*http.Transport).DialContext(t.Context(), "tcp", "site")
			require.NoError(t, err)
			began := time.Now()
			go func() { // keeps the session
				time.Sleep(4 * time.Second)
				host.send("x")
				p.receive()
				time.Sleep(4 * time.Second)
				host.send("x")
				p.receive()
			}()
			_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: site\r\nContent-Length: 100\r\n\r\n[", p.path(path))
			require.NoError(t, err)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			assert.Equal(t, 408, res.StatusCode)
			assert.Equal(t, 10*time.Second, time.Since(began))
			_ = conn.Close()
			host.send("again")
			assert.Equal(t, []string{"again"}, p.receive())
		}
		host.Abort()
		<-host.done
	})
}

// A client that sends a request within the delay receives the close frame, and so do its later
// requests. If it sends none, nothing of the session is left.
func TestRow25GoodbyeWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site, c carrier) {
		if c.streaming {
			return // its receiver is attached already
		}
		for _, comes := range []bool{true, false} {
			p := s.open(c)
			host := s.session()
			host.send("last words")
			began := time.Now()
			host.close(3001, "server shutting down")
			if comes {
				time.Sleep(4 * time.Second)
				assert.Equal(t, []string{"last words"}, p.receive())
				time.Sleep(4 * time.Second)
				assert.Equal(t, `c[3001,"server shutting down"]`, p.next())
				<-host.done
				assert.Equal(t, 8*time.Second, time.Since(began))
				time.Sleep(4 * time.Second)
				assert.Equal(t, `c[3001,"server shutting down"]`, p.next())
				time.Sleep(1001 * time.Millisecond)
			} else {
				<-host.done
				assert.Equal(t, 5*time.Second, time.Since(began))
			}
			assert.Equal(t, 404, s.post(p.path("xhr_send"), `["x"]`).status)
		}
	})
}
