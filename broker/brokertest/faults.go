package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
)

var faultRules = []rule{
	{
		name:    "lease",
		promise: "the members of a killed node leave when its lease has expired, once and not before; all others remain",
		needs:   []ability{canKill},
		check:   checkLease,
	},
	{
		name:    "goodbye",
		promise: "after Close, the members of the node remain until its lease has expired",
		check:   checkGoodbye,
	},
	{
		name:    "adoptedOutlives",
		promise: "a member that was adopted remains after the lease of its former node has expired",
		needs:   []ability{canKill},
		check:   checkAdoptedOutlives,
	},
	{
		name: "cut",
		promise: "the calls of a node that is cut off fail at once with ErrAway; after reconnecting, it receives a Reset for each " +
			"channel and all later entries",
		needs: []ability{canCut, hasHealth},
		check: checkCut,
	},
	{
		name:    "uncertain",
		promise: "an append that fails with ErrAway and not with ErrUncertain was not appended",
		needs:   []ability{canCut, hasHealth},
		check:   checkUncertain,
	},
	{
		name: "followAway",
		promise: "a channel that was followed while cut off is followed with a Reset after reconnecting, unless it was " +
			"unfollowed",
		needs: []ability{canCut},
		check: checkFollowAway,
	},
	{
		name:    "blip",
		promise: "a node that is cut off for less than its lease loses no members",
		needs:   []ability{canCut},
		check:   checkBlip,
	},
	{
		name: "stopped",
		promise: "a node that is cut off for longer than its lease loses its members, receives Resets, and can again " +
			"append the Joins of members that were not adopted",
		needs: []ability{canCut},
		check: checkStopped,
	},
	{
		name:    "nodes",
		promise: "Nodes lists the nodes whose lease has not expired",
		needs:   []ability{hasCluster, canKill},
		check:   checkNodes,
	},
	{
		name:    "closedNode",
		promise: "Nodes does not list a node after its Close, although its members remain until its lease has expired",
		needs:   []ability{hasCluster},
		check:   checkClosedNode,
	},
	{
		name: "extend",
		promise: "after Extend, the members of a node that is closed or killed remain until the longer lease has expired, and an " +
			"adoption from the node is remembered for two of these leases",
		needs: []ability{hasLeaser, canKill},
		check: checkExtend,
	},
	{
		name:    "extendedCut",
		promise: "a node that is cut off for less than its extended lease loses no members",
		needs:   []ability{hasLeaser, canCut},
		check:   checkExtendedCut,
	},
}

// waitLeaves waits until a channel has only the given members, and returns the time.
func (n *node) waitLeaves(channel string, ids ...string) time.Time {
	n.h.t.Helper()
	n.waitMembers(channel, ids...)
	return time.Now()
}

// inLease checks that members left when a lease of the given length had expired. The node may
// have renewed it up to half of Options.Lease before it ended; on a busy machine that can be
// longer, and the members can remain longer, too.
func (h *harness) inLease(lease time.Duration, began, ended time.Time) {
	h.t.Helper()
	least, most := lease-h.o.Lease*3/4, lease+patience
	if h.o.FakeTime {
		least, most = lease-h.o.Lease/2, lease+graceTime
	}
	took := ended.Sub(began)
	assert.GreaterOrEqual(h.t, took, least, "the members left before the lease expired")
	assert.LessOrEqual(h.t, took, most, "the members remained after the lease expired")
}

func checkLease(h *harness) {
	nodes := h.nodes(3)
	for _, n := range nodes {
		n.follow("room", "hall")
	}
	var stay []string
	for i := range 10 {
		for k, n := range nodes {
			id := fmt.Sprintf("m%d-%d", k, i)
			n.append("room", join(id, id, ""))
			if k != 2 {
				stay = append(stay, id)
			}
		}
	}
	nodes[2].append("hall", join("m2", "m2", ""))
	nodes[2].append("unfollowed", join("m2", "m2", ""))
	began := time.Now()
	nodes[2].Broker.(Killer).Kill()
	for _, n := range nodes[:2] {
		h.inLease(h.o.Lease, began, n.waitLeaves("room", stay...))
		n.waitMembers("hall")
		words := memberWords(n.sink.seen("room"))
		slices.Sort(words)
		assert.Equal(h.t, words, slices.Compact(slices.Clone(words)), "nothing is delivered twice")
	}
	late := h.node()
	for _, channel := range []string{"hall", "unfollowed"} {
		h.eventually("the members of "+channel+" have left", func() bool { return len(late.follow(channel).Members) == 0 })
	}
	pause(h.t, h.o.Lease)
	assert.Len(h.t, late.follow("room").Members, len(stay), "the members of live nodes remain")
}

