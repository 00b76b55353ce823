package cluster_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/broker/redis"
	"github.com/gopushy/pushy/internal/natstest"
	"github.com/gopushy/pushy/internal/redistest"
	"github.com/gopushy/pushy/internal/storetest"
	"github.com/gopushy/pushy/internal/testproc"
)

func TestMain(m *testing.M) {
	serveChild()
	testproc.Parallel(3) // the tests wait for leases more than they compute
	os.Exit(m.Run())
}

// membership describes how a node joins a cluster. Processes receive it as JSON.
type membership struct {
	Kind      string // redis, redis-cluster, redis-sentinel, nats, nats-files or nats-cluster
	Addresses []string
	Prefix    string
	Timeout   time.Duration
	Lease     time.Duration
	// ReturnRate is that of the nodes that are processes of their own. 0 is the default.
	ReturnRate int
	// Hangs is the channel whose events this node never finishes to append, or "".
	Hangs string
	// Webhooks is the URL that receives the webhooks of this node, or "".
	Webhooks string
}

// broker returns a Broker that is not open yet.
func (m membership) broker(log *slog.Logger) broker.Broker {
	if strings.HasPrefix(m.Kind, "redis") {
		o := redis.Options{
			Addresses: m.Addresses,
			Cluster:   m.Kind == "redis-cluster",
			Prefix:    m.Prefix,
			Timeout:   m.Timeout,
			Logger:    log,
		}
		if m.Kind == "redis-sentinel" {
			o.SentinelMaster = "main"
		}
		return redis.New(o)
	}
	o := nats.Options{
		URL:     "nats://" + strings.Join(m.Addresses, ",nats://"),
		Prefix:  m.Prefix,
		Timeout: m.Timeout,
		Files:   m.Kind == "nats-files",
		Logger:  log,
	}
	if m.Kind == "nats-cluster" {
		o.Replicas = 3
	}
	return nats.New(o)
}

// server is a process of Redis or NATS.
type server interface {
	Stop()
	Restart() error
	Pause() error
	Resume() error
}

// store is the store that the nodes of one test share.
type store struct {
	membership
	server server // nil if there are several
	// proxied means that each node connects through its own proxy.
	proxied bool

	mu      sync.Mutex
	proxies []*storetest.Proxy
	brokers []broker.Broker
}

// Leases: longLease is for tests in which no node fails, and shortLease for tests in which
// nodes lose the store. killedLease is for tests in which one node is killed or stopped and the
// others must not expire, although a busy machine may not run them for some seconds. askLease is
// for tests in which a node must be listed as silent before it expires.
const (
	longLease   = time.Minute
	shortLease  = 8 * time.Second
	killedLease = 10 * time.Second
	askLease    = 20 * time.Second
)

// newStore returns a store with these addresses.
func newStore(t testing.TB, kind string, s server, addresses ...string) *store {
	return &store{server: s, membership: membership{
		Kind:      kind,
		Addresses: addresses,
		Prefix:    storetest.Prefix(t),
		Timeout:   20 * time.Second, // an overloaded machine must not cause a failure
		Lease:     longLease,
	}}
}

// failing sets the times for a test in which nodes or the store fail.
func (s *store) failing() *store {
	s.Timeout, s.Lease = shortLease/2, shortLease
	return s
}

// join returns the broker of one more node.
func (s *store) join(t testing.TB) broker.Broker {
	t.Helper()
	m := s.membership
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proxied {
		p, err := storetest.NewProxy(m.Addresses[0])
		require.NoError(t, err)
		t.Cleanup(p.Close)
		m.Addresses = []string{p.Addr}
		s.proxies = append(s.proxies, p)
	}
	b := m.broker(slog.New(slog.NewTextHandler(t.Output(), nil)))
	s.brokers = append(s.brokers, b)
	return b
}

// alive returns the number of nodes that the first node knows.
func (s *store) alive(t testing.TB) int {
	t.Helper()
	ids, err := s.brokers[0].(broker.Cluster).Nodes(t.Context())
	require.NoError(t, err)
	return len(ids)
}

// stores has a func for each kind of store. Each test has its own store.
var stores = map[string]func(t testing.TB) *store{
	"redis": func(t testing.TB) *store { return startRedis(t) },
	"redisWithFiles": func(t testing.TB) *store {
		return startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	},
	"redisCluster": func(t testing.TB) *store {
		servers, err := redistest.Cluster(3)
		t.Cleanup(func() {
			for _, s := range servers {
				s.Close()
			}
		})
		require.NoError(t, err)
		return newStore(t, "redis-cluster", nil, servers[0].Addr)
	},
	"nats":          func(t testing.TB) *store { return startNATS(t, "nats") },
	"natsWithFiles": func(t testing.TB) *store { return startNATS(t, "nats-files") },
}

func startRedis(t testing.TB, args ...string) *store {
	t.Helper()
	s, err := redistest.Start(args...)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return newStore(t, "redis", s, s.Addr)
}

// redis returns the store's server.
func (s *store) redis(t testing.TB) *redistest.Server {
	t.Helper()
	r, is := s.server.(*redistest.Server)
	require.True(t, is)
	return r
}

func startNATS(t testing.TB, kind string) *store {
	t.Helper()
	s, err := natstest.StartJetStream()
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return newStore(t, kind, s, s.Addr)
}

// on runs a test with several kinds of stores.
func on(t *testing.T, kinds []string, test func(t *testing.T, s *store)) {
	t.Helper()
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, stores[kind](t))
		})
	}
}

