package redis_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/brokertest"
	"github.com/gopushy/pushy/broker/redis"
	"github.com/gopushy/pushy/internal/redistest"
	"github.com/gopushy/pushy/internal/storetest"
)

// testNode is a Broker that the suite can cut off and kill. All its connections go
// through proxies, also those to servers that a Cluster or a Sentinel names.
type testNode struct {
	*redis.Broker
	t testing.TB

	mu      sync.Mutex
	proxies map[string]*storetest.Proxy
	cut     bool
}

var (
	_ brokertest.Cutter = (*testNode)(nil)
	_ brokertest.Killer = (*testNode)(nil)
)

// newNode returns a node that is not open yet. It gives Redis up soon, and does not give
// up at the start: a busy machine makes connections slowly.
func newNode(t testing.TB, o redis.Options) *testNode {
	o.RequireAtStart = false
	o.Timeout = suiteTimeout
	n := &testNode{t: t, proxies: map[string]*storetest.Proxy{}}
	n.Broker = redis.New(o.Via(n.via))
	t.Cleanup(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, p := range n.proxies {
			p.Close()
		}
	})
	return n
}

// Open opens the node and waits until it is connected.
func (n *testNode) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	if err := n.Broker.Open(ctx, o, sink); err != nil {
		return err
	}
	for n.Away() != nil {
		select {
		case <-ctx.Done():
			return n.Away()
		case <-time.After(tick):
		}
	}
	return nil
}

func (n *testNode) via(address string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.proxies[address]
	if p == nil {
		var err error
		if p, err = storetest.NewProxy(address); err != nil {
			return "127.0.0.1:1"
		}
		n.proxies[address] = p
		if n.cut {
			p.Cut()
		}
	}
	return p.Addr
}

func (n *testNode) Cut() (mend func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = true
	for _, p := range n.proxies {
		p.Cut()
	}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.cut = false
		for _, p := range n.proxies {
			p.Mend()
		}
	}
}

// Kill ends the node; Close says no more to Redis than a killed process does.
func (n *testNode) Kill() { n.Cut() }

// suiteLease is longer than it takes to notice that a connection was cut, so that a
// node which is cut off for a moment keeps its lease.
const (
	suiteLease   = 8 * time.Second
	suiteTimeout = 3 * time.Second
)

// options are for tests.
func options(t testing.TB, servers ...*redistest.Server) redis.Options {
	o := redis.Options{
		Prefix:         storetest.Prefix(t),
		Timeout:        10 * time.Second,
		RequireAtStart: true,
		Logger:         slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, s := range servers {
		o.Addresses = append(o.Addresses, s.Addr)
	}
	return o
}

func hold(t *testing.T, lease time.Duration, open func(t *testing.T) broker.Broker) {
	brokertest.Run(t, brokertest.Options{Lease: lease, MaxBytes: 4 << 20}, open)
}

func inCluster(t testing.TB, servers ...*redistest.Server) redis.Options {
	o := options(t, servers...)
	o.Cluster = true
	return o
}

func TestBroker(t *testing.T) {
	t.Parallel()
	hold(t, suiteLease, func(t *testing.T) broker.Broker { return newNode(t, options(t, server)) })
}

func TestCheckEveryAppend(t *testing.T) {
	t.Parallel()
	hold(t, suiteLease, func(t *testing.T) broker.Broker {
		o := options(t, server)
		o.CheckEveryAppend = true
		return newNode(t, o)
	})
}

func TestClusterBroker(t *testing.T) {
	t.Parallel()
	hold(t, suiteLease*3/2, func(t *testing.T) broker.Broker { return newNode(t, inCluster(t, cluster...)) })
}

// A Cluster as one of version 6 is used: messages go to all its nodes.
func TestPlainCluster(t *testing.T) {
	t.Parallel()
	hold(t, suiteLease*3/2, func(t *testing.T) broker.Broker { return newNode(t, inCluster(t, cluster[0]).Plain()) })
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	_, sentinel := behindSentinel(t)
	hold(t, suiteLease, func(t *testing.T) broker.Broker {
		o := options(t, sentinel)
		o.SentinelMaster = "main"
		return newNode(t, o)
	})
}

// behindSentinel is a primary that a Sentinel of the test's own watches.
func behindSentinel(t testing.TB) (primary, sentinel *redistest.Server) {
	primary = ownServer(t)
	sentinel, err := redistest.Sentinel(primary)
	require.NoError(t, err)
	t.Cleanup(sentinel.Close)
	return primary, sentinel
}

// ownServer is a server that the test may stop.
func ownServer(t testing.TB, args ...string) *redistest.Server {
	s, err := redistest.Start(args...)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

const (
	patience = 60 * time.Second
	tick     = 20 * time.Millisecond
)

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
