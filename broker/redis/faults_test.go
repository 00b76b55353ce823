package redis_test

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/redistest"
	"github.com/gopushy/pushy/internal/storetest"
	"github.com/gopushy/pushy/internal/testlog"
)

// A server that restarts with its data may lack the last entries: positions of before
// belong to another epoch.
func TestRestartThatRemembers(t *testing.T) {
	t.Parallel()
	s := ownServer(t, "--appendonly", "yes", "--appendfsync", "always")
	a, b := open(t, options(t, s)), open(t, options(t, s))
	b.follow("news")
	b.follow("quiet")
	before := a.append("news", kept("1"))
	a.append("news", join("m"))
	b.wait("news", "+m")
	s.Stop()
	a.gone()
	_, err := a.Append(bounded(t), "news", event("no"))
	assert.ErrorIs(t, err, broker.ErrAway)
	require.NoError(t, s.Restart())
	c := b.wait("news", "reset:"+broker.ResetRestarted)
	assert.Equal(t, "m", ids(*c.state))
	assert.Equal(t, before.At.Offset, c.state.At.Offset)
	assert.NotEqual(t, before.At.Epoch, c.state.At.Epoch)
	b.wait("quiet", "reset:"+broker.ResetRestarted)
	_, err = b.Read(bounded(t), "news", broker.Range{Epoch: before.At.Epoch, Limit: 10})
	assert.ErrorIs(t, err, broker.ErrEpoch)
	a.back()
	after := a.append("news", kept("2"))
	assert.Equal(t, broker.Position{Epoch: c.state.At.Epoch, Offset: 2}, after.At)
	p, err := b.Read(bounded(t), "news", broker.Range{Epoch: after.At.Epoch, Limit: 10})
	require.NoError(t, err)
	assert.Equal(t, "1 2", data(p))
	assert.Equal(t, after.At.Epoch, p.Entries[0].At.Epoch)
}

func TestRestartThatForgets(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	a := open(t, options(t, s))
	a.follow("news")
	before := a.append("news", kept("1"))
	a.append("news", join("m"))
	s.Stop()
	a.gone()
	require.NoError(t, s.Restart())
	c := a.wait("news", "reset:"+broker.ResetEpoch)
	assert.Empty(t, c.state.Members)
	a.back()
	after := a.append("news", kept("2"))
	assert.Equal(t, uint64(1), after.At.Offset)
	assert.NotEqual(t, before.At.Epoch, after.At.Epoch)
	assert.False(t, a.append("news", join("m")).Duplicate)
}

// FLUSHALL leaves the connections: every node has its Resets, and what is appended
// begins in new epochs.
func TestFlushAll(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	a, b := open(t, options(t, s)), open(t, options(t, s))
	a.follow("news")
	b.follow("news")
	before := a.append("news", kept("1"))
	revision := a.append("news", join("m"))
	set(t, s, "FLUSHALL")
	for _, n := range []*openNode{a, b} {
		c := n.wait("news", "reset:"+broker.ResetEpoch)
		assert.Empty(t, c.state.Members)
		assert.NotEqual(t, before.At.Epoch, c.state.At.Epoch)
		assert.NotEqual(t, revision.At.Epoch, c.state.Revision.Epoch)
		assert.NoError(t, n.Away())
	}
	assert.False(t, a.append("news", join("m")).Duplicate)
	after := b.append("news", kept("2"))
	assert.Equal(t, uint64(1), after.At.Offset)
	assert.NotEqual(t, before.At.Epoch, after.At.Epoch)
	a.wait("news", "2")
	b.wait("news", "2")

	// At once, without waiting for a renewal.
	set(t, s, "FLUSHALL")
	last := a.append("news", kept("3"))
	assert.Equal(t, uint64(1), last.At.Offset)
	assert.NotEqual(t, after.At.Epoch, last.At.Epoch)
	set(t, s, "FLUSHALL")
	a.append("news", join("n"))
}

// No two acknowledged appends have one position, although a server that is killed has
// lost the last of them.
func TestKilledServerForgetsTheLast(t *testing.T) {
	t.Parallel()
	s := ownServer(t, "--appendonly", "yes", "--appendfsync", "no", "--save", "1 1")
	o := options(t, s)
	var mu sync.Mutex
	positions := map[broker.Position]bool{}
	epochs := map[string]bool{}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 3 {
		n := open(t, o)
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := n.Append(bounded(t), "news", kept("1"))
				if err != nil {
					<-time.After(time.Millisecond)
					continue
				}
				mu.Lock()
				assert.False(t, positions[a.At], "%v twice", a.At)
				positions[a.At] = true
				epochs[a.At.Epoch] = true
				mu.Unlock()
			}
		})
	}
	for lives := 1; lives <= 3; lives++ {
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(epochs) == lives
		}, patience, tick)
		if lives < 3 {
			s.Stop()
			require.NoError(t, s.Restart())
		}
	}
	close(stop)
	all.Wait()
}

