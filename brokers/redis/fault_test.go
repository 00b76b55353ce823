package redis_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/redis"
	"github.com/gopushy/pushy/brokers/redis/internal/redistest"
	"github.com/gopushy/pushy/internal/clustertest"
)

// childLease is longer than that of other tests: a process that has no turn for so long
// counts as dead, and its members come a second time.
const childLease = 4 * time.Second

// joinFromChild makes what a node in a process of its own shares: how is address and
// prefix, or "" for a node that is alone.
func joinFromChild(how string) (pushy.Broker, pushy.PresenceStore, error) {
	if how == "" {
		return nil, nil, nil
	}
	address, prefix, _ := strings.Cut(how, " ")
	b, err := redis.New(context.Background(), redis.Options{Addresses: []string{address}, Prefix: prefix,
		Lease: childLease, Timeout: childLease / 2, RequireAtStart: true, Logger: slog.New(slog.DiscardHandler)})
	return b, b, err
}

// ownServer is a server that the test may stop.
func ownServer(t testing.TB, args ...string) *redistest.Server {
	s, err := redistest.Start(args...)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// engine joins nodes on a server, straight.
func engine(s *redistest.Server, change func(*redis.Options)) clustertest.Engine {
	return clustertest.Engine{Lease: 2 * time.Second, Join: func(t testing.TB) (pushy.Broker, pushy.PresenceStore) {
		o := options(t)
		o.Addresses = []string{s.Addr}
		if change != nil {
			change(&o)
		}
		b := connect(t, o)
		return b, b
	}}
}

// keys returns the keys that match a pattern.
func keys(t testing.TB, s *redistest.Server, pattern string) []string {
	all, err := s.Command("EVAL", "return table.concat(redis.call('KEYS', ARGV[1]), '\\n')", "0", pattern)
	require.NoError(t, err)
	return strings.Fields(all)
}

func TestKilled(t *testing.T) {
	t.Parallel()
	prefix := prefix(t)
	e := engine(server, func(o *redis.Options) { o.Prefix, o.Lease = prefix, childLease })
	e.Lease = childLease
	clustertest.Killed(t, e,
		func() (*clustertest.Child, error) { return clustertest.Start(server.Addr + " " + prefix) },
		func(t testing.TB) []string {
			var left []string
			for _, kind := range []string{"n:*", "l:*"} {
				if found := keys(t, server, "{"+prefix+"}"+kind); len(found) > 2 { // those of the living
					left = append(left, found...)
				}
			}
			return left
		})
}

func TestServerGone(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	clustertest.Outlived(t, engine(s, nil), clustertest.Outage{
		For: 10 * time.Second,
		Cut: func(int) bool { return true },
		Away: func(t testing.TB) func() {
			s.Stop()
			return func() { require.NoError(t, s.Restart()) }
		},
	})
}

func TestServerGoneThatRemembers(t *testing.T) {
	t.Parallel()
	s := ownServer(t, "--appendonly", "yes", "--appendfsync", "always")
	clustertest.Outlived(t, engine(s, nil), clustertest.Outage{
		For: 10 * time.Second,
		Cut: func(int) bool { return true },
		Away: func(t testing.TB) func() {
			s.Stop()
			return func() { require.NoError(t, s.Restart()) }
		},
	})
}

func TestNodeCutOff(t *testing.T) {
	t.Parallel()
	var nodes []*node
	e := clustertest.Engine{Lease: 2 * time.Second, Join: func(t testing.TB) (pushy.Broker, pushy.PresenceStore) {
		n := open(t)
		nodes = append(nodes, n)
		return n.Broker, n.Broker
	}}
	clustertest.Outlived(t, e, clustertest.Outage{
		For:  10 * time.Second,
		Cut:  func(i int) bool { return i == 1 },
		Away: func(testing.TB) func() { return nodes[1].Cut() },
	})
}

// heard is what a Broker delivered.
func heard(t testing.TB, b *redis.Broker) <-chan pushy.Message {
	c := make(chan pushy.Message, 1000)
	require.NoError(t, b.Open(t.Context(), func(_ string, m pushy.Message) { c <- m }))
	return c
}

func next(t testing.TB, c <-chan pushy.Message) pushy.Message {
	select {
	case m := <-c:
		return m
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
		return pushy.Message{}
	}
}

func event(name string) pushy.Message {
	return pushy.Message{Event: name, Data: json.RawMessage("{}"), Node: "n", Seq: 1}
}

func TestPrefixesKeepApart(t *testing.T) {
	t.Parallel()
	one, two := options(t), options(t)
	one.Addresses, two.Addresses = []string{server.Addr}, []string{server.Addr}
	two.Prefix += "2"
	a, b := connect(t, one), connect(t, two)
	heardA, heardB := heard(t, a), heard(t, b)
	ctx := t.Context()
	for _, channel := range []string{"news", "2news", "private-room"} {
		require.NoError(t, a.Subscribe(ctx, channel))
		require.NoError(t, b.Subscribe(ctx, channel))
		received, err := a.Publish(ctx, channel, event("a"))
		require.NoError(t, err)
		assert.Equal(t, pushy.None, received)
		_, err = b.Publish(ctx, channel, event("b"))
		require.NoError(t, err)
		assert.Equal(t, "a", next(t, heardA).Event)
		assert.Equal(t, "b", next(t, heardB).Event)
	}
	require.NoError(t, a.Join(ctx, "private-room", pushy.Member{ID: "1", HasData: true, JSON: []byte("{}")}))
	snap, err := b.Watch(ctx, "private-room", func(pushy.Change) {})
	require.NoError(t, err)
	assert.Empty(t, snap.Members)
	assert.Empty(t, heardA)
	assert.Empty(t, heardB)
}

// What a publish costs where no other node has the channel is one PUBLISH, and what
// a node subscribes to is what its clients are in.
func TestOneCommandForAnEvent(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	o := options(t)
	o.Addresses = []string{s.Addr}
	a, b := connect(t, o), connect(t, o)
	heardA := heard(t, a)
	_ = heard(t, b)
	require.NoError(t, a.Subscribe(t.Context(), "news"))
	require.NoError(t, b.Subscribe(t.Context(), "other"))
	_, err := s.Command("CONFIG", "RESETSTAT")
	require.NoError(t, err)
	for range 100 {
		received, err := a.Publish(t.Context(), "news", event("said"))
		require.NoError(t, err)
		assert.Equal(t, pushy.None, received)
		next(t, heardA)
	}
	stats, err := s.Command("INFO", "commandstats")
	require.NoError(t, err)
	assert.Contains(t, stats, "cmdstat_publish:calls=100,")
	for line := range strings.Lines(stats) {
		name, _, _ := strings.Cut(line, ":")
		switch name {
		case "cmdstat_publish", "# Commandstats\r\n", "cmdstat_info", "cmdstat_config|resetstat", "cmdstat_config": // Redis 7, and 6
		case "cmdstat_evalsha", "cmdstat_pexpire", "cmdstat_smembers", "cmdstat_exists", "cmdstat_ping", "cmdstat_role": // leases
		case "cmdstat_hello", "cmdstat_client|setname", "cmdstat_client": // the connection that renews the lease
		default:
			assert.Empty(t, strings.TrimSpace(line), "a command that an event should not cost")
		}
	}
	count, err := s.Command("EVAL", "return tostring(#redis.call('PUBSUB', 'CHANNELS', '*news'))..tostring(#redis.call('PUBSUB', 'CHANNELS', '*other'))", "0")
	require.NoError(t, err)
	assert.Equal(t, "11", count)
	numsub, err := s.Command("EVAL", "return tostring(redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2])", "0", "{"+o.Prefix+"}news")
	require.NoError(t, err)
	assert.Equal(t, "1", numsub)
}

func TestAwayAtStart(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	s.Stop()
	o := options(t)
	o.Addresses = []string{s.Addr}
	_, err := redis.New(t.Context(), o)
	require.Error(t, err, "with RequireAtStart")
	assert.Contains(t, err.Error(), "Options.Addresses: nobody answers as Redis at "+s.Addr)

	o.RequireAtStart = false
	b := connect(t, o)
	srv, err := pushy.New(pushy.Options{SecretKey: "a secret of the test", Broker: b, Presence: b})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	require.ErrorContains(t, srv.Stats().Away, "redis: away: ")
	deliver := make(chan pushy.Message, 10)
	require.NoError(t, b.Open(t.Context(), func(_ string, m pushy.Message) { deliver <- m }))
	require.NoError(t, b.Subscribe(t.Context(), "news"))
	_, err = b.Publish(t.Context(), "news", event("alone"))
	require.NoError(t, err)
	assert.Equal(t, "alone", next(t, deliver).Event)
	require.NoError(t, b.Join(t.Context(), "private-room", pushy.Member{ID: "1", HasData: true, JSON: []byte("{}")}))

	require.NoError(t, s.Restart())
	assert.Equal(t, pushy.EventResync, next(t, deliver).Event)
	o.RequireAtStart = true
	other := connect(t, o)
	_, err = other.Publish(t.Context(), "news", event("other"))
	require.NoError(t, err)
	assert.Equal(t, "other", next(t, deliver).Event)
	assert.NoError(t, srv.Stats().Away)
	assert.Eventually(t, func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		snap, err := other.Watch(ctx, "private-room", func(pushy.Change) {})
		return err == nil && len(snap.Members) == 1
	}, 30*time.Second, 50*time.Millisecond, "the member that joined alone")
}

