package sse_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/sse"
)

// patience is how long something may take on a busy machine.
const patience = time.Minute

// The tests above have connections in memory, which are always written by goroutines. Over TCP, and over TLS
// with HTTP/1.1 and HTTP/2: many streams receive all events in order, and over TCP one
// beside them that never reads is ended as a slow consumer.
func TestStreamsOverTCP(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		for _, http2 := range []bool{false, true} {
			if http2 && !secure {
				continue
			}
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", name, http2), func(t *testing.T) {
				t.Parallel()
				overTCP(t, secure, http2)
			})
		}
	}
}

func overTCP(t *testing.T, secure, http2 bool) {
	const clients = 10
	events := 60
	if !secure {
		events = 400 // more than the kernel queues for a client that does not read
	}
	var mu sync.Mutex
	codes := map[int]int{}
	srv, err := pushy.New(pushy.Options{
		SecretKey: secret,
		Logger:    slog.New(slog.DiscardHandler),
		Limits:    pushy.Limits{ConnBuffer: 256 << 10, TriggerBytes: 64 << 10},
		Hooks: pushy.Hooks{Disconnect: func(_ *pushy.Conn, code int, _ string) {
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
		}},
	})
	require.NoError(t, err)
	web := httptest.NewUnstartedServer(sse.New(srv, sse.Options{}))
	web.EnableHTTP2 = http2
	web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if secure {
		web.StartTLS()
	} else {
		web.Start()
	}
	defer web.Close()
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var stuck io.Closer = io.NopCloser(nil)
	if !secure {
		stuck = stuckClient(t, web)
	}
	defer func() { _ = stuck.Close() }()
	done := make(chan error, clients)
	var received [clients]atomic.Int64
	var opened sync.WaitGroup
	for i := range clients {
		opened.Add(1)
		form := []string{"", "&data=json", "&names=none", "&names=channel", "&channel=more"}[i%5]
		go func() { done <- read(ctx, web, "/?channel=a"+form, events, opened.Done, &received[i]) }()
	}
	opened.Wait()
	padding := strings.Repeat("x", 16<<10)
	for i := 1; i <= events; i++ {
		require.NoError(t, srv.Publish(ctx, "a", "n", fmt.Sprintf("%d %s", i, padding)))
		for client := range received { // they are not slow
			for received[client].Load() < int64(i-5) && ctx.Err() == nil {
				wait(ctx)
			}
		}
	}
	for range clients {
		require.NoError(t, <-done)
	}
	slow := func() int {
		mu.Lock()
		defer mu.Unlock()
		return codes[3008]
	}
	if !secure {
		require.Eventually(t, func() bool { return slow() == 1 }, patience, 20*time.Millisecond)
	}
	_ = stuck.Close() // otherwise Shutdown waits until a write has taken too long
	require.NoError(t, srv.Shutdown(ctx))
	mu.Lock()
	defer mu.Unlock()
	assert.LessOrEqual(t, codes[3008], 1, "%v", codes)
}

func wait(ctx context.Context) {
	timer := time.NewTimer(2 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// stuckClient sends a request, and reads only the beginning of the answer.
func stuckClient(t *testing.T, web *httptest.Server) io.Closer {
	t.Helper()
	conn, err := net.Dial("tcp", web.Listener.Addr().String())
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
	_, err = io.WriteString(conn, "GET /?channel=a HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
	require.NoError(t, err)
	line, err := bufio.NewReaderSize(conn, 16).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "200")
	return conn
}

// read reads a stream until it has received all events, and counts them. opened is called after pushy:open.
func read(
	ctx context.Context, web *httptest.Server, query string, events int, opened func(), received *atomic.Int64,
) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, web.URL+query, nil)
	if err != nil {
		return err
	}
	tr := web.Client().Transport.(*http.Transport).Clone()
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	st := &stream{
		res: res,
		in:  bufio.NewReader(res.Body),
	}
	e, err := st.read()
	if err != nil || e.name != "pushy:open" {
		return fmt.Errorf("%+v %w", e, err)
	}
	opened()
	for i := 1; i <= events; {
		e, err := st.read()
		if err != nil {
			return fmt.Errorf("before event %d: %w", i, err)
		}
		if e.name == ":" {
			continue
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(e.data, `"`), " ")
		if number != fmt.Sprint(i) {
			return fmt.Errorf("%.80s instead of event %d", e.data, i)
		}
		received.Store(int64(i))
		i++
	}
	return nil
}
