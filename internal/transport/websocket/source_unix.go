//go:build unix

package websocket

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// rawConn returns the raw connection of a plain socket, otherwise nil.
func rawConn(conn net.Conn) syscall.RawConn {
	var rc syscall.RawConn
	var err error
	switch c := conn.(type) {
	case *net.TCPConn:
		rc, err = c.SyscallConn()
	case *net.UnixConn:
		rc, err = c.SyscallConn()
	}
	if err != nil {
		return nil
	}
	return rc
}

type chunk [4096]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// pooledSource waits for bytes without a buffer, and takes a buffer from a pool when bytes
// have arrived. So an idle connection has no read buffer.
type pooledSource struct {
	conn  syscall.RawConn
	try   func(fd uintptr) bool // the method value of read
	chunk *chunk
	n     int           // bytes in chunk; 0 at the end of the stream
	errno syscall.Errno // the error of the last read, or 0
}

var pooledSources = sync.Pool{New: func() any {
	s := new(pooledSource)
	s.try = s.read
	return s
}}

func newPooledSource(rc syscall.RawConn) source {
	s := pooledSources.Get().(*pooledSource)
	s.conn = rc
	return s
}

func (s *pooledSource) end() {
	s.release()
	s.conn = nil
	pooledSources.Put(s)
}

// errReset is the error of a connection that its peer has reset, as most are that are lost at once.
var errReset = os.NewSyscallError("read", syscall.ECONNRESET)

func (s *pooledSource) next() ([]byte, error) {
	s.release()
	if err := s.conn.Read(s.try); err != nil {
		return nil, err
	}
	switch {
	case s.errno == syscall.ECONNRESET:
		return nil, errReset
	case s.errno != 0:
		return nil, os.NewSyscallError("read", s.errno)
	case s.n == 0:
		return nil, io.EOF
	}
	return s.chunk[:s.n], nil
}

func (s *pooledSource) release() {
	if s.chunk != nil {
		chunks.Put(s.chunk)
		s.chunk = nil
	}
}

// read makes one read call. If it returns false, the caller waits until the socket is
// readable.
func (s *pooledSource) read(fd uintptr) bool {
	c := chunks.Get().(*chunk)
	n, err := syscall.Read(int(fd), c[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), c[:])
	}
	s.n = max(n, 0)
	s.errno = 0
	if n > 0 {
		s.chunk = c
		return true
	}
	chunks.Put(c)
	if err != nil {
		s.errno = err.(syscall.Errno) // all errors of syscall.Read have this type
	}
	return err != syscall.EAGAIN
}

// await waits until a socket is readable, and returns nil unless its peer has closed it.
func await(rc syscall.RawConn) error {
	var failed error
	err := rc.Read(func(fd uintptr) bool {
		var first [1]byte
		for {
			n, _, err := syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK)
			switch {
			case err == syscall.EINTR:
				continue
			case err == syscall.EAGAIN:
				return false
			case err != nil:
				failed = os.NewSyscallError("recvfrom", err)
			case n == 0:
				failed = io.EOF
			}
			return true
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// writeOp is one write call. It is pooled with its func, so that a write does not allocate.
type writeOp struct {
	p   []byte
	n   int
	err error
	try func(fd uintptr)
}

var writeOps = sync.Pool{New: func() any {
	op := new(writeOp)
	op.try = func(fd uintptr) {
		for {
			op.n, op.err = sendNow(fd, op.p)
			if op.err != syscall.EINTR {
				return
			}
		}
	}
	return op
}}

// tryWrite makes one write call and returns the number of bytes that it wrote. If the peer
// does not read fast enough, this is less than len(p), and the error is nil.
func tryWrite(rc syscall.RawConn, p []byte) (int, error) {
	op := writeOps.Get().(*writeOp)
	op.p = p
	op.n = 0
	op.err = nil
	err := rc.Control(op.try) // RawConn.Write would also access the poll state, which costs cache misses
	n := max(op.n, 0)
	failed := op.err
	op.p = nil
	op.err = nil
	writeOps.Put(op)
	switch {
	case err != nil:
		return n, err
	case failed == nil || failed == syscall.EAGAIN:
		return n, nil
	}
	return n, os.NewSyscallError("write", failed)
}
