package load

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a TCP connection outside of Go's poller: thousands of them are read
// by one epoll loop, which is far cheaper than a goroutine each. It blocks until
// setNonblock. As a net.Conn it is what crypto/tls runs over.
type socket struct{ fd int }

// errAgain is what a read of a non-blocking socket returns when there is
// nothing. crypto/tls goes on after an error that is Temporary.
type errAgain struct{}

func (errAgain) Error() string   { return "load: nothing to read" }
func (errAgain) Timeout() bool   { return true }
func (errAgain) Temporary() bool { return true }

// Handshakes may take this long: thousands of them run at a time.
const handshakeTimeout = 20 * time.Second

// connect opens a connection from one of the loopback addresses, of which each
// has ports of its own. rcvbuf, if not 0, bounds what the kernel takes for a
// client that does not read.
func connect(addr netip.AddrPort, from [4]byte, rcvbuf int) (*socket, error) {
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
	to := &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}
	for {
		err = unix.Connect(fd, to)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil && err != unix.EISCONN {
		_ = s.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	return s, nil
}

// source spreads connections over 127.0.0.0/8, 4,000 an address; base sets runs
// apart, so that ports in TIME_WAIT are not met again.
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

// abort closes with a reset, which leaves no port in TIME_WAIT.
func (s *socket) abort() {
	_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = s.Close()
}