var (
	everyStore = []string{"redis", "nats"}
	everyKind  = []string{"redis", "redisWithFiles", "nats", "natsWithFiles"}
)

func TestCrowd(t *testing.T) {
	t.Parallel()
	on(t, []string{"redis", "redisCluster", "nats"}, func(t *testing.T, s *store) { crowd(t, s, 6) })
}

// A delivery costs the same as without a broker: at 1,000 subscribers the cost of the publish
// is negligible. This test is not parallel to others.
func TestCPUOfADelivery(t *testing.T) {
	for _, kind := range everyStore {
		t.Run(kind, func(t *testing.T) { cpuOfADelivery(t, stores[kind](t)) })
	}
}

func TestKilled(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		s.Lease = killedLease
		killed(t, s)
	})
}

// A process that is stopped for longer than its lease loses its members, and continues as if
// it had been disconnected from the store.
func TestStopped(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		s.Lease = killedLease
		stopped(t, s)
	})
}

// The server restarts after 10 s, with the data in its files and without the data in memory.
func TestServerGone(t *testing.T) {
	t.Parallel()
	on(t, everyKind, func(t *testing.T, s *store) {
		outlived(t, s.failing(), outage{
			lasts: 10 * time.Second,
			cuts:  func(int) bool { return true },
			begin: func(t testing.TB) func() {
				s.server.Stop()
				return func() { require.NoError(t, s.server.Restart()) }
			},
		})
	})
}

// One of three nodes cannot reach the store for 10 s. Its connections are closed, or nothing
// is forwarded any more.
func TestNodeCutOff(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(*storetest.Proxy){
		"closed": (*storetest.Proxy).Refuse,
		"silent": (*storetest.Proxy).Cut,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			on(t, everyStore, func(t *testing.T, s *store) {
				s.proxied = true
				outlived(t, s.failing(), outage{
					lasts: 10 * time.Second,
					cuts:  func(i int) bool { return i == 1 },
					begin: func(testing.TB) func() {
						cut(s.proxies[1])
						return s.proxies[1].Mend
					},
				})
			})
		})
	}
}

// The store loses all its data, while it continues to run.
func TestStoreIsEmptied(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		s.Lease = killedLease
		outlived(t, s, outage{
			lasts: 2 * time.Second,
			begin: func(t testing.TB) func() {
				if r, is := s.server.(*redistest.Server); is {
					answer, err := r.Command("FLUSHALL")
					require.NoError(t, err)
					require.Equal(t, "+OK", answer)
					return func() {}
				}
				nc, err := natsgo.Connect("nats://" + s.Addresses[0])
				require.NoError(t, err)
				defer nc.Close()
				js, err := jetstream.New(nc)
				require.NoError(t, err)
				require.NoError(t, js.DeleteStream(t.Context(), s.Prefix+"-1-members"))
				return func() {}
			},
		})
	})
}

// The primary that Sentinel watches is killed, and its replica takes over.
func TestPrimaryIsKilled(t *testing.T) {
	t.Parallel()
	primary, err := redistest.Start()
	require.NoError(t, err)
	t.Cleanup(primary.Close)
	host, port, _ := strings.Cut(primary.Addr, ":")
	replica, err := redistest.Start("--replicaof", host, port)
	require.NoError(t, err)
	t.Cleanup(replica.Close)
	sentinel, err := redistest.Sentinel(primary)
	require.NoError(t, err)
	t.Cleanup(sentinel.Close)
	soon(t, patience, "the Sentinel knows the replica", func() bool {
		info, err := sentinel.Command("INFO", "sentinel")
		return err == nil && strings.Contains(info, "slaves=1")
	})
	outlived(t, newStore(t, "redis-sentinel", nil, sentinel.Addr).failing(), outage{
		lasts: 10 * time.Second,
		begin: func(testing.TB) func() {
			primary.Stop()
			return func() {}
		},
	})
}

// One of the three servers of a NATS cluster is killed: the leader of the members' stream.
func TestLeaderIsKilled(t *testing.T) {
	t.Parallel()
	servers, err := natstest.Cluster(3)
	require.NoError(t, err)
	var addresses []string
	for _, s := range servers {
		t.Cleanup(s.Close)
		addresses = append(addresses, s.Addr)
	}
	s := newStore(t, "nats-cluster", nil, addresses...)
	s.Timeout = 10 * time.Second
	outlived(t, s, outage{
		lasts: 10 * time.Second,
		begin: func(t testing.TB) func() {
			leader := servers[leaderOf(t, servers, s.Prefix+"-1-members")]
			leader.Stop()
			return func() { require.NoError(t, leader.Restart()) }
		},
	})
}

// leaderOf returns the index of the server that leads a stream.
func leaderOf(t testing.TB, servers []*natstest.Server, stream string) (leader int) {
	t.Helper()
	nc, err := natsgo.Connect(natstest.URLs(servers))
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	soon(t, patience, "the stream has a leader", func() bool {
		s, err := js.Stream(t.Context(), stream)
		if err != nil || s.CachedInfo().Cluster == nil {
			return false
		}
		_, err = fmt.Sscanf(s.CachedInfo().Cluster.Leader, "n%d", &leader)
		return err == nil
	})
	return leader
}

// child starts a node of the store in its own process.
func (s *store) child(t testing.TB) *child {
	t.Helper()
	how, err := json.Marshal(s.membership)
	require.NoError(t, err)
	c, err := startChild(string(how))
	require.NoError(t, err)
	t.Cleanup(c.kill)
	return c
}
