package sockjs

import (
	"cmp"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// waiting has the connections of one http.Server that wait for their next requests.
type waiting struct {
	mu    sync.Mutex
	lines map[line]bool // nil after Shutdown
}

func (h *Handler) waitingOf(server *http.Server) *waiting {
	if w, ok := h.waiting.Load(server); ok {
		return w.(*waiting)
	}
	w, loaded := h.waiting.LoadOrStore(server, &waiting{lines: make(map[line]bool)})
	if !loaded {
		server.RegisterOnShutdown(w.(*waiting).shutdown)
	}
	return w.(*waiting)
}

// wait waits until a request begins, and reports whether one does so in time and before Shutdown.
func (w *waiting) wait(l line, timeout time.Duration) bool {
	w.mu.Lock()
	if w.lines == nil {
		w.mu.Unlock()
		return false
	}
	w.lines[l] = true
	w.mu.Unlock()
	err := l.Idle(timeout)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.lines, l)
	return err == nil && w.lines != nil
}

func (w *waiting) shutdown() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.lines {
		l.Close()
	}
	w.lines = nil
}

// idleTime returns how long a connection waits for its next request. An http.Server without a limit has
// one here, because its Close does not close a connection that was taken from it.
func idleTime(server *http.Server) time.Duration {
	const unlimited = 2 * time.Minute
	if t := cmp.Or(server.IdleTimeout, server.ReadTimeout); t > 0 {
		return t
	}
	return unlimited
}

// giveBack lets a server serve the next request of a connection that was taken from it.
func giveBack(server *http.Server, conn net.Conn) {
	_ = server.Serve(&oneConn{conn: conn}) // the error is that of the second Accept, or that the server is closed
}

// oneConn is a net.Listener that accepts one connection.
type oneConn struct {
	mu   sync.Mutex
	conn net.Conn // nil when it was accepted
}

func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn := l.conn
	if conn == nil {
		return nil, io.EOF
	}
	l.conn = nil
	return conn, nil
}

// Close closes the connection if it was not accepted.
func (l *oneConn) Close() error {
	if conn, err := l.Accept(); err == nil {
		return conn.Close()
	}
	return nil
}

// Addr is called before Accept.
func (l *oneConn) Addr() net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return &net.TCPAddr{}
	}
	return l.conn.LocalAddr()
}
