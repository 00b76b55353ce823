package websocket

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
)

// stalling is a connection one of whose writes waits when left bytes are written.
type stalling struct {
	net.Conn
	mu     sync.Mutex
	left   int
	opened chan struct{}
}

// stall returns a func that ends the wait, which need not have begun.
func (s *stalling) stall(left int) (end func()) {
	opened := make(chan struct{})
	s.mu.Lock()
	s.left = left
	s.opened = opened
	s.mu.Unlock()
	return func() { close(opened) }
}

func (s *stalling) Write(p []byte) (int, error) {
	s.mu.Lock()
	n := min(s.left, len(p))
	s.left -= n
	opened := s.opened
	s.mu.Unlock()
	if n == len(p) {
		return s.Conn.Write(p)
	}
	if n, err := s.Conn.Write(p[:n]); err != nil {
		return n, err
	}
	<-opened
	s.stall(1 << 20)
	rest, err := s.Conn.Write(p[n:])
	return n + rest, err
}

// secureEnd is the fanout.Socket of a secureDirect.
type secureEnd struct{ *secureDirect }

func (e secureEnd) Form() fanout.Form                          { return fanout.Text }
func (e secureEnd) Direct() fanout.Direct                      { return e.secureDirect }
func (e secureEnd) Broken()                                    {}
func (e secureEnd) Write(p []byte, _ time.Duration) error      { return e.WriteNow(p) }
func (e secureEnd) Finish(code int, _ string, _ time.Duration) { _ = e.conn.Close() }

// reports is a Writer that sends what it writes to a channel.
type reports chan string

func (r reports) Form() fanout.Form                     { return fanout.Text }
func (r reports) Write(p []byte, _ time.Duration) error { r <- string(p); return nil }
func (r reports) Finish(int, string, time.Duration)     {}

// When the write of a TLS connection waits at any byte of its records, other connections of the same
// flusher do not wait for its end, and its client receives everything in order.
func TestTLSWritesThatWaitAtEveryByte(t *testing.T) {
	t.Parallel()
	if !canAskForRoom {
		return // there are no such writes
	}
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS()
	defer web.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	near, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = near.Close() }()
	far, err := listener.Accept()
	require.NoError(t, err)
	defer func() { _ = far.Close() }()

	slow := &stalling{Conn: far}
	slow.stall(1 << 20)
	secured := tls.Server(slow, &tls.Config{Certificates: web.TLS.Certificates})
	shaken := make(chan error, 1)
	go func() { shaken <- secured.Handshake() }()
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, client.Handshake())
	require.NoError(t, <-shaken)
	raw, err := far.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)

	engine := fanout.New(fanout.Config{
		MaxBytes:     1 << 20,
		MaxTotal:     1 << 20,
		WriteTimeout: time.Minute,
		Flushers:     1,
	})
	lost := func(code int, reason string) { t.Error(code, reason) }
	out := engine.NewOutbox(secureEnd{&secureDirect{
		conn: secured,
		raw:  raw,
	}}, lost)
	other := make(reports, 1)
	otherOut := engine.NewOutbox(other, lost)
	in := bufio.NewReader(client)
	const record = len("message 00, the first part;the second part\n") + 5 + 17
	for left := range record + 2 {
		end := slow.stall(left)
		first := fmt.Sprintf("message %02d, the first part;", left)
		out.Hold()
		require.True(t, out.Send(fanout.NewFrame([]byte(first))))
		require.True(t, out.Send(fanout.NewFrame([]byte("the second part\n"))))
		out.Release()
		require.True(t, otherOut.Send(fanout.NewFrame([]byte("other"))))
		require.Equal(t, "other", <-other)
		require.True(t, out.Send(fanout.NewFrame([]byte("another message\n"))))
		end()
		for _, want := range []string{first + "the second part\n", "another message\n"} {
			line, err := in.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, want, line)
		}
	}
	out.Close(1000, "")
	otherOut.Close(1000, "")
	<-out.Done()
	<-otherOut.Done()
	engine.Wait()
	assert.Zero(t, engine.Waiting())
}
