package websocket

import (
	"crypto/tls"
	"net"
	"sync"
	"syscall"
	"time"
)

// A source returns the bytes that a connection receives, in chunks.
type source interface {
	// next waits for bytes. The caller can use and change them until the next call of next
	// or release.
	next() ([]byte, error)
	// release releases the last chunk of next.
	release()
	// end releases the source itself.
	end()
}

// smallBuffer is the size of the read buffer of a connection that cannot wait for bytes
// without a buffer. Larger messages need several reads.
const smallBuffer = 512

// heldSource has a small read buffer while it is used. It is used for TLS, net.Pipe, and
// connections that a listener has wrapped.
type heldSource struct {
	conn net.Conn
	buf  [smallBuffer]byte
}

var heldSources = sync.Pool{New: func() any { return new(heldSource) }}

func (s *heldSource) next() ([]byte, error) {
	for {
		n, err := s.conn.Read(s.buf[:])
		if n > 0 {
			return s.buf[:n], nil // the next Read returns the error again
		}
		if err != nil {
			return nil, err
		}
	}
}

func (s *heldSource) release() {}

func (s *heldSource) end() {
	s.conn = nil
	heldSources.Put(s)
}

// stream is a connection and how it is written.
type stream struct {
	net.Conn
	raw syscall.RawConn // of a plain socket, otherwise nil
}

// newStream chooses how conn is written and read. The concrete type of conn decides, because
// a type that embeds a TCP connection can have its own Read method.
func newStream(conn net.Conn) stream {
	return stream{
		Conn: conn,
		raw:  rawConn(conn),
	}
}

// source returns what reads s.
func (s *stream) source() source {
	if s.raw != nil {
		return newPooledSource(s.raw)
	}
	held := heldSources.Get().(*heldSource)
	held.conn = s.Conn
	return held
}

// write writes p within timeout. It sets no deadline if the kernel accepts p at once. Only
// one goroutine at a time can call it.
func (s *stream) write(p []byte, timeout time.Duration) error {
	if s.raw != nil {
		n, err := tryWrite(s.raw, p)
		if n == len(p) || err != nil {
			return err
		}
		p = p[n:]
	}
	if err := s.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	// A deadline that remained would fail the answer of a tls.Conn to a later key update.
	defer func() { _ = s.SetWriteDeadline(time.Time{}) }()
	_, err := s.Conn.Write(p)
	return err
}

// abort closes the connection at once. It bypasses the tls.Conn, which would write a
// close_notify alert and wait for it. It resets a TCP connection, which would otherwise keep
// the written bytes for a peer that does not read.
func (s *stream) abort() {
	conn := s.Conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = conn.Close()
}

// closeWrite closes the write side only, so that the peer sees the end of the stream and can
// still send.
func (s *stream) closeWrite() {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
