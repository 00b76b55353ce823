package pushy_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// mostIdleHeap is the limit for TestHeapOfAnIdleConnection, in bytes. It is 3 % more than a
// connection uses. Resident memory is about twice the heap.
const mostIdleHeap = 1720

// The heap of an idle connection over a bare WebSocket that is subscribed to a channel, beyond
// that of a TCP connection. Both ends are in this process.
func TestHeapOfAnIdleConnection(t *testing.T) { // not parallel: it measures the process
	const conns = 1000
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	_, baseURL := serve(t, pushy.Options{})
	subscribe := func() {
		c := dial(t, baseURL, false)
		c.Send(`{"command":"subscribe","data":{"channel":"room"}}`)
		require.Contains(t, c.Receive(), "subscription-success")
	}
	subscribe() // what the first connection allocates stays for the others

	before := liveHeap()
	for range conns {
		client, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		server, err := l.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Close() })
		t.Cleanup(func() { _ = server.Close() })
	}
	plain := liveHeap() - before

	before = liveHeap()
	for range conns {
		subscribe()
	}
	each := (liveHeap() - before - plain) / conns
	t.Logf("a connection uses %d bytes of heap beyond the %d of its two ends of TCP", each, plain/conns)
	assert.LessOrEqual(t, each, int64(mostIdleHeap))
}
