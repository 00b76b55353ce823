package pushy_test

import (
	"bytes"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// mostIdleHeap is the limit for TestHeapOfAnIdleConnection on Linux, in bytes. It is 3 % more than a
// connection uses. Resident memory is about twice the heap.
const mostIdleHeap = 1190

// The heap of an idle connection over a bare WebSocket that is subscribed to a channel, beyond
// that of a TCP connection. Both ends are in this process. On Linux the connection has no goroutine.
// If the environment has PUSHY_HEAP_PROFILE, a profile is written to that file (docs/scaling.md).
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
	if file := os.Getenv("PUSHY_HEAP_PROFILE"); file != "" {
		var profile bytes.Buffer
		require.NoError(t, pprof.WriteHeapProfile(&profile))
		require.NoError(t, os.WriteFile(file, profile.Bytes(), 0o600))
	}
	if runtime.GOOS != "linux" {
		return
	}
	assert.LessOrEqual(t, each, int64(mostIdleHeap))
	readers := func() int {
		stacks := make([]byte, 8<<20)
		return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "internal/hub.(*Conn).read(")
	}
	// The reader of the last message has not returned yet, perhaps.
	deadline := time.Now().Add(clientPatience)
	for readers() > 0 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	assert.Zero(t, readers(), "goroutines of idle connections")
}
