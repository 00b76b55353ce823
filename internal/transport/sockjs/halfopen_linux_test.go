//go:build amd64 || arm64

package sockjs_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/session"
)

// deafen makes the kernel drop every packet that arrives for conn, including acknowledgements.
// For the other end, the host of conn has disappeared.
func deafen(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	nothing := syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K} // keep 0 bytes of each packet
	program := syscall.SockFprog{Len: 1, Filter: &nothing}
	var failed syscall.Errno
	require.NoError(t, raw.Control(func(fd uintptr) {
		_, _, failed = syscall.Syscall6(syscall.SYS_SETSOCKOPT, fd, syscall.SOL_SOCKET, syscall.SO_ATTACH_FILTER,
			uintptr(unsafe.Pointer(&program)), unsafe.Sizeof(program), 0)
	}))
	require.Zero(t, failed)
}

// sockjs.md row 16, with real time and sockets: a peer whose host has disappeared is detected
// within two heartbeats on WebSockets, two heartbeats and the disconnect delay on streams, and
// one heartbeat and the delay on polls, although the kernel would accept written bytes for a
// quarter of an hour.
func TestRow16HalfOpenForReal(t *testing.T) {
	t.Parallel()
	const beat, delay = 500 * time.Millisecond, 300 * time.Millisecond
	bounds := map[string]time.Duration{"websocket": 2 * beat, "xhr": beat + delay, "jsonp": beat + delay}
	for _, c := range append(carriers[:len(carriers):len(carriers)], carrier{name: "websocket", method: "GET"}) {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s busy=%t", c.name, busy), func(t *testing.T) {
				t.Parallel()
				s := serveSite(t, func(s *site) { s.cfg.Heartbeat, s.cfg.DisconnectDelay = beat, delay })
				conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
				require.NoError(t, err)
				defer conn.Close()
				ask := fmt.Sprintf("%s %s%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", c.method, s.peer(c).path(c.name), c.query())
				if c.name == "websocket" {
					ask = strings.Replace(handshake, "GET /", "GET /0/w/websocket", 1)
				}
				_, err = io.WriteString(conn, ask)
				require.NoError(t, err)
				for r := bufio.NewReader(conn); ; {
					line, err := r.ReadString('\n')
					require.NoError(t, err)
					if line == "\r\n" {
						break
					}
				}
				host := s.session()
				if !c.streaming && c.name != "websocket" {
					_, err = io.WriteString(conn, ask) // the second poll waits for frames
					require.NoError(t, err)
				}
				deafen(t, conn)
				began := time.Now()
				for busy { // until the session ends
					host.send("x")
					select {
					case <-host.done:
						busy = false
					case <-time.After(10 * time.Millisecond):
						require.Less(t, time.Since(began), patience)
					}
				}
				host.wait(t)
				assert.Equal(t, session.Lost, host.end.Cause, host.end)
				bound := bounds[c.name]
				if bound == 0 {
					bound = 2*beat + delay
				}
				t.Logf("gone after %v; the bound is %v", time.Since(began).Round(time.Millisecond), bound)
				assert.Zero(t, s.engine.Waiting())
			})
		}
	}
}
