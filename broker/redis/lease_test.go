package redis_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/storetest"
)

// A node that reconnects over a slow network reads the states of its channels for longer
// than its lease. During that time, the other nodes do not treat it as dead.
func TestSettlingOutlastsTheLease(t *testing.T) {
	t.Parallel()
	const (
		channels = 2400
		lease    = 10 * time.Second
	)
	s := ownServer(t)
	proxy, err := storetest.NewProxy(s.Addr)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	other := closedNode(t, options(t, s))
	o := options(t)
	o.Addresses = []string{proxy.Addr}
	n := closedNode(t, o)
	for _, node := range []*openNode{other, n} {
		node.lease = lease
		require.NoError(t, node.open())
	}
	name := func(i int) string { return "room-" + strconv.Itoa(i) }
	for i := range channels {
		n.follow(name(i))
		if i%100 == 0 {
			n.append(name(i), join("m"))
			other.follow(name(i))
		}
	}
	<-time.After(lease + time.Second) // the other removes members only once it has been there that long
	proxy.Cut()
	proxy.Delay(150 * time.Millisecond) // 32 states are read at a time
	proxy.Mend()
	began := time.Now()
	require.Eventually(t, func() bool {
		for i := range channels {
			if count(n.words(name(i)), "reset:gap") == 0 {
				return false
			}
		}
		return true
	}, 4*patience, tick)
	assert.Greater(t, time.Since(began), 2*lease, "this test is to last longer than the lease")
	for i := range channels {
		assert.Equal(t, 1, count(n.words(name(i)), "reset:gap"))
		if i%100 == 0 {
			assert.Empty(t, other.words(name(i)), "members of a node that was there all the time")
			assert.Len(t, n.follow(name(i)).Members, 1)
		}
	}
	assert.NoError(t, n.Away())
}

func count(words []string, word string) (n int) {
	for _, w := range words {
		if w == word {
			n++
		}
	}
	return n
}

// A Follow directly after an Unfollow of the same channel gets what is appended from then
// on, however many channels do this at once.
func TestFollowWhileTheLastEnds(t *testing.T) {
	t.Parallel()
	o := options(t, server)
	o.Timeout = 20 * time.Second
	a, b := open(t, o), open(t, o)
	var all sync.WaitGroup
	for c := range 32 {
		channel := "room-" + strconv.Itoa(c)
		all.Go(func() {
			for i := range 60 {
				id := "m" + strconv.Itoa(i)
				_, err := b.Follow(bounded(t), channel)
				assert.NoError(t, err)
				assert.NoError(t, b.Unfollow(bounded(t), channel))
				_, err = b.Follow(bounded(t), channel)
				assert.NoError(t, err)
				_, err = a.Append(bounded(t), channel, join(id))
				assert.NoError(t, err)
				if !assert.Eventually(t, func() bool {
					return count(b.words(channel), "+"+id) == 1
				}, patience, tick, "%s of %s", id, channel) {
					return
				}
				assert.NoError(t, b.Unfollow(bounded(t), channel))
			}
		})
	}
	all.Wait()
}

// A Follow that is cancelled, whenever that is, leaves no subscription behind once the
// channel is not followed any more.
func TestCancelledFollow(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	n := open(t, options(t, s))
	var all sync.WaitGroup
	for c := range 16 {
		channel := "room-" + strconv.Itoa(c)
		all.Go(func() {
			for j := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(j)*5*time.Microsecond)
				_, _ = n.Follow(ctx, channel) // it may fail
				assert.NoError(t, n.Unfollow(bounded(t), channel))
				cancel()
			}
		})
	}
	all.Wait()
	names := n.Tag("") + "c:"
	require.Eventually(t, func() bool {
		left := set(t, s, "EVAL", "return #redis.call('PUBSUB', 'CHANNELS', ARGV[1])", "0", names+"*")
		return left == ":0"
	}, patience, tick, "no subscription is left")
	n.follow("room-0")
	n.append("room-0", event("1"))
	n.wait("room-0", "1")
}

// The list of nodes that others have deleted or replaced is there again before it is
// needed: the members of a dead node are removed.
func TestNodesAreListedAgain(t *testing.T) {
	t.Parallel()
	o := options(t, server)
	a, dead := open(t, o), open(t, o)
	a.follow("x")
	dead.append("x", join("m"))
	a.wait("x", "+m")
	nodes := "{" + o.Prefix + "}1:nodes"
	for _, foreign := range [][]string{{"DEL", nodes}, {"SET", nodes, "x"}} {
		set(t, server, "DEL", nodes)
		set(t, server, foreign...)
		require.Eventually(t, func() bool {
			return set(t, server, "TYPE", nodes) == "+zset" && set(t, server, "ZCARD", nodes) == ":2"
		}, patience, tick)
	}
	require.NoError(t, dead.Close(bounded(t)))
	require.Eventually(t, func() bool { return len(a.follow("x").Members) == 0 }, patience, tick)
	assert.NoError(t, a.Away())
	_, err := a.Append(bounded(t), "x", broker.Entry{Kind: broker.Leave, Member: "m", Owner: "owner-m"})
	assert.ErrorIs(t, err, broker.ErrNotOwner)
}

// Every renewal of a node whose lease was extended has the longer lease, also after the stored
// length was deleted. When the lease of a closed node has expired, nothing of the node is left
// except the key that marks it as closed, which expires.
func TestExtendedLease(t *testing.T) {
	t.Parallel()
	o := options(t, server)
	a, b := open(t, o), open(t, o)
	a.follow("x")
	b.append("x", join("m"))
	const long = 2 * nodeLease
	require.NoError(t, b.Extend(bounded(t), long))
	tag := a.Tag("x")
	stored := func() string {
		length, err := server.Command("HGET", tag+"leases", b.id)
		assert.NoError(t, err)
		return length // an error while the key has another type
	}
	want := strconv.FormatInt(long.Milliseconds(), 10)
	assert.Contains(t, stored(), want)
	for _, foreign := range [][]string{{"DEL", tag + "leases"}, {"SET", tag + "leases", "x"}} {
		set(t, server, foreign...)
		require.Eventually(t, func() bool { return strings.Contains(stored(), want) }, patience, tick)
	}
	require.NoError(t, b.Close(bounded(t)))
	ids, err := a.Nodes(bounded(t))
	require.NoError(t, err)
	assert.Equal(t, []string{a.id}, ids)
	left, err := strconv.ParseInt(strings.TrimPrefix(set(t, server, "PTTL", tag+"closed:"+b.id), ":"), 10, 64)
	require.NoError(t, err)
	assert.InDelta(t, (time.Minute + long).Milliseconds(), left, float64(long.Milliseconds()))
	a.wait("x", "-m")
	require.Eventually(t, func() bool {
		return set(t, server, "ZCARD", tag+"nodes") == ":1" && set(t, server, "HLEN", tag+"leases") == ":1"
	}, patience, tick)
}
