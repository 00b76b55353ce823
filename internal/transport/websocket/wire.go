package websocket

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
)

// Wire is a connection that another transport has hijacked. It is read and written as a WebSocket is.
// Before Begin, nothing is written.
type Wire struct {
	direct later
	begun  chan struct{}
	once   sync.Once
	stream stream
}

// later is the fanout.Direct of a connection that does not exist yet.
type later struct {
	begun atomic.Bool
	raw   syscall.RawConn // set before begun
}

func (l *later) TryWrite(p []byte) (int, error) {
	if !l.begun.Load() {
		return 0, nil
	}
	return tryWrite(l.raw, p)
}

// NewWire returns a Wire without a connection.
func NewWire() *Wire { return &Wire{begun: make(chan struct{})} }

// Begin gives the Wire its connection. It is called once at most.
func (w *Wire) Begin(conn net.Conn) {
	w.stream = newStream(conn)
	if raw := w.stream.raw; raw != nil {
		w.direct.raw = raw
		w.direct.begun.Store(true)
	}
	close(w.begun)
}

// Begun is closed by Begin. The methods below need it, except Direct.
func (w *Wire) Begun() <-chan struct{} { return w.begun }

// Direct returns what writes without waiting, at first nothing.
func (w *Wire) Direct() fanout.Direct { return &w.direct }

// Write writes p within a time.
func (w *Wire) Write(p []byte, timeout time.Duration) error { return w.stream.write(p, timeout) }

// Drain reads until the connection ends, or until Stop, and discards what it reads. The error is never
// nil.
func (w *Wire) Drain() error {
	src := w.stream.source()
	defer func() {
		src.release()
		src.end()
	}()
	for {
		if _, err := src.next(); err != nil {
			return err
		}
	}
}

// Plain reports whether the connection is a socket, which TryWrite writes to and Await does not read from.
func (w *Wire) Plain() bool { return w.stream.raw != nil }

// TryWrite is that of Direct.
func (w *Wire) TryWrite(p []byte) (n int, err error) { return w.direct.TryWrite(p) }

// Await waits until the peer sends something, which remains to be read if the connection is Plain, and
// returns nil. Otherwise Await returns when the connection ends, or after Stop.
func (w *Wire) Await() error {
	if raw := w.stream.raw; raw != nil {
		return await(raw)
	}
	return w.Drain()
}

// Idle is Await after Stop, for at most a time.
func (w *Wire) Idle(timeout time.Duration) error {
	if err := w.stream.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	return w.Await()
}

// Release ends the use of the connection, and returns it without deadlines, or nil if it was closed.
func (w *Wire) Release() (conn net.Conn) {
	w.once.Do(func() {
		if w.stream.SetDeadline(time.Time{}) == nil {
			conn = w.stream.Conn
		} else {
			w.stream.abort()
		}
	})
	return conn
}

// Stop makes Drain and Await return.
func (w *Wire) Stop() {
	if w.stream.SetReadDeadline(pastDeadline) != nil {
		w.stream.abort()
	}
}

// Close closes the connection. Abort does not wait until the peer has read what was written.
func (w *Wire) Close() { w.once.Do(func() { _ = w.stream.Close() }) }
func (w *Wire) Abort() { w.once.Do(w.stream.abort) }
