package websocket_test

import (
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/transport/transporttest"
)

// BenchmarkReceive measures one small message of a client, including the client's write.
func BenchmarkReceive(b *testing.B) {
	for _, f := range forms {
		b.Run(f.name, func(b *testing.B) {
			sess, c := connectedSession(b, f.framed)
			out := fanout.New(fanout.Config{MaxBytes: 1 << 20, MaxTotal: 1 << 20}).NewOutbox(sess, func(int, string) {})
			out.Discard()
			sess.Start(out)
			wire := frame(fin|opText, f.text(strings.Repeat("x", 60)))
			b.ReportAllocs()
			for b.Loop() {
				_, err := c.Write(wire)
				require.NoError(b, err)
				_, err = sess.Receive()
				require.NoError(b, err)
			}
		})
	}
}

// BenchmarkIdle reports the heap and stack of one idle session, less those of an accepted TCP
// connection with a waiting reader. Both ends are in this process, so the difference is the
// cost of the session.
func BenchmarkIdle(b *testing.B) {
	const conns = 2000
	measure := func() float64 {
		var m runtime.MemStats
		transporttest.LiveHeap()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc + m.StackInuse)
	}
	h := newHost(true, transporttest.Config())
	addr := h.start(b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer l.Close()
	began := measure()
	for range conns {
		dialed, err := net.Dial("tcp", l.Addr().String())
		require.NoError(b, err)
		accepted, err := l.Accept()
		require.NoError(b, err)
		go func() { _, _ = accepted.Read(make([]byte, 1)) }()
		b.Cleanup(func() { _ = accepted.Close(); _ = dialed.Close() })
	}
	plain := measure()
	var open []*transporttest.Conn
	for range conns {
		c := dial(b, addr).connect(frame(fin|opText, `["used once"]`)...)
		c.expect("text:o")
		c.expect(`text:a["used once"]`)
		c.r = nil
		open = append(open, h.Conn(b))
	}
	sessions := measure()
	for b.Loop() { // the figures do not depend on the number of iterations
	}
	b.ReportMetric((sessions-plain)/conns, "B/session")
	b.ReportMetric((plain-began)/conns, "B/tcp")
	for _, s := range open {
		s.Out.Discard()
		s.Session.Abort()
	}
	for _, s := range open {
		s.Wait(b)
	}
}
