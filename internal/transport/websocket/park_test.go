//go:build linux

package websocket_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/transporttest"
)

// parker is the reader of a Session that is parked after each message, as the core does.
type parker struct {
	*transporttest.Conn
	resumed chan struct{} // an element for each Resume
	got     chan string
	end     chan error
}

func newParker(s *transporttest.Conn) *parker {
	return &parker{
		Conn:    s,
		resumed: make(chan struct{}, 1000),
		got:     make(chan string, 1000),
		end:     make(chan error, 1),
	}
}

// next parks the Session, or reads in another goroutine.
func (p *parker) next() (parked bool) {
	if p.Session.(session.Parker).Park(p) {
		return true
	}
	go p.read()
	return false
}

func (p *parker) Resume() {
	p.resumed <- struct{}{}
	p.read()
}

func (p *parker) read() {
	text, err := p.Session.Receive()
	if err != nil {
		p.end <- err
		return
	}
	p.got <- string(text)
	p.next()
}

// await returns the next element of a channel.
func await[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		require.Fail(t, "nothing happened")
	}
	return v
}

// openParked returns a Session over TCP that has sent its opening, and is parked.
func openParked(t *testing.T, f form) (*parker, *client) {
	t.Helper()
	sess, c := connectedSession(t, f.framed)
	out := transporttest.NewHost(5 * time.Second)
	p := newParker(out.Open(sess))
	sess.Start(p.Out)
	for _, want := range f.opening() {
		c.expect(want)
	}
	require.True(t, p.next())
	return p, c
}

// finish ends the Session, which has returned an error.
func (p *parker) finish() {
	p.Out.Discard()
	p.Session.Abort()
	p.Session.Linger()
}

// A parked Session receives all messages in order, whatever their parts are.
func TestParkedReceives(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			p, c := openParked(t, f)
			defer func() { p.finish() }()
			var want []string
			for i := range 50 {
				message := fmt.Sprint("message ", i)
				want = append(want, message)
				wire := frame(fin|opText, f.text(message))
				switch i % 5 {
				case 0: // in two parts
					c.send(wire[:i%len(wire)])
					c.send(wire[i%len(wire):])
				case 1: // after a pong
					c.send(frame(fin|opPong, ""), wire)
				case 2: // two at once
					want = append(want, "second")
					c.send(wire, frame(fin|opText, f.text("second")))
				case 3: // fragments, with a ping between them
					text := f.text(message)
					c.send(frame(opText, text[:3]))
					c.send(frame(fin|opPing, "?"), frame(fin|opCont, text[3:]))
					c.expect("pong:?")
				default:
					c.send(wire)
				}
				if i%7 == 0 { // it is parked again, as far as a test can know
					for len(p.got) < len(want) {
						runtime.Gosched()
					}
				}
			}
			for _, message := range want {
				require.Equal(t, message, await(t, p.got))
			}
			assert.NotEmpty(t, p.resumed)
			require.True(t, p.Out.Send(fanout.NewFrame([]byte("down"))))
			c.expect(f.echo("down"))
			require.NoError(t, c.Close())
			var end *session.CloseError
			require.ErrorAs(t, await(t, p.end), &end)
			assert.Equal(t, session.Lost, end.Cause)
		})
	}
}

// Whatever ends a Session resumes its reader, which receives the reason.
func TestParkedEnds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		end   func(p *parker, c *client)
		cause session.Cause
		code  int
	}{
		{"stop", func(p *parker, _ *client) { p.Session.Stop() }, session.Stopped, 0},
		{"abort", func(p *parker, _ *client) { p.Session.Abort() }, session.Lost, 1006},
		{"end of the stream", func(_ *parker, c *client) { _ = c.Close() }, session.Lost, 1006},
		{"end of the client's side", func(_ *parker, c *client) { _ = c.Conn.(*net.TCPConn).CloseWrite() }, session.Lost, 1006},
		{"reset", func(_ *parker, c *client) {
			_ = c.Conn.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}, session.Lost, 1006},
		{"close frame", func(_ *parker, c *client) { c.send(closeFrame(4000, "bye")) }, session.Closed, 4000},
		{"fault", func(_ *parker, c *client) { c.send(frame(fin|opText|0x70, "x")) }, session.Fault, 1002},
		{"several at once", func(p *parker, c *client) {
			go p.Session.Stop()
			go p.Session.Abort()
			go func() { _ = c.Close() }()
		}, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for range 20 {
				p, c := openParked(t, form{"bare", false})
				tt.end(p, c)
				var end *session.CloseError
				require.ErrorAs(t, await(t, p.end), &end)
				if tt.cause != 0 {
					assert.Equal(t, tt.cause, end.Cause)
					assert.Equal(t, tt.code, end.Code)
				}
				p.finish()
				assert.Len(t, p.resumed, 1)
				assert.False(t, p.Session.(session.Parker).Park(p), "after the end")
			}
		})
	}
}

// corked collects what is written until it is flushed.
type corked struct {
	net.Conn
	wire []byte
	on   bool
}

func (c *corked) Write(p []byte) (int, error) {
	if !c.on {
		return c.Conn.Write(p)
	}
	c.wire = append(c.wire, p...)
	return len(p), nil
}

