package subscriber_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/subscriber"
)

// soak makes the large tests as large as reach.md says.
var soak = os.Getenv("PUSHY_SOAK") != ""

// TestMain fails the run when a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	for deadline := time.Now().Add(5 * time.Second); code == 0; runtime.Gosched() {
		buf := make([]byte, 1<<20)
		left := ""
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "gopushy/pushy") && !strings.Contains(g, "TestMain") {
				left += g + "\n\n"
			}
		}
		if left == "" {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

const secret = "a secret of sixteen bytes or more"

// network has servers that clients reach in memory, by their host.
type network struct {
	t  testing.TB
	mu sync.Mutex
	// listening are the servers that accept connections.
	listening map[string]*listener
	conns     []net.Conn // of clients
	dials     []time.Time
}

type listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

func newNetwork(t testing.TB) *network {
	return &network{
		t:         t,
		listening: map[string]*listener{},
	}
}

// dial is Options.NetDial.
func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	l := n.listening[host]
	n.dials = append(n.dials, time.Now())
	n.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
	case <-l.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	n.conns = append(n.conns, client)
	n.mu.Unlock()
	return client, nil
}

// serve makes a handler reachable until down is called.
func (n *network) serve(host string, h http.Handler) (down func()) {
	l := n.listen(host)
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(l) }()
	down = func() { _ = srv.Close() }
	n.t.Cleanup(down)
	return down
}

func (n *network) listen(host string) *listener {
	l := &listener{
		conns: make(chan net.Conn),
		done:  make(chan struct{}),
	}
	n.mu.Lock()
	n.listening[host] = l
	n.mu.Unlock()
	return l
}

// cut loses all connections.
func (n *network) cut() {
	n.mu.Lock()
	conns := n.conns
	n.conns = nil
	n.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// onNetwork runs a test in its own time, with a Server that is reached as host "a".
func onNetwork(t *testing.T, o pushy.Options, run func(t *testing.T, n *network, srv *pushy.Server)) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		n := newNetwork(t)
		srv := startServer(t, o)
		n.serve("a", srv)
		run(t, n, srv)
	})
}

// fakeTime runs a test in its own time, in which all timers have ended at the end.
func fakeTime(t *testing.T, run func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(24 * time.Hour) })
		run(t)
	})
}

func startServer(t testing.TB, o pushy.Options) *pushy.Server {
	t.Helper()
	if o.SecretKey == "" {
		o.SecretKey = secret
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	srv, err := pushy.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	return srv
}

// keeping makes channels keep events, but for those named off….
func keeping(size int) pushy.Options {
	return pushy.Options{Channel: func(name string) pushy.ChannelOptions {
		if strings.HasPrefix(name, "off") {
			return pushy.ChannelOptions{}
		}
		return pushy.ChannelOptions{Keep: broker.Keep{Size: size, TTL: time.Hour}}
	}}
}

// newCluster makes nodes whose deliveries are late by that time.
func newCluster() *memory.Cluster { return memory.NewCluster(memory.Options{}) }

func (n *network) options() subscriber.Options {
	return subscriber.Options{NetDial: n.dial, Token: subscriber.SignWith(secret)}
}

// connect is Dial for a Client that ends with the test.
func connect(t testing.TB, host string, o subscriber.Options) *subscriber.Client {
	t.Helper()
	c, err := subscriber.Dial(t.Context(), "ws://"+host+"/pushy", o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func subscribe(t testing.TB, c *subscriber.Client, channel string,
	o *subscriber.SubscribeOptions) *subscriber.Subscription {
	t.Helper()
	s, err := c.Subscribe(t.Context(), channel, o)
	require.NoError(t, err)
	require.Equal(t, strings.ToLower(channel), s.Channel())
	return s
}

// short is an event in one line.
func short(e subscriber.Event) string {
	s := e.Kind.String() + " " + e.Channel
	if e.Name != "" {
		s += " " + e.Name
	}
	if e.Data != nil {
		s += " " + string(e.Data)
	}
	if e.Position.Offset > 0 {
		s += fmt.Sprintf(" @%d", e.Position.Offset)
	}
	if e.Reason != "" {
		s += " " + e.Reason
	}
	if e.Count > 0 {
		s += fmt.Sprintf(" %d lost", e.Count)
	}
	return s
}

// reading runs the loop of a Subscription in a goroutine.
type reading struct {
	t    testing.TB
	mu   sync.Mutex
	got  []string
	err  error
	over bool
}

func read(t testing.TB, s *subscriber.Subscription) *reading {
	r := &reading{t: t}
	go func() {
		for e, err := range s.Events() {
			r.mu.Lock()
			if err != nil {
				r.err = err
			} else {
				r.got = append(r.got, short(e))
			}
			r.mu.Unlock()
		}
		r.mu.Lock()
		r.over = true
		r.mu.Unlock()
	}()
	return r
}

// expect waits until nothing happens any more, and compares what was received since the last call.
func (r *reading) expect(want ...string) {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Equal(r.t, want, r.got)
	r.got = nil
}

// ended expects the end of the loop, and returns its error.
func (r *reading) ended() error {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.True(r.t, r.over, "the loop goes on")
	return r.err
}

func publish(t testing.TB, srv *pushy.Server, channel, event string, data any) {
	t.Helper()
	require.NoError(t, srv.Publish(context.Background(), channel, event, data))
}
