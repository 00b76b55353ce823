package backend_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/pushytest"
)

const secret = "a secret of more than sixteen bytes"

// network is a listener in memory, for synctest bubbles, in which fake time passes only if no
// goroutine waits for a real socket.
type network struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	refuse int // the number of dials that are still to fail
	dials  int
}

func newNetwork() *network { return &network{conns: make(chan net.Conn), closed: make(chan struct{})} }

var errRefused = &net.OpError{Op: "dial", Net: "memory", Err: errors.New("connection refused")}

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	refused := n.refuse > 0
	n.refuse--
	n.mu.Unlock()
	if refused {
		return nil, errRefused
	}
	client, server := net.Pipe()
	select {
	case n.conns <- server:
		return client, nil
	case <-n.closed:
		return nil, errRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *network) dialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// client returns a publisher over the network.
func (n *network) client(t *testing.T, o backend.Options) *backend.Client {
	t.Helper()
	if o.URL == "" {
		o.URL = "http://memory/pushy"
	}
	if o.SecretKey == "" {
		o.SecretKey = secret
	}
	if o.HTTPClient == nil {
		o.HTTPClient = &http.Client{Transport: &http.Transport{DialContext: n.dial, MaxIdleConnsPerHost: 64}}
	}
	c, err := backend.New(o)
	require.NoError(t, err)
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// serve serves handler over a new network until the test ends.
func serve(t *testing.T, handler http.Handler) *network {
	t.Helper()
	n := newNetwork()
	web := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = web.Serve(n)
	}()
	t.Cleanup(func() {
		_ = web.Close()
		<-served
	})
	return n
}

// startServer returns a Server with a client in the channel news.
func startServer(t *testing.T, o pushy.Options) (*pushy.Server, *pushytest.Client) {
	t.Helper()
	o.SecretKey, o.Logger = secret, slog.New(slog.DiscardHandler)
	srv, err := pushy.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	reader := pushytest.New(t, srv).Connect()
	reader.Subscribe("news")
	return srv, reader
}

// serveConns accepts the connections of a network. For each request of a connection it calls each
// with the number of the request on that connection, from 0. The connection is kept open while
// each returns true.
func serveConns(t *testing.T, each func(conn net.Conn, r *http.Request, n int) bool) *network {
	t.Helper()
	n := newNetwork()
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			conn, err := n.Accept()
			if err != nil {
				return
			}
			readers.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(t.Context(), func() { _ = conn.Close() })()
				in := bufio.NewReader(conn)
				for i := 0; ; i++ {
					r, err := http.ReadRequest(in)
					if err != nil || !each(conn, r, i) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = n.Close()
		readers.Wait()
	})
	return n
}

// answer writes the response of srv to r on a connection that stays open.
func answer(conn net.Conn, srv http.Handler, r *http.Request) {
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	answer := w.Result()
	answer.ContentLength = int64(w.Body.Len()) // otherwise the response ends with the connection
	_ = answer.Write(conn)
}

// discard reads the rest of a request.
func discard(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
