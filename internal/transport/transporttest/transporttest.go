// Package transporttest is what the tests of the transports share: a host that uses
// Sessions as the core does, and what a test needs to look for leftovers.
package transporttest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
)

// Patience bounds waits in tests over real sockets.
const Patience = 20 * time.Second

// Config returns the bounds that tests change.
func Config() transport.Config {
	return transport.Config{
		MaxMessage:   64 << 10,
		Heartbeat:    25 * time.Second,
		WriteTimeout: 5 * time.Second,
		CloseTimeout: 5 * time.Second,
	}
}

// Host uses Sessions as the core does: it echoes every message and ends the
// Session as the Cause says.
type Host struct {
	Mute   bool // records messages only
	Engine *fanout.Engine
	conns  chan *Conn
}

// NewHost returns a Host whose writes have a timeout.
func NewHost(writeTimeout time.Duration) *Host {
	return &Host{
		Engine: fanout.New(fanout.Config{
			MaxBytes:     1 << 20,
			MaxTotal:     1 << 28,
			WriteTimeout: writeTimeout,
		}),
		conns: make(chan *Conn, 10_000),
	}
}

// Conn is the host's end of a Session.
type Conn struct {
	Session session.Session
	Out     *fanout.Outbox
	Done    chan struct{} // Linger has returned

	// To be read once Done is closed.
	Got []string
	End *session.CloseError
}

// Open gives a Session an Outbox, and does no more: the test does.
func (h *Host) Open(s session.Session) *Conn {
	c := &Conn{
		Session: s,
		Done:    make(chan struct{}),
	}
	c.Out = h.Engine.NewOutbox(s, func(code int, _ string) {
		if code == 1006 {
			s.Abort()
		}
		s.Stop()
	})
	return c
}

// Serve uses a Session until it has ended.
func (h *Host) Serve(s session.Session) {
	c := h.Open(s)
	s.Start(c.Out)
	h.conns <- c
	for {
		p, err := s.Receive()
		if err != nil {
			_ = errors.As(err, &c.End)
			break
		}
		c.Got = append(c.Got, string(p))
		if !h.Mute {
			c.Out.Send(fanout.NewFrame(bytes.Clone(p)))
		}
	}
	c.Finish()
}

// Finish ends the Session as End says.
func (c *Conn) Finish() {
	switch c.End.Cause {
	case session.Closed, session.Fault:
		c.Out.Close(c.End.Code, c.End.Reason)
	case session.Lost:
		c.Session.Abort()
		c.Out.Discard()
	}
	c.Session.Linger()
	close(c.Done)
}

// Stop ends the Session as a server does that has a reason.
func (c *Conn) Stop(code int, reason string) {
	c.Out.Close(code, reason)
	c.Session.Stop()
}

// Wait waits for the end of the Session.
func (c *Conn) Wait(t testing.TB) {
	t.Helper()
	select {
	case <-c.Done:
	case <-time.After(Patience):
		require.Fail(t, "session did not end")
	}
}

// Conn returns the next Session that was started.
func (h *Host) Conn(t testing.TB) *Conn {
	t.Helper()
	select {
	case c := <-h.conns:
		return c
	case <-time.After(Patience):
		require.Fail(t, "no session was opened")
		return nil
	}
}

// Listener is a net.Listener for a synctest bubble.
type Listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// NewListener returns a Listener.
func NewListener() *Listener {
	return &Listener{
		conns:  make(chan net.Conn),
		closed: make(chan struct{}),
	}
}

// Dial returns the client's end of a new connection, or net.ErrClosed.
func (l *Listener) Dial(cancel <-chan struct{}) (net.Conn, error) {
	server, client := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
	case <-cancel:
	}
	return nil, net.ErrClosed
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return &net.TCPAddr{} }

// LiveHeap is what the heap holds that is still in use.
func LiveHeap() uint64 {
	var m runtime.MemStats
	for range 3 { // a sync.Pool lets go after two
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Main runs a package's tests, and fails the run if a goroutine of this module is left.
func Main(m *testing.M) {
	code := m.Run()
	if left := leftGoroutines(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftGoroutines gives the stacks of goroutines that run this module's code,
// after giving them time to end.
func leftGoroutines() string {
	patience := time.After(10 * time.Second)
	for {
		var left []string
		buf := make([]byte, 4<<20)
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "gopushy/pushy/internal") && !strings.Contains(g, "TestMain") {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return ""
		}
		select {
		case <-patience:
			return strings.Join(left, "\n\n")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