// trigger posts a signed trigger.
func trigger(t testing.TB, srv *pushy.Server, key, channel string) *httptest.ResponseRecorder {
	now := time.Now().Unix()
	body := `{"n":1}`
	sign, err := pushy.SignTrigger(key, channel, "said", now, []byte(body))
	require.NoError(t, err)
	r := httptest.NewRequest(http.MethodPost, "/pushy/channel/"+channel+"/trigger?event=said&timestamp="+strconv.FormatInt(now, 10)+"&auth_key="+sign, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	return w
}

// A server that takes commands and does not answer: publishing fails by its
// deadline, and a trigger may be sent again.
func TestSlow(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	o := options(t)
	o.Addresses = []string{s.Addr}
	b := connect(t, o)
	const key = "a secret of the test"
	srv, err := pushy.New(pushy.Options{SecretKey: key, Broker: b, Presence: b})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	assert.Equal(t, http.StatusOK, trigger(t, srv, key, "news").Code)
	require.NoError(t, s.Pause())
	answer := trigger(t, srv, key, "news")
	require.NoError(t, s.Resume())
	assert.Equal(t, http.StatusServiceUnavailable, answer.Code, answer.Body)
	assert.NotEmpty(t, answer.Header().Get("Retry-After"))
	assert.Eventually(t, func() bool { return srv.Stats().Away == nil && trigger(t, srv, key, "news").Code == http.StatusOK },
		30*time.Second, 50*time.Millisecond)
}

// With no memory left private channels take no new members; all else goes on, and
// nobody is taken for dead.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	o := options(t)
	o.Addresses = []string{s.Addr}
	a, b := connect(t, o), connect(t, o)
	heardB := heard(t, b)
	changes := make(chan pushy.Change, 100)
	_, err := b.Watch(t.Context(), "private-room", func(c pushy.Change) { changes <- c })
	require.NoError(t, err)
	require.NoError(t, b.Subscribe(t.Context(), "private-room"))
	change := func() pushy.Change {
		select {
		case c := <-changes:
			return c
		case <-time.After(30 * time.Second):
			t.Fatal("no change came")
			return pushy.Change{}
		}
	}
	member := func(id string) pushy.Member { return pushy.Member{ID: id, HasData: true, JSON: []byte("{}")} }
	require.NoError(t, a.Join(t.Context(), "private-room", member("1")))
	require.NoError(t, a.Join(t.Context(), "private-room", member("2")))
	assert.Equal(t, "1", change().Member.ID)
	assert.Equal(t, "2", change().Member.ID)
	_, err = s.Command("CONFIG", "SET", "maxmemory", "1")
	require.NoError(t, err)
	err = a.Join(t.Context(), "private-room", member("3"))
	require.ErrorContains(t, err, "OOM")
	require.NoError(t, a.Leave(t.Context(), "private-room", "3"))
	_, err = a.Publish(t.Context(), "private-room", event("said"))
	require.NoError(t, err)
	assert.Equal(t, "said", next(t, heardB).Event)
	require.NoError(t, a.Leave(t.Context(), "private-room", "1"))
	assert.Equal(t, pushy.Change{Revision: 0, Left: true, Member: pushy.Member{ID: "1"}}, func() pushy.Change {
		c := change()
		c.Revision = 0
		return c
	}())
	<-time.After(2 * o.Lease)
	assert.Empty(t, changes, "member 2 is still there")
	_, err = s.Command("CONFIG", "SET", "maxmemory", "0")
	require.NoError(t, err)
	require.NoError(t, a.Join(t.Context(), "private-room", member("4")))
	assert.Equal(t, "4", change().Member.ID)
}

