package pushy_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// BenchmarkConnect is a client that opens a WebSocket over TCP, subscribes, and loses its connection.
// The client needs few allocations.
func BenchmarkConnect(b *testing.B) {
	for _, kind := range []struct {
		name, path, subscribe string
	}{
		{"bare", "/pushy/socket/websocket", `{"command":"subscribe","data":{"channel":"room"}}`},
		{"sockjs", "/pushy/socket/000/session/websocket", `["{\"command\":\"subscribe\",\"data\":{\"channel\":\"room\"}}"]`},
	} {
		b.Run(kind.name, func(b *testing.B) {
			srv := startServer(b, pushy.Options{})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			web := &http.Server{Handler: srv}
			go func() { _ = web.Serve(l) }()
			defer web.Close()
			head := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: http://%s\r\n\r\n",
				kind.path, l.Addr(), l.Addr())
			subscribe := append([]byte{0x81, 0x80 | byte(len(kind.subscribe)), 0, 0, 0, 0}, kind.subscribe...)
			connect := func() net.Conn {
				c, err := net.Dial("tcp", l.Addr().String())
				require.NoError(b, err)
				tell(b, c, head, "pushy:connect")
				tell(b, c, subscribe, "subscription-success")
				return c
			}
			for range 10 { // of other clients, so that the channel stays
				defer connect().Close()
			}
			b.ReportAllocs()
			for b.Loop() {
				c := connect()
				require.NoError(b, c.(*net.TCPConn).SetLinger(0))
				require.NoError(b, c.Close())
			}
		})
	}
}

var answers = sync.Pool{New: func() any { return new([1024]byte) }}

// tell sends bytes, and waits until a string has arrived.
func tell(b *testing.B, c net.Conn, bytesOut []byte, answer string) {
	b.Helper()
	_, err := c.Write(bytesOut)
	require.NoError(b, err)
	in := answers.Get().(*[1024]byte)
	defer answers.Put(in)
	n := 0
	for !bytes.Contains(in[:n], []byte(answer)) {
		k, err := c.Read(in[n:])
		require.NoError(b, err)
		n += k
	}
}