// When the primary dies Sentinel promotes its replica, and the nodes follow.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary, sentinel := behindSentinel(t)
	host, port, _ := strings.Cut(primary.Addr, ":")
	replica := ownServer(t, "--replicaof", host, port)
	require.Eventually(t, func() bool {
		info, err := sentinel.Command("INFO", "sentinel")
		return err == nil && strings.Contains(info, "slaves=1")
	}, patience, 50*time.Millisecond, "the Sentinel sees the replica of %s: %s", primary.Addr, replica.Addr)
	o := options(t, sentinel)
	o.SentinelMaster = "main"
	a, b := open(t, o), open(t, o)
	b.follow("news")
	before := a.append("news", kept("1"))
	a.append("news", join("m"))
	require.Eventually(t, func() bool {
		top, err := replica.Command("EVAL", "return redis.call('EXISTS', KEYS[1])", "1", "{"+o.Prefix+"}1:m:news")
		return err == nil && top == ":1"
	}, patience, tick, "the replica has it")
	primary.Stop()
	c := b.wait("news", "reset:"+broker.ResetRestarted)
	assert.NotEqual(t, before.At.Epoch, c.state.At.Epoch)
	assert.Equal(t, "m", ids(*c.state))
	a.back()
	b.back()
	a.append("news", kept("2"))
	assert.Equal(t, uint64(2), b.wait("news", "2").entry.At.Offset)
}

// replicate makes one server a replica of another, or a primary for nil.
func replicate(t testing.TB, s, of *redistest.Server) {
	t.Helper()
	host, port := "NO", "ONE"
	if of != nil {
		host, port, _ = net.SplitHostPort(of.Addr)
	}
	assert.Equal(t, "+OK", set(t, s, "REPLICAOF", host, port))
}

// pair is two servers behind one address, the first of which is the primary.
func pair(t testing.TB) (primary, replica *redistest.Server, address *storetest.Proxy) {
	primary, replica = ownServer(t), ownServer(t)
	replicate(t, replica, primary)
	address, err := storetest.NewProxy(primary.Addr)
	require.NoError(t, err)
	t.Cleanup(address.Close)
	linked(t, replica)
	return primary, replica, address
}

// linked waits until a replica has the data of its primary.
func linked(t testing.TB, replica *redistest.Server) {
	require.Eventually(t, func() bool {
		return strings.Contains(set(t, replica, "INFO", "replication"), "master_link_status:up")
	}, patience, tick)
}

// Behind one address the primary becomes a replica of the other server, and no
// connection is cut: nodes leave it, find the new primary, and have their Resets.
func TestPrimaryBecomesReplica(t *testing.T) {
	t.Parallel()
	first, second, address := pair(t)
	o := options(t)
	o.Addresses = []string{address.Addr}
	a, b := open(t, o), open(t, o)
	b.follow("news")
	before := a.append("news", kept("1"))
	a.append("news", join("m"))
	require.Eventually(t, func() bool { return len(keys(t, second, "*m:news")) == 1 }, patience, tick)

	replicate(t, second, nil)
	replicate(t, first, second)
	address.Point(second.Addr)
	c := b.wait("news", "reset:"+broker.ResetRestarted)
	assert.Equal(t, "m", ids(*c.state))
	a.back()
	b.back()
	after := a.append("news", kept("2"))
	assert.NotEqual(t, before.At.Epoch, after.At.Epoch)
	b.wait("news", "2")
	numsub := set(t, second, "EVAL", "return tostring(redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2])", "0", "{"+o.Prefix+"}1:probe")
	assert.Equal(t, "2", numsub, "both nodes have subscribed at the new primary")
}

// A primary that was a replica for a moment has the other's data, with the same run_id
// and over the same connections: the epoch changes all the same.
func TestPrimaryWasReplicaForAMoment(t *testing.T) {
	t.Parallel()
	first, second := ownServer(t), ownServer(t)
	replicate(t, second, first)
	linked(t, second)
	a := open(t, options(t, first))
	a.follow("news")
	before := a.append("news", kept("1"))
	require.Eventually(t, func() bool { return len(keys(t, second, "*e:news")) == 1 }, patience, tick)
	replicate(t, second, nil)
	a.append("news", kept("lost"))
	replicate(t, first, second)
	linked(t, first)
	replicate(t, first, nil)
	c := a.wait("news", "reset:"+broker.ResetRestarted)
	assert.NotEqual(t, before.At.Epoch, c.state.At.Epoch)
	a.back()
	after := a.append("news", kept("2"))
	assert.NotEqual(t, before.At.Epoch, after.At.Epoch)
	assert.Equal(t, uint64(2), after.At.Offset, "one was lost")
}