// When the master dies Sentinel makes its replica the master, and the nodes follow.
func TestFailover(t *testing.T) {
	t.Parallel()
	master, sentinel := behindSentinel(t)
	host, port, _ := strings.Cut(master.Addr, ":")
	replica := ownServer(t, "--replicaof", host, port)
	require.Eventually(t, func() bool {
		info, err := sentinel.Command("INFO", "sentinel")
		return err == nil && strings.Contains(info, "slaves=1")
	}, 30*time.Second, 50*time.Millisecond, "the Sentinel sees the replica of %s: %s", master.Addr, replica.Addr)
	o := options(t)
	o.Addresses, o.SentinelMaster = []string{sentinel.Addr}, "main"
	a, b := connect(t, o), connect(t, o)
	_, heardB := heard(t, a), heard(t, b)
	require.NoError(t, b.Subscribe(t.Context(), "news"))
	require.NoError(t, a.Join(t.Context(), "private-room", pushy.Member{ID: "1", HasData: true, JSON: []byte("{}")}))
	master.Stop()
	for resynced := false; !resynced; {
		resynced = next(t, heardB).Event == pushy.EventResync
	}
	require.Eventually(t, func() bool { return a.Away() == nil && b.Away() == nil }, 30*time.Second, 20*time.Millisecond)
	_, err := a.Publish(t.Context(), "news", event("after"))
	require.NoError(t, err)
	for after := false; !after; {
		after = next(t, heardB).Event == "after"
	}
	assert.Eventually(t, func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		snap, err := b.Watch(ctx, "private-room", func(pushy.Change) {})
		return err == nil && len(snap.Members) == 1
	}, 30*time.Second, 50*time.Millisecond)
}

