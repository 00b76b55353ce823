package redis_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/redis"
	"github.com/gopushy/pushy/brokers/redis/internal/redistest"
)

// replicate makes one server a replica of another, or a primary for "".
func replicate(t testing.TB, s, of *redistest.Server) {
	t.Helper()
	host, port := "NO", "ONE"
	if of != nil {
		host, port, _ = net.SplitHostPort(of.Addr)
	}
	answer, err := s.Command("REPLICAOF", host, port)
	require.NoError(t, err)
	require.Equal(t, "+OK", answer)
}

// pair is two servers behind one address, the first of which is the primary.
func pair(t *testing.T) (primary, replica *redistest.Server, address *redistest.Proxy) {
	primary, replica = ownServer(t), ownServer(t)
	replicate(t, replica, primary)
	address, err := redistest.NewProxy(primary.Addr)
	require.NoError(t, err)
	t.Cleanup(address.Close)
	return primary, replica, address
}

// Issue 11, number 5. Behind one address the primary becomes a replica of the other
// server, and no connection is cut: nodes leave it, find the new primary, and hear one
// another and of the members again.
func TestPrimaryBecomesReplica(t *testing.T) {
	t.Parallel()
	first, second, address := pair(t)
	o := options(t)
	o.Addresses = []string{address.Addr}
	a, b := connect(t, o), connect(t, o)
	_, heardB := heard(t, a), heard(t, b)
	require.NoError(t, b.Subscribe(t.Context(), "news"))
	require.NoError(t, a.Join(t.Context(), "private-x", pushy.Member{ID: "1", HasData: true, JSON: []byte(`{"memberId":"1"}`)}))

	replicate(t, second, nil)
	replicate(t, first, second)
	address.Point(second.Addr)
	for next(t, heardB).Event != pushy.EventResync {
	}
	require.Eventually(t, func() bool { return a.Away() == nil && b.Away() == nil }, patience, tick)
	numsub, err := second.Command("EVAL", "return tostring(redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2])", "0", "{"+o.Prefix+"}")
	require.NoError(t, err)
	assert.Equal(t, "2", numsub, "both nodes have subscribed at the new primary")
	received, err := a.Publish(t.Context(), "news", event("after"))
	require.NoError(t, err)
	assert.Equal(t, pushy.Some, received)
	for next(t, heardB).Event != "after" {
	}
	snap, err := b.Watch(t.Context(), "private-x", func(pushy.Change) {})
	require.NoError(t, err)
	assert.Len(t, snap.Members, 1)
}

// While there is no primary the node says so, and serves its own clients.
func TestOnlyAReplicaIsThere(t *testing.T) {
	t.Parallel()
	first, second, address := pair(t)
	o, log := options(t), &lines{}
	o.Addresses, o.Logger = []string{address.Addr}, log.logger()
	a := connect(t, o)
	heardA := heard(t, a)
	require.NoError(t, a.Subscribe(t.Context(), "news"))
	replicate(t, second, nil)
	replicate(t, first, second)
	require.Eventually(t, func() bool { return a.Away() != nil }, patience, tick)
	require.Eventually(t, func() bool {
		err := a.Away()
		return err != nil && assert.ObjectsAreEqual(true, containsAny(err.Error(), "replica", "READONLY"))
	}, patience, tick)
	_, err := a.Publish(t.Context(), "news", event("alone"))
	require.NoError(t, err)
	assert.Equal(t, "alone", next(t, heardA).Event)
	replicate(t, first, nil)
	require.Eventually(t, func() bool { return a.Away() == nil }, patience, tick)
	assert.LessOrEqual(t, len(log.with("level=WARN")), 2, log)
}

// A replica is no server to begin with.
func TestReplicaAtStart(t *testing.T) {
	t.Parallel()
	primary := ownServer(t)
	replica := ownServer(t)
	replicate(t, replica, primary)
	o := options(t)
	o.Addresses = []string{replica.Addr}
	_, err := redis.New(t.Context(), o)
	require.Error(t, err, "with RequireAtStart")
	assert.Contains(t, err.Error(), "is a replica")
	assert.Contains(t, err.Error(), replica.Addr)

	o.RequireAtStart = false
	b := connect(t, o)
	require.ErrorContains(t, b.Away(), "is a replica")
	replicate(t, replica, nil)
	require.Eventually(t, func() bool { return b.Away() == nil }, patience, tick, "once it is the primary")
}

// A server that has lost its primary and serves nothing meanwhile (MASTERDOWN), or that
// is loading, counts as away, too.
func TestReplicaThatServesNothing(t *testing.T) {
	t.Parallel()
	gone, s := ownServer(t), ownServer(t, "--replica-serve-stale-data", "no")
	o := options(t)
	o.Addresses = []string{s.Addr}
	a := connect(t, o)
	gone.Stop()
	replicate(t, s, gone)
	require.Eventually(t, func() bool { return a.Away() != nil }, patience, tick)
	replicate(t, s, nil)
	require.Eventually(t, func() bool { return a.Away() == nil }, patience, tick)
}