// While there is no primary the node says so.
func TestOnlyAReplicaIsThere(t *testing.T) {
	t.Parallel()
	first, second, address := pair(t)
	o, log := options(t), &testlog.Log{}
	o.Addresses, o.Logger = []string{address.Addr}, log.Logger()
	a := open(t, o)
	replicate(t, second, nil)
	replicate(t, first, second)
	a.gone()
	require.Eventually(t, func() bool {
		err := a.Away()
		return err != nil && containsAny(err.Error(), "replica", "READONLY")
	}, patience, tick)
	_, err := a.Append(bounded(t), "news", event("1"))
	assert.ErrorIs(t, err, broker.ErrAway)
	replicate(t, first, nil)
	a.back()
	assert.LessOrEqual(t, len(log.With("level=WARN")), 2, log)
}

// A replica is no server to begin with.
func TestReplicaAtStart(t *testing.T) {
	t.Parallel()
	_, replica, _ := pair(t)
	o := options(t, replica)
	err := closedNode(t, o).open()
	require.Error(t, err, "with RequireAtStart")
	assert.Contains(t, err.Error(), "does not accept writes")
	assert.Contains(t, err.Error(), replica.Addr)

	o.RequireAtStart = false
	n := open(t, o)
	require.ErrorIs(t, n.Away(), broker.ErrAway)
	replicate(t, replica, nil)
	n.back()
}

// A server that has lost its primary and serves nothing until it has a new one (MASTERDOWN), or that
// is loading, counts as away, too.
func TestReplicaThatServesNothing(t *testing.T) {
	t.Parallel()
	gone, s := ownServer(t), ownServer(t, "--replica-serve-stale-data", "no")
	a := open(t, options(t, s))
	gone.Stop()
	replicate(t, s, gone)
	a.gone()
	replicate(t, s, nil)
	a.back()
}

// The node begins cut off, and joins when it can.
func TestAwayAtStart(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	s.Stop()
	o := options(t, s)
	err := closedNode(t, o).open()
	require.Error(t, err, "with RequireAtStart")
	assert.Contains(t, err.Error(), "Options.Addresses: no Redis server answers at "+s.Addr)

	o.RequireAtStart = false
	a := open(t, o)
	require.ErrorIs(t, a.Away(), broker.ErrAway)
	_, err = a.Follow(bounded(t), "news")
	assert.ErrorIs(t, err, broker.ErrAway)
	_, err = a.Claim(bounded(t), "key", "d", time.Hour)
	assert.ErrorIs(t, err, broker.ErrAway)
	_, err = a.Tops(bounded(t), []string{"news"})
	assert.ErrorIs(t, err, broker.ErrAway)
	require.NoError(t, s.Restart())
	a.wait("news", "reset:"+broker.ResetGap)
	a.back()
	o.RequireAtStart = true
	open(t, o).append("news", event("1"))
	a.wait("news", "1")
}

// A server that takes commands and does not answer counts as away within the timeout.
func TestSlow(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	o := options(t, s)
	o.Timeout = 5 * time.Second
	a := open(t, o)
	a.follow("news")
	require.NoError(t, s.Pause())
	_, err := a.Append(bounded(t), "news", event("1"))
	require.NoError(t, s.Resume())
	assert.ErrorIs(t, err, broker.ErrAway)
	a.back()
	require.Eventually(t, func() bool {
		_, err := a.Append(bounded(t), "news", event("2"))
		return err == nil || !errors.Is(err, broker.ErrAway)
	}, patience, tick)
	a.wait("news", "2")
}

// A subscription that is lost between two events is noticed: a Reset says so.
func TestSubscriptionIsKilled(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	a, b := open(t, options(t, s)), open(t, options(t, s))
	b.follow("news")
	a.append("news", kept("1"))
	b.wait("news", "1")
	set(t, s, "CLIENT", "KILL", "TYPE", "pubsub")
	require.Eventually(t, func() bool {
		_, err := a.Append(bounded(t), "news", kept("2"))
		return err == nil
	}, patience, tick)
	c := b.wait("news", "reset:"+broker.ResetGap)
	b.back()
	p, err := b.Read(bounded(t), "news", broker.Range{Epoch: c.state.At.Epoch, After: 1, Limit: 10})
	require.NoError(t, err)
	assert.Equal(t, "2", data(p))
}