func TestWrongSettings(t *testing.T) {
	t.Parallel()
	secured := ownServer(t, "--requirepass", "right")
	at := func(s *redistest.Server) redis.Options { return redis.Options{Addresses: []string{s.Addr}} }
	with := func(o redis.Options, change func(*redis.Options)) redis.Options {
		change(&o)
		return o
	}
	cases := []struct {
		name, setting, says string
		o                   redis.Options
	}{
		{"wrong password", "Password", "it is not accepted", with(at(secured), func(o *redis.Options) { o.Password = "wrong" })},
		{"no password", "Password", "one is required", at(secured)},
		{"nobody there", "Addresses", "nobody answers as Redis at 127.0.0.1:1", redis.Options{Addresses: []string{"127.0.0.1:1"}, RequireAtStart: true}},
		{"no port", "Addresses", "is not host:port", redis.Options{Addresses: []string{"localhost"}}},
		{"a cluster as stand-alone", "Cluster", "is a node of a Redis Cluster, but this is not set", at(cluster[0])},
		{"stand-alone as a cluster", "Cluster", "is not a Redis Cluster", with(at(server), func(o *redis.Options) { o.Cluster = true })},
		{"two stand-alones", "Addresses", "neither Options.Cluster nor Options.SentinelMaster", redis.Options{Addresses: []string{server.Addr, server.Addr}}},
		{"a database that is not there", "Database", "", with(at(server), func(o *redis.Options) { o.Database = 99 })},
		{"a database of a cluster", "Database", "only database 0", with(at(cluster[0]), func(o *redis.Options) { o.Cluster, o.Database = true, 1 })},
		{"a server as sentinel", "Addresses", "is not a Sentinel", with(at(server), func(o *redis.Options) { o.SentinelMaster = "main" })},
		{"braces", "Prefix", "brace", with(at(server), func(o *redis.Options) { o.Prefix = "a{b}" })},
		{"short lease", "Lease", "under 1s", with(at(server), func(o *redis.Options) { o.Lease = time.Millisecond })},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, err := redis.New(t.Context(), c.o)
			if err == nil {
				_ = b.Close()
			}
			var wrong *redis.SettingError
			require.ErrorAs(t, err, &wrong)
			assert.Equal(t, c.setting, wrong.Setting, err)
			assert.Contains(t, err.Error(), c.says)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func member(id string) pushy.Member {
	return pushy.Member{ID: id, HasData: true, JSON: []byte(`{"memberId":"` + id + `"}`)}
}