func checkGoodbye(h *harness) {
	nodes := h.nodes(2)
	nodes[0].follow("room")
	nodes[0].append("room", join("m0", "o0", ""))
	nodes[1].append("room", join("m1", "o1", ""))
	nodes[1].append("room", join("m2", "o2", ""))
	nodes[1].append("room", leave("m2", "o2"))
	nodes[0].waitMembers("room", "m0", "m1")
	began := time.Now()
	nodes[1].close()
	h.inLease(h.o.Lease, began, nodes[0].waitLeaves("room", "m0"))
}

func checkAdoptedOutlives(h *harness) {
	nodes := h.nodes(2)
	nodes[0].follow("room")
	nodes[1].append("room", join("m1", "o1", ""))
	nodes[1].append("room", join("m2", "o2", ""))
	nodes[0].waitMembers("room", "m1", "m2")
	nodes[1].Broker.(Killer).Kill()
	nodes[0].append("room", adopt("m1", "o1", "o3"))
	nodes[0].waitMembers("room", "m1")
	pause(h.t, 2*h.o.Lease)
	assert.Equal(h.t, "m1", nodes[0].members("room"))
	assert.Equal(h.t, []string{"+m1", "+m2", "~m1", "-m2"}, memberWords(nodes[0].sink.seen("room")))
}

func (n *node) cut() (reconnect func()) {
	reconnect = n.Broker.(Cutter).Cut()
	n.h.t.Cleanup(reconnect)
	return reconnect
}

// away waits until a node has detected that it is cut off.
func (n *node) away() {
	n.h.t.Helper()
	n.h.eventually("the node detects that it is cut off", func() bool { return n.Broker.(broker.Health).Away() != nil })
}

// eventually polls until a condition holds.
func (h *harness) eventually(what string, holds func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			fatal(h.t, "did not happen within %v: %s", patience, what)
		}
		pause(h.t, 10*time.Millisecond)
	}
}

func checkCut(h *harness) {
	nodes := h.nodes(2)
	other, n := nodes[0], nodes[1]
	assert.NoError(h.t, n.Broker.(broker.Health).Away())
	for _, each := range nodes {
		each.follow("news", "chat")
	}
	for round := range 2 {
		from := len(n.sink.seen("news"))
		began := time.Now()
		reconnect := n.cut()
		other.append("news", event(`"lost"`))
		other.append("news", join(fmt.Sprint("m", round), "o", ""))
		n.away()
		ctx := h.ctx()
		returns(h.t, "calls while cut off", func() {
			_, err := n.Append(ctx, "news", event(`"no"`))
			assert.ErrorIs(h.t, err, broker.ErrAway, "Append")
			_, err = n.Append(ctx, "news", join("no", "no", ""))
			assert.ErrorIs(h.t, err, broker.ErrAway, "Append")
		})
		reconnect()
		r := n.waitReset("news", from)
		if time.Since(began) < h.o.Lease/2 { // on a busy machine the lease can expire
			assert.Equal(h.t, broker.ResetGap, r.reason)
		}
		assert.Len(h.t, r.state.Members, round+1)
		n.waitReset("chat", 0)
		h.eventually("the node has reconnected", func() bool { return n.Broker.(broker.Health).Away() == nil })
		before := len(eventData(n.sink.seen("news")))
		other.append("news", event(`"after"`))
		n.append("news", event(`"own"`))
		data := n.events("news", before+2)
		assert.Equal(h.t, []string{`"after"`, `"own"`}, data[before:])
		assert.NotContains(h.t, data, `"no"`)
	}
}

