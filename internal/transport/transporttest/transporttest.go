// Package transporttest has what the tests of the transports share: a host that uses
// Sessions as the core does, and checks for goroutines and memory that are left over.
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

// Patience is the longest wait in tests over real sockets.
const Patience = 60 * time.Second

// Config returns the limits that tests start from.
func Config() transport.Config {
	return transport.Config{
		MaxMessage:   64 << 10,
		Heartbeat:    25 * time.Second,
		WriteTimeout: 5 * time.Second,
		CloseTimeout: 5 * time.Second,
	}
}

// Host uses Sessions as the core does. It echoes every message, and ends the Session
// according to the Cause.
type Host struct {
	Mute   bool // record messages, do not echo them
	Engine *fanout.Engine
	conns  chan *Conn
}

// NewHost returns a Host with a timeout for writes.
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

// Open creates an Outbox for a Session. The test does the rest.
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

// Finish ends the Session according to End.
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

// Stop ends the Session as a server does that closes a connection.
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

// Listener is a net.Listener that works in a synctest bubble.
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

// LiveHeap returns the number of bytes of the heap that are in use after a collection.
func LiveHeap() uint64 {
	var m runtime.MemStats
	for range 3 { // a sync.Pool keeps its elements for two collections
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Main runs the tests of a package, and fails if goroutines of this module are left over.
func Main(m *testing.M) {
	code := m.Run()
	if left := leftGoroutines(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftGoroutines returns the stacks of the goroutines that still run code of this module
// after Patience.
func leftGoroutines() string {
	patience := time.After(Patience)
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
