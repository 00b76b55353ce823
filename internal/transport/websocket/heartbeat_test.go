package websocket_test

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/transporttest"
)

// upgrader passes the Sessions to the test.
func upgrader(h *host, sessions chan<- session.Session) http.Handler {
	if !h.cfg.RespondFirst {
		h.cfg.RespondFirst = true // the client connects before the test calls Start
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sess := h.upgrade(w, r); sess != nil {
			sessions <- sess
		}
	})
}

// inMemory connects a client to h over net.Pipe, through an http.Server.
func inMemory(t *testing.T, h http.Handler) *client {
	t.Helper()
	l := transporttest.NewListener()
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.ErrorIs(t, srv.Serve(l), http.ErrServerClosed)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	conn, err := l.Dial(nil)
	require.NoError(t, err)
	return newClient(t, conn).connect()
}

// A stamped frame has the time of its arrival, from the start of the connection.
type stamped struct {
	at    time.Duration
	frame string
}

// record reads frames, with the time of each, until the connection ends. It answers pings until
// the given time.
func (c *client) record(began time.Time, answerUntil time.Duration) <-chan []stamped {
	all := make(chan []stamped, 1)
	go func() {
		var frames []stamped
		for {
			f, err := c.readFrame()
			if err != nil {
				all <- frames
				return
			}
			at := time.Since(began)
			frames = append(frames, stamped{at, f.String()})
			if f.op == opPing && at <= answerUntil {
				_, _ = c.Write(frame(fin|opPong, ""))
			}
		}
	}()
	return all
}

// sockjs.md rows 16 and 17: a peer that has disappeared without notice is detected within two
// heartbeats, although everything that is sent to it can still be written.
func TestRow16And17DeadPeer(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHost(f.framed, transporttest.Config())
				c := inMemory(t, h)
				began := time.Now()
				frames := c.record(began, 0)
				s := h.Conn(t)
				<-s.Done
				assert.Equal(t, 50*time.Second, time.Since(began))
				assert.Equal(t, session.Lost, s.End.Cause)
				assert.Equal(t, 1006, s.End.Code)
				assert.ErrorContains(t, s.End, "two heartbeats")
				want := []stamped{{25 * time.Second, "ping:"}}
				if f.framed {
					want = []stamped{{0, "text:o"}, {25 * time.Second, "text:h"}, {25 * time.Second, "ping:"}}
				}
				assert.Equal(t, want, <-frames)
			})
		})
	}
}

// A peer that answers stays connected. When it becomes silent, the two heartbeats count from
// the last bytes that were received.
func TestLivePeerStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(true, transporttest.Config())
		c := inMemory(t, h)
		began := time.Now()
		frames := c.record(began, 10*time.Minute)
		s := h.Conn(t)
		time.Sleep(10*time.Minute + 10*time.Second)
		c.send(frame(fin|opText, `["still here"]`))
		<-s.Done
		assert.Equal(t, 11*time.Minute, time.Since(began))
		assert.Equal(t, []string{"still here"}, s.Got)
		got := <-frames
		assert.Len(t, got, 1+2*26+1) // o, h and ping to 10:50, an echo
	})
}

// While a command blocks the reader, nothing of the peer is read, so the peer does not count
// as silent.
func TestBusyReaderIsNoDeadPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(false, transporttest.Config())
		sessions := make(chan session.Session, 1)
		c := inMemory(t, upgrader(h, sessions))
		frames := c.record(time.Now(), 0)
		s := h.Open(<-sessions)
		s.Session.Start(s.Out)
		go func() { _, _ = c.Write(frame(fin|opText, "first")) }()
		_, err := s.Session.Receive()
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		began := time.Now()
		_, err = s.Session.Receive()
		require.ErrorAs(t, err, &s.End)
		assert.Equal(t, session.Lost, s.End.Cause)
		assert.Equal(t, 50*time.Second, time.Since(began))
		s.Finish()
		<-frames
	})
}

