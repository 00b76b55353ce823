package redis_test

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/redis"
	"github.com/gopushy/pushy/brokers/redis/internal/redistest"
	"github.com/gopushy/pushy/brokertest"
)

// node is a Broker that the suites can cut off and kill.
type node struct {
	*redis.Broker
	proxy *redistest.Proxy
	lease time.Duration
}

var (
	_ brokertest.Cutter = (*node)(nil)
	_ brokertest.Killer = (*node)(nil)
)

func (n *node) Cut() (mend func())   { return n.proxy.Cut() }
func (n *node) Kill()                { n.Broker.Kill() }
func (n *node) Lease() time.Duration { return n.lease }

// prefixes are those of the tests that run. With -count=2 the second run of a test
// must not meet what the first has left behind.
var prefixes struct {
	sync.Mutex
	made int
	of   map[string]string // by the test's name
}

// prefix returns one prefix for each run of a test.
func prefix(t testing.TB) string {
	prefixes.Lock()
	defer prefixes.Unlock()
	name := t.Name()
	if prefixes.of == nil {
		prefixes.of = map[string]string{}
	}
	if prefixes.of[name] == "" {
		prefixes.made++
		prefixes.of[name] = name[:min(len(name), 80)] + "#" + strconv.Itoa(prefixes.made)
		t.Cleanup(func() {
			prefixes.Lock()
			delete(prefixes.of, name)
			prefixes.Unlock()
		})
	}
	return prefixes.of[name]
}

// options are for tests: a short lease, and a short patience with Redis.
func options(t testing.TB) redis.Options {
	return redis.Options{Prefix: prefix(t), Lease: 2 * time.Second, Timeout: 2 * time.Second, RequireAtStart: true,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// open connects to the shared server, by a way that can be cut.
func open(t testing.TB) *node {
	o := options(t)
	proxy, err := redistest.NewProxy(server.Addr)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	o.Addresses = []string{proxy.Addr}
	return &node{connect(t, o), proxy, o.Lease}
}

func connect(t testing.TB, o redis.Options) *redis.Broker {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b, err := redis.New(ctx, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// openCluster connects to the shared Cluster, straight.
func openCluster(t testing.TB) *redis.Broker {
	o := options(t)
	o.Cluster, o.Timeout = true, 10*time.Second // nothing is cut off, and a busy machine makes 17 connections slowly
	for _, s := range cluster {
		o.Addresses = append(o.Addresses, s.Addr)
	}
	return connect(t, o)
}

// killable is a node without a way to cut.
type killable struct {
	*redis.Broker
	lease time.Duration
}

func (k *killable) Lease() time.Duration { return k.lease }

func TestBroker(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, func(t *testing.T) pushy.Broker { return open(t) })
}

func TestPresence(t *testing.T) {
	t.Parallel()
	brokertest.RunPresence(t, func(t *testing.T) pushy.PresenceStore { return open(t) })
}

func TestClusterBroker(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, func(t *testing.T) pushy.Broker { return openCluster(t) }, "reconnect", "alone")
}

func TestClusterPresence(t *testing.T) {
	t.Parallel()
	brokertest.RunPresence(t, func(t *testing.T) pushy.PresenceStore {
		return &killable{openCluster(t), 2 * time.Second}
	}, "cut", "blip")
}

// A Cluster as one of version 6 is used: messages go to all its nodes.
func TestPlainCluster(t *testing.T) {
	t.Parallel()
	plain := func(t testing.TB) *redis.Broker {
		o := options(t)
		o.Cluster, o.Addresses, o.Timeout = true, []string{cluster[0].Addr}, 10*time.Second
		return connect(t, o.Plain())
	}
	brokertest.Run(t, func(t *testing.T) pushy.Broker { return plain(t) }, "reconnect", "alone")
	brokertest.RunPresence(t, func(t *testing.T) pushy.PresenceStore {
		return &killable{plain(t), 2 * time.Second}
	}, "cut", "blip")
}

// behindSentinel is a master that a Sentinel of the test's own watches.
func behindSentinel(t testing.TB) (master, sentinel *redistest.Server) {
	master, err := redistest.Start()
	require.NoError(t, err)
	t.Cleanup(master.Close)
	sentinel, err = redistest.Sentinel(master)
	require.NoError(t, err)
	t.Cleanup(sentinel.Close)
	return master, sentinel
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	_, sentinel := behindSentinel(t)
	behind := func(t testing.TB) *redis.Broker {
		o := options(t)
		o.Addresses, o.SentinelMaster = []string{sentinel.Addr}, "main"
		return connect(t, o)
	}
	brokertest.Run(t, func(t *testing.T) pushy.Broker { return behind(t) }, "reconnect", "alone")
	brokertest.RunPresence(t, func(t *testing.T) pushy.PresenceStore {
		return &killable{behind(t), 2 * time.Second}
	}, "cut", "blip")
}