// checkUncertain cuts a node off while it appends.
func checkUncertain(h *harness) {
	nodes := h.nodes(2)
	other, n := nodes[0], nodes[1]
	for _, each := range nodes {
		each.follow("news")
	}
	var mu sync.Mutex
	var refused []string
	var done atomic.Int64
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				data := fmt.Sprintf(`"%d-%d"`, i, k)
				_, err := n.Append(h.ctx(), "news", event(data))
				done.Add(1)
				if errors.Is(err, broker.ErrAway) && !errors.Is(err, broker.ErrUncertain) {
					mu.Lock()
					refused = append(refused, data)
					mu.Unlock()
				}
				pause(h.t, time.Millisecond)
			}
		})
	}
	h.eventually("the node appends", func() bool { return done.Load() > 20 })
	reconnect := n.cut()
	n.away()
	noticed := done.Load()
	h.eventually("the node continues to append", func() bool { return done.Load() > noticed+20 })
	close(stop)
	all.Wait()
	reconnect()
	h.eventually("the node has reconnected", func() bool { return n.Broker.(broker.Health).Away() == nil })
	other.append("news", event(`"after"`))
	assert.NotEmpty(h.t, refused)
	for _, each := range nodes {
		h.eventually("both nodes have reconnected", func() bool {
			return slices.Contains(eventData(each.sink.seen("news")), `"after"`)
		})
		for _, data := range eventData(each.sink.seen("news")) {
			assert.NotContains(h.t, refused, data)
		}
	}
}

func checkFollowAway(h *harness) {
	nodes := h.nodes(2)
	other, n := nodes[0], nodes[1]
	n.follow("known", "left")
	reconnect := n.cut()
	if _, ok := n.Broker.(broker.Health); ok {
		n.away()
	}
	other.append("news", join("m1", "o1", ""))
	_, err := n.Follow(h.ctx(), "news")
	require.ErrorIs(h.t, err, broker.ErrAway)
	n.sink.begin("news", broker.State{})
	_, err = n.Follow(h.ctx(), "given up")
	require.ErrorIs(h.t, err, broker.ErrAway)
	_ = n.Unfollow(h.ctx(), "given up")
	_ = n.Unfollow(h.ctx(), "left")
	reconnect()
	r := n.waitReset("news", 0)
	require.Len(h.t, r.state.Members, 1)
	n.waitReset("known", 0)
	for _, channel := range []string{"left", "given up", "news"} {
		other.append(channel, event(`"after"`))
	}
	assert.Equal(h.t, []string{`"after"`}, n.events("news", 1))
	assert.Empty(h.t, n.sink.seen("left"))
	assert.Empty(h.t, n.sink.seen("given up"))
}

func checkBlip(h *harness) {
	nodes := h.nodes(2)
	other, n := nodes[0], nodes[1]
	for _, each := range nodes {
		each.follow("room")
	}
	n.append("room", join("m1", "o1", ""))
	other.waitMembers("room", "m1")
	reconnect := n.cut()
	pause(h.t, h.o.Lease/8)
	reconnect()
	n.waitReset("room", 0)
	pause(h.t, 2*h.o.Lease)
	assert.Equal(h.t, []string{"+m1"}, memberWords(other.sink.seen("room")))
	n.waitMembers("room", "m1")
}

func checkStopped(h *harness) {
	nodes := h.nodes(2)
	other, n := nodes[0], nodes[1]
	for _, each := range nodes {
		each.follow("room")
	}
	for _, id := range []string{"m1", "m2", "m3"} {
		n.append("room", join(id, id, ""))
	}
	other.waitMembers("room", "m1", "m2", "m3")
	reconnect := n.cut()
	other.append("room", adopt("m2", "m2", "o2"))
	other.append("room", adopt("m3", "m3", "o3"))
	other.append("room", leave("m3", "o3"))
	other.waitMembers("room", "m2")
	reconnect()
	r := n.waitReset("room", 0)
	assert.Contains(h.t, []string{broker.ResetLease, broker.ResetGap}, r.reason)
	n.waitMembers("room", "m2")
	assert.False(h.t, n.append("room", join("m1", "m1", "")).Duplicate)
	_, err := n.Append(h.ctx(), "room", join("m2", "m2", ""))
	assert.ErrorIs(h.t, err, broker.ErrMemberExists)
	_, err = n.Append(h.ctx(), "room", join("m3", "m3", ""))
	assert.ErrorIs(h.t, err, broker.ErrNotOwner)
	other.waitMembers("room", "m2", "m1")
	pause(h.t, 2*h.o.Lease)
	other.waitMembers("room", "m2", "m1")
}

// list returns the nodes that a node knows.
func (n *node) list() []string {
	n.h.t.Helper()
	all, err := n.Broker.(broker.Cluster).Nodes(n.h.ctx())
	require.NoError(n.h.t, err, "Nodes")
	return all
}

// nodeIDs returns the ids of nodes, sorted.
func nodeIDs(nodes ...*node) []string {
	var ids []string
	for _, n := range nodes {
		ids = append(ids, n.id)
	}
	slices.Sort(ids)
	return ids
}

