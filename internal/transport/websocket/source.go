package websocket

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"
)

// A source gives the bytes that a connection receives, in chunks of its own.
type source interface {
	// next waits for bytes. They are the caller's until the next call of next
	// or release.
	next() ([]byte, error)
	// release lets go of the chunk that next gave.
	release()
}

// smallBuffer is what a connection holds to read into where bytes cannot be
// waited for without a buffer. Larger messages take several reads.
const smallBuffer = 512

// heldSource reads into a small buffer of its own: TLS, net.Pipe, and
// connections that a listener has wrapped.
type heldSource struct {
	conn net.Conn
	buf  []byte
}

func (s *heldSource) next() ([]byte, error) {
	for {
		n, err := s.conn.Read(s.buf)
		if n > 0 {
			return s.buf[:n], nil // an error comes again
		}
		if err != nil {
			return nil, err
		}
	}
}

func (s *heldSource) release() {}

// stream is a connection and the way to write it.
type stream struct {
	net.Conn
	raw syscall.RawConn // of a plain socket, else nil
}

// newStream picks how conn is written and read. A conn that only embeds a TCP
// connection may do something of its own in Read, so the concrete type decides.
func newStream(conn net.Conn) (stream, source) {
	if rc := rawConn(conn); rc != nil {
		return stream{conn, rc}, newPooledSource(rc)
	}
	return stream{conn, nil}, &heldSource{conn: conn, buf: make([]byte, smallBuffer)}
}

// write writes p within timeout, and without setting a deadline where the
// kernel takes it at once. It is called by one goroutine at a time.
func (s *stream) write(p []byte, timeout time.Duration) error {
	if s.raw != nil {
		n, err := tryWrite(s.raw, p)
		if n == len(p) || err != nil {
			return err
		}
		p = p[n:]
		defer func() { _ = s.SetWriteDeadline(time.Time{}) }()
	}
	if err := s.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := s.Conn.Write(p)
	return err
}

// cut closes the connection at once. A tls.Conn would first write its goodbye
// and wait for that; a TCP connection would keep what was written for a peer
// that reads nothing.
func (s *stream) cut() {
	conn := s.Conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = conn.Close()
}

// closeWrite lets the peer see the end of what we say while it may go on.
func (s *stream) closeWrite() {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
