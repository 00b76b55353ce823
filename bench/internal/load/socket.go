package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a TCP connection that does not use Go's poller: one epoll loop reads thousands of
// them, which needs much less CPU than a goroutine for each. It blocks until setNonblock is
// called. It is a net.Conn, so that crypto/tls can use it.
type socket struct{ fd int }

// errAgain is the error of a read of a non-blocking socket without data. crypto/tls continues
// after an error that is Temporary.
type errAgain struct{}

func (errAgain) Error() string   { return "load: nothing to read" }
func (errAgain) Timeout() bool   { return true }
func (errAgain) Temporary() bool { return true }

// The time limit of a handshake is long, because thousands of them run at a time.
const handshakeTimeout = 20 * time.Second

// connect opens a connection from one of the loopback addresses, each of which has its own
// ports. rcvbuf, if not 0, limits the bytes that the kernel accepts for a client that does not
// read.
func connect(addr netip.AddrPort, from [4]byte, rcvbuf int) (*socket, error) {
	s, err := newSocket(from, rcvbuf)
	if err != nil {
		return nil, err
	}
	if err := s.connect(addr); err != nil && !errors.Is(err, unix.EISCONN) {
		_ = s.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	return s, nil
}

// startConnect is like connect, but does not wait: the connection exists when epoll says that it
// is writable and connected returns nil.
func startConnect(addr netip.AddrPort, from [4]byte) (*socket, error) {
	s, err := newSocket(from, 0)
	if err != nil {
		return nil, err
	}
	err = s.setNonblock()
	if err == nil {
		err = s.connect(addr)
	}
	// That the server refuses the connection is not known at once on every system.
	if err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.ECONNREFUSED) {
		_ = s.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	return s, nil
}

// connected returns the error of startConnect's connection.
func (s *socket) connected() error {
	code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || code == 0 {
		return err
	}
	return unix.Errno(code)
}

func (s *socket) connect(addr netip.AddrPort) error {
	to := &unix.SockaddrInet4{
		Addr: addr.Addr().As4(),
		Port: int(addr.Port()),
	}
	for {
		if err := unix.Connect(s.fd, to); err != unix.EINTR {
			return err
		}
	}
}

// newSocket returns a socket that is bound to an address and not connected.
func newSocket(from [4]byte, rcvbuf int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	s := &socket{fd}
	timeout := unix.NsecToTimeval(handshakeTimeout.Nanoseconds())
	for _, err := range []error{
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout),
	} {
		if err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("socket options: %w", err)
		}
	}
	if rcvbuf > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, rcvbuf); err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("receive buffer: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from}); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("bind: %w", err)
	}
	return s, nil
}

// source distributes connections over 127.0.0.0/8, 4,000 for each address. base differs between
// runs, so that ports in TIME_WAIT are not used again.
func source(base, i int) [4]byte {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 127<<24|uint32(1+base%200)<<16|uint32(2+i/4000))
	return b
}

func (s *socket) setNonblock() error { return unix.SetNonblock(s.fd, true) }

func (s *socket) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(s.fd, p)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, errAgain{}
		case err != nil:
			return 0, err
		case n == 0:
			return 0, net.ErrClosed
		default:
			return n, nil
		}
	}
}

func (s *socket) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(s.fd, p[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

func (s *socket) Close() error                     { return unix.Close(s.fd) }
func (s *socket) LocalAddr() net.Addr              { return nil }
func (s *socket) RemoteAddr() net.Addr             { return nil }
func (s *socket) SetDeadline(time.Time) error      { return nil }
func (s *socket) SetReadDeadline(time.Time) error  { return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// abort closes the connection with a reset, so that its port is not in TIME_WAIT.
func (s *socket) abort() {
	_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = s.Close()
}