func checkNodes(h *harness) {
	nodes := h.nodes(3)
	list := nodes[0].list
	assert.Equal(h.t, nodeIDs(nodes...), list())
	nodes[2].Broker.(Killer).Kill()
	want := nodeIDs(nodes[:2]...)
	h.eventually("the killed node is not listed", func() bool { return slices.Equal(want, list()) })
}

func checkClosedNode(h *harness) {
	nodes := h.nodes(3)
	nodes[0].follow("room")
	for i, n := range nodes {
		id := fmt.Sprint("m", i)
		n.append("room", join(id, id, ""))
	}
	nodes[0].waitMembers("room", "m0", "m1", "m2")
	assert.Equal(h.t, nodeIDs(nodes...), nodes[0].list())
	began := time.Now()
	nodes[2].close()
	want := nodeIDs(nodes[:2]...)
	for _, n := range nodes[:2] {
		assert.Equal(h.t, want, n.list(), "the node is not listed after Close has returned")
	}
	late := h.node()
	want = nodeIDs(nodes[0], nodes[1], late)
	assert.Equal(h.t, want, late.list(), "a new node does not list it")
	h.inLease(h.o.Lease, began, nodes[0].waitLeaves("room", "m0", "m1"))
	for _, n := range []*node{nodes[0], nodes[1], late} {
		assert.Equal(h.t, want, n.list(), "after the lease has expired")
	}
}

func (n *node) extend(lease time.Duration) {
	n.h.t.Helper()
	require.NoError(n.h.t, n.Broker.(broker.Leaser).Extend(n.h.ctx(), lease), "Extend")
}

func checkExtend(h *harness) {
	nodes := h.nodes(4)
	other, short, closed, killed := nodes[0], nodes[1], nodes[2], nodes[3]
	for _, channel := range []string{"closed", "killed"} {
		other.follow(channel)
		other.append(channel, join("other", "other", ""))
		short.append(channel, join("short", "short", ""))
	}
	long := 3 * h.o.Lease
	closed.append("closed", join("before", "before", ""))
	killed.append("killed", join("before", "before", ""))
	killed.append("killed", join("adopted", "adopted", ""))
	for _, n := range []*node{closed, killed} {
		n.extend(long)
		n.extend(h.o.Lease / 2) // has no effect
	}
	closed.append("closed", join("after", "after", ""))
	killed.append("killed", join("after", "after", ""))
	adopted := time.Now()
	other.append("killed", adopt("adopted", "adopted", "other"))
	other.append("killed", leave("adopted", "other"))
	pause(h.t, h.o.Lease) // the nodes renew their leases in this time
	for _, channel := range []string{"closed", "killed"} {
		other.waitMembers(channel, "other", "short", "before", "after")
	}
	began := time.Now()
	short.close()
	closed.close()
	killed.Broker.(Killer).Kill()
	for _, channel := range []string{"closed", "killed"} {
		h.inLease(h.o.Lease, began, other.waitLeaves(channel, "other", "before", "after"))
	}
	for _, channel := range []string{"closed", "killed"} {
		h.inLease(long, began, other.waitLeaves(channel, "other"))
	}
	_, err := other.Append(h.ctx(), "killed", join("adopted", "adopted", ""))
	if time.Since(adopted) < 2*long { // a busy machine can be later
		assert.ErrorIs(h.t, err, broker.ErrNotOwner, "the adoption is remembered for two of the longer leases")
	}
	assert.ErrorIs(h.t, closed.Broker.(broker.Leaser).Extend(h.ctx(), long), broker.ErrClosed, "Extend after Close")
}

func checkExtendedCut(h *harness) {
	nodes := h.nodes(2)
	other, n := nodes[0], nodes[1]
	for _, each := range nodes {
		each.follow("room")
	}
	n.append("room", join("m1", "o1", ""))
	other.waitMembers("room", "m1")
	n.extend(6 * h.o.Lease)
	reconnect := n.cut()
	pause(h.t, 2*h.o.Lease)
	if _, ok := n.Broker.(broker.Health); ok {
		n.away()
		assert.ErrorIs(h.t, n.Broker.(broker.Leaser).Extend(h.ctx(), 7*h.o.Lease), broker.ErrAway, "Extend while cut off")
	}
	reconnect()
	r := n.waitReset("room", 0)
	assert.Equal(h.t, broker.ResetGap, r.reason, "the lease has not expired")
	pause(h.t, 2*h.o.Lease)
	assert.Equal(h.t, []string{"+m1"}, memberWords(other.sink.seen("room")))
	n.waitMembers("room", "m1")
}