// A connection with subscriptions that stays open, but on which no messages arrive, is replaced
// within two checks: a Reset says that entries may be missing. While the new connection is no
// better, it is replaced once a minute.
func TestSubscriptionIsDeaf(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	d, err := redistest.NewDropper(s.Addr)
	require.NoError(t, err)
	t.Cleanup(d.Close)
	o := options(t, s)
	a := open(t, o)
	o.Addresses = []string{d.Addr}
	b := open(t, o)
	b.follow("news")
	a.append("news", event("1"))
	b.wait("news", "1")
	d.Drop(true)
	a.append("news", event("2"))
	b.wait("news", "reset:"+broker.ResetGap)
	b.back()
	d.Drop(false)
	a.append("news", event("3"))
	b.wait("news", "3")
}

// When Redis's memory is full, joins and kept events fail. Everything else continues to work,
// and no node is treated as dead.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	a, b := open(t, options(t, s)), open(t, options(t, s))
	b.follow("room")
	a.append("room", join("1"))
	a.append("room", join("2"))
	set(t, s, "CONFIG", "SET", "maxmemory", "1")
	for _, e := range []broker.Entry{join("3"), kept("no")} {
		_, err := a.Append(bounded(t), "room", e)
		assert.ErrorContains(t, err, "OOM")
		assert.NotErrorIs(t, err, broker.ErrAway)
	}
	a.append("room", event("plain"))
	b.wait("room", "plain")
	a.append("room", leave("1"))
	b.wait("room", "-1")
	<-time.After(nodeLease + 2*time.Second)
	assert.Equal(t, []string{"+1", "+2", "plain", "-1"}, b.words("room"))
	set(t, s, "CONFIG", "SET", "maxmemory", "0")
	a.append("room", join("3"))
	b.wait("room", "+3")
	// A dead node's members leave although there is no memory.
	require.NoError(t, a.Close(bounded(t)))
	set(t, s, "CONFIG", "SET", "maxmemory", "1")
	b.wait("room", "-2")
	b.wait("room", "-3")
}

// A slot that moves to another server of the Cluster takes its subscriptions with it:
// nodes find them again there, and the members and events that are in its keys.
func TestSlotMoves(t *testing.T) {
	t.Parallel()
	servers, err := redistest.Cluster(2)
	t.Cleanup(func() {
		for _, s := range servers {
			s.Close()
		}
	})
	require.NoError(t, err)
	o := options(t, servers[0])
	o.Cluster = true
	a, b := open(t, o), open(t, o)
	const channel = "room"
	b.follow(channel)
	a.append(channel, join("1"))
	first := a.append(channel, kept("one"))
	b.wait(channel, "one")
	moveSlot(t, servers, a.Tag(channel))
	b.wait(channel, "reset:"+broker.ResetRestarted) // another server has them now
	a.back()
	b.back()
	require.Eventually(t, func() bool {
		_, err := a.Append(bounded(t), channel, join("2"))
		return err == nil
	}, patience, tick)
	b.wait(channel, "+2")
	assert.Equal(t, "1 2", ids(b.follow(channel)))
	second := a.append(channel, kept("two"))
	assert.Equal(t, first.At.Offset+1, second.At.Offset)
	p, err := b.Read(bounded(t), channel, broker.Range{Limit: 10})
	require.NoError(t, err)
	assert.Equal(t, "one two", data(p))
}

// moveSlot moves the slot of a tag from one of two servers to the other.
func moveSlot(t testing.TB, servers []*redistest.Server, tag string) {
	slot := strings.TrimPrefix(set(t, servers[0], "CLUSTER", "KEYSLOT", tag), ":")
	from, to := servers[0], servers[1]
	if answer, err := from.Command("EXISTS", tag); err != nil || strings.HasPrefix(answer, "-MOVED") {
		from, to = to, from
	}
	set(t, to, "CLUSTER", "SETSLOT", slot, "IMPORTING", set(t, from, "CLUSTER", "MYID"))
	set(t, from, "CLUSTER", "SETSLOT", slot, "MIGRATING", set(t, to, "CLUSTER", "MYID"))
	host, port, _ := net.SplitHostPort(to.Addr)
	for set(t, from, "CLUSTER", "COUNTKEYSINSLOT", slot) != ":0" {
		for _, key := range keys(t, from, strings.TrimSuffix(tag, "1:")+"*") {
			// A node can write a key to the new server before the old one has moved its own.
			set(t, from, "MIGRATE", host, port, key, "0", "5000", "REPLACE")
		}
	}
	for _, s := range []*redistest.Server{to, from} {
		set(t, s, "CLUSTER", "SETSLOT", slot, "NODE", set(t, to, "CLUSTER", "MYID"))
	}
}