func TestHeartbeatOff(t *testing.T) {
	t.Parallel()
	for _, interval := range []time.Duration{0, -1} {
		synctest.Test(t, func(t *testing.T) {
			cfg := transporttest.Config()
			cfg.Heartbeat = interval
			h := newHost(true, cfg)
			c := inMemory(t, h)
			frames := c.record(time.Now(), 0)
			s := h.Conn(t)
			time.Sleep(24 * time.Hour)
			require.NoError(t, c.Close())
			<-s.Done
			assert.Equal(t, []stamped{{0, "text:o"}}, <-frames)
		})
	}
}

// sockjs.md row 23: the server closes with c[…] and a close frame, and waits for the close
// frame of the peer until CloseTimeout.
func TestRow23CloseHandshake(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		answer time.Duration // the time of the peer's close frame after the server's; 0 means never
		takes  time.Duration
	}{
		{"answered", 3 * time.Second, 3 * time.Second},
		{"not answered", 0, 5 * time.Second},
		{"answered too late", 6 * time.Second, 5 * time.Second},
	}
	for _, f := range forms {
		for _, tt := range tests {
			t.Run(f.name+" "+tt.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					h := newHost(f.framed, transporttest.Config())
					c := inMemory(t, h)
					s := h.Conn(t)
					s.Stop(3001, "shutting down")
					for _, want := range append(f.opening(), f.closing(3001, "shutting down")...) {
						c.expect(want)
					}
					began := time.Now()
					synctest.Wait()
					s.Session.Stop() // a second call must not end the wait
					go func() {
						for time.Since(began) < tt.answer-time.Second {
							_, _ = c.Write(frame(fin|opText, f.text("not heard any more")))
							time.Sleep(time.Second)
						}
						if tt.answer > 0 {
							time.Sleep(tt.answer - time.Since(began))
							_, _ = c.Write(closeFrame(3001, ""))
						}
					}()
					<-s.Done
					assert.Equal(t, tt.takes, time.Since(began))
					assert.Empty(t, s.Got)
					c.expectEnd()
					time.Sleep(tt.answer)
				})
			})
		}
	}
}

// Writing the close frame can take WriteTimeout, but not longer.
func TestLingerIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := transporttest.Config()
		cfg.WriteTimeout, cfg.CloseTimeout = 7*time.Second, 5*time.Second
		h := newHost(false, cfg)
		c := inMemory(t, h) // a client that does not read
		s := h.Conn(t)
		s.Out.Send(fanout.NewFrame([]byte("never read")))
		synctest.Wait()
		began := time.Now()
		s.Stop(3001, "shutting down")
		<-s.Done
		assert.Equal(t, 7*time.Second, time.Since(began))
		_, err := c.readFrame()
		assert.True(t, errors.Is(err, io.EOF), err)
	})
}

// If several pings wait for an answer, the pong answers the last one.
func TestPongAnswersTheLatestPing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(false, transporttest.Config())
		c := inMemory(t, h)
		s := h.Conn(t)
		s.Out.Send(fanout.NewFrame([]byte("held up")))
		synctest.Wait()
		for _, p := range []string{"1", "2", "3"} {
			c.send(frame(fin|opPing, p))
		}
		synctest.Wait()
		c.expect("text:held up")
		c.expect("pong:3")
		go c.send(closeFrame(1000, ""))
		c.expect("close:1000:")
		<-s.Done
	})
}

// Stop of a session that is already lingering does not end its wait.
func TestStopWhileLingering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(true, transporttest.Config())
		c := inMemory(t, h)
		s := h.Conn(t)
		c.expect("text:o")
		c.send(frame(fin|opText, "not json"))
		c.expect("close:1002:Broken framing.")
		synctest.Wait()
		s.Session.Stop()
		began := time.Now()
		time.Sleep(3 * time.Second)
		c.send(closeFrame(1002, ""))
		<-s.Done
		assert.Equal(t, 3*time.Second, time.Since(began))
		assert.Equal(t, session.Fault, s.End.Cause)
	})
}