// flush writes the first n bytes, or all if n is 0.
func (c *corked) flush(t *testing.T, n int) {
	t.Helper()
	if n == 0 {
		n = len(c.wire)
	}
	_, err := c.Conn.Write(c.wire[:n])
	require.NoError(t, err)
	c.wire = c.wire[n:]
}

// Over TLS, a Session is parked only if no record has been read from the socket and not returned.
func TestParkedOverTLS(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			sessions := make(chan session.Session, 1)
			srv := httptest.NewUnstartedServer(upgrader(newHost(f.framed, transporttest.Config()), sessions))
			srv.StartTLS()
			t.Cleanup(srv.Close)
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			require.NoError(t, err)
			cork := &corked{Conn: conn}
			over := tls.Client(cork, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own server
			c := newClient(t, over).connect()
			sess := await(t, sessions)
			p := newParker(transporttest.NewHost(5 * time.Second).Open(sess))
			sess.Start(p.Out)
			for _, want := range f.opening() {
				c.expect(want)
			}
			require.True(t, p.next())
			cork.on = true
			for i := range 30 {
				first, second := fmt.Sprint("first ", i), fmt.Sprint("second ", i)
				c.send(frame(fin|opText, f.text(first)))
				switch i % 3 {
				case 0: // two records at once
					c.send(frame(fin|opText, f.text(second)))
					cork.flush(t, 0)
				case 1: // one, and a part of another
					whole := len(cork.wire)
					c.send(frame(fin|opText, f.text(second)))
					cork.flush(t, whole+1+i%20)
					require.Equal(t, first, await(t, p.got))
					cork.flush(t, 0)
					require.Equal(t, second, await(t, p.got))
					continue
				default:
					cork.flush(t, 0)
					require.Equal(t, first, await(t, p.got))
					continue
				}
				require.Equal(t, first, await(t, p.got))
				require.Equal(t, second, await(t, p.got))
			}
			require.NotEmpty(t, p.resumed)
			require.True(t, p.Out.Send(fanout.NewFrame([]byte("down"))))
			c.expect(f.echo("down"))
			if f.framed {
				sess.Stop()
			} else {
				cork.on = false
				require.NoError(t, c.Close())
			}
			require.Error(t, await(t, p.end))
			p.finish()
		})
	}
}

// A host can close the connection under a parked Session, for which the kernel reports nothing. Its reader
// is resumed all the same, also if the next connection gets the same file descriptor.
func TestParkedIsClosedByTheHost(t *testing.T) {
	t.Parallel()
	sessions := make(chan session.Session, 1)
	conns := make(chan net.Conn, 1)
	srv := httptest.NewUnstartedServer(upgrader(newHost(false, transporttest.Config()), sessions))
	srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		conns <- c
		return ctx
	}
	srv.Start()
	t.Cleanup(srv.Close)
	var all []*parker
	for range 20 {
		c := dial(t, srv.Listener.Addr().String()).connect()
		p := newParker(transporttest.NewHost(5 * time.Second).Open(<-sessions))
		p.Session.Start(p.Out)
		require.True(t, p.next())
		require.NoError(t, (<-conns).Close())
		require.NoError(t, c.Close()) // both file descriptors are used again
		all = append(all, p)
	}
	for _, p := range all {
		var end *session.CloseError
		require.ErrorAs(t, await(t, p.end), &end)
		assert.Equal(t, session.Lost, end.Cause)
		p.finish()
		assert.Len(t, p.resumed, 1)
	}
}

// A Session is not parked while a message has arrived in part, or one of a frame is not returned yet.
func TestNotParked(t *testing.T) {
	t.Parallel()
	sess, c := connectedSession(t, true)
	p := newParker(transporttest.NewHost(5 * time.Second).Open(sess))
	sess.Start(p.Out)
	c.expect("text:o")
	c.send(frame(fin|opText, `["first","second"]`))
	text, err := sess.Receive()
	require.NoError(t, err)
	require.Equal(t, "first", string(text))
	require.False(t, sess.(session.Parker).Park(p))
	text, err = sess.Receive()
	require.NoError(t, err)
	require.Equal(t, "second", string(text))
	require.True(t, p.next())
	sess.Stop()
	await(t, p.end)
	p.finish()
}

// A parked Session has no goroutine, and the one that waits for all of them ends with the last.
func TestParkedHasNoGoroutine(t *testing.T) { // not parallel: it looks at all goroutines
	stacks := func(function string) int {
		buf := make([]byte, 4<<20)
		return strings.Count(string(buf[:runtime.Stack(buf, true)]), function+"(")
	}
	deadline := time.Now().Add(patience)
	var all []*parker
	for range 50 {
		p, c := openParked(t, form{"bare", false})
		c.send(frame(fin|opText, "x"))
		require.Equal(t, "x", await(t, p.got))
		all = append(all, p)
	}
	for stacks("websocket_test.(*parker).read") > 0 && time.Now().Before(deadline) { // they park after the message
		runtime.Gosched()
	}
	assert.Zero(t, stacks("websocket_test.(*parker).read"))
	assert.Equal(t, 1, stacks("websocket.(*parkingLot).run"))
	for _, p := range all {
		p.Session.Stop()
		await(t, p.end)
		p.finish()
	}
	for stacks("websocket.(*parkingLot).run") > 0 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	assert.Zero(t, stacks("websocket.(*parkingLot).run"))
}
