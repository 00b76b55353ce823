package brokertest

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
)

var memberRules = []rule{
	{
		name:    "members",
		promise: "joins, updates and leaves reach all followers in order, and Follow returns the resulting State",
		check:   checkMembers,
	},
	{
		name:    "oneOrder",
		promise: "member entries have one order on all nodes, and all nodes have the same members in the end",
		check:   checkOneOrder,
	},
	{
		name:    "ownership",
		promise: "Update, Leave and Adopt change nothing unless they name the member's owner",
		check:   checkOwnership,
	},
	{
		name:    "joinTwice",
		promise: "a Join of an existing member is a duplicate for its owner, and fails with ErrMemberExists for other owners",
		check:   checkJoinTwice,
	},
	{
		name:    "adopt",
		promise: "an Adopt changes the owner, and does not change the member's place and data",
		check:   checkAdopt,
	},
	{
		name:    "adoptedStays",
		promise: "the former owner of an adopted member can neither remove it nor join it again",
		check:   checkAdoptedStays,
	},
	{
		name:    "on",
		promise: "State.On is set by a Join with Data and remains set until the channel has no members",
		check:   checkOn,
	},
	{
		name:    "snapshot",
		promise: "the State of Follow and the entries delivered after it contain the effect of all entries",
		check:   checkSnapshot,
	},
	{
		name:    "channels",
		promise: "a member belongs to one channel only",
		check:   checkChannels,
	},
	{
		name:    "unfollowed",
		promise: "members can be appended to a channel that the node does not follow",
		check:   checkUnfollowed,
	},
}

func checkMembers(h *harness) {
	nodes := h.nodes(2)
	nodes[0].follow("room")
	nodes[1].follow("room")
	joined := time.UnixMilli(1_700_000_000_123)
	first := join("m1", "o1", `{"name":"Ann"}`)
	first.User, first.Joined = "u1", joined
	first.State = []byte(`{"idle":true}`)
	nodes[0].append("room", first)
	nodes[1].append("room", join("m2", "o2", ""))
	nodes[0].append("room", broker.Entry{
		Kind:   broker.Update,
		Member: "m1",
		Owner:  "o1",
		Data:   []byte(`{"name":"Anna"}`),
		State:  []byte(`{"idle":false}`),
	})
	nodes[1].append("room", join("m3", "o3", `{}`))
	nodes[1].append("room", leave("m2", "o2"))
	for _, n := range nodes {
		n.waitMembers("room", "m1", "m3")
		assert.Equal(h.t, []string{"+m1", "+m2", "=m1", "+m3", "-m2"}, memberWords(n.sink.seen("room")))
		assert.Equal(h.t, "u1", n.sink.seen("room")[0].entry.User)
		assert.True(h.t, joined.Equal(n.sink.seen("room")[0].entry.Joined))
		assert.Equal(h.t, `{"idle":true}`, string(n.sink.seen("room")[0].entry.State))
		assert.Equal(h.t, `{"idle":false}`, string(n.sink.seen("room")[2].entry.State))
		var last broker.Position
		for i, d := range n.sink.seen("room") {
			if i > 0 {
				assert.Equal(h.t, last.Epoch, d.entry.At.Epoch)
				assert.Greater(h.t, d.entry.At.Offset, last.Offset, "revisions grow")
			}
			last = d.entry.At
			assert.True(h.t, broker.ValidEpoch(last.Epoch), "epoch %q", last.Epoch)
		}
	}
	late := h.node()
	s := late.follow("room")
	require.Len(h.t, s.Members, 2)
	assert.Equal(h.t, "m1", s.Members[0].ID)
	assert.Equal(h.t, "o1", s.Members[0].Owner)
	assert.Equal(h.t, nodes[0].id, s.Members[0].Node)
	assert.Equal(h.t, "u1", s.Members[0].User)
	assert.True(h.t, joined.Equal(s.Members[0].Joined), "%v", s.Members[0].Joined)
	assert.JSONEq(h.t, `{"name":"Anna"}`, string(s.Members[0].Data))
	assert.JSONEq(h.t, `{"idle":false}`, string(s.Members[0].State))
	assert.Nil(h.t, s.Members[1].State)
	assert.Equal(h.t, "m3", s.Members[1].ID)
	assert.Equal(h.t, nodes[1].id, s.Members[1].Node)
	assert.Less(h.t, s.Members[0].Since, s.Members[1].Since)
	seen := nodes[0].sink.seen("room")
	assert.Equal(h.t, seen[len(seen)-1].entry.At, s.Revision)
}

func checkOneOrder(h *harness) {
	const each = 40
	nodes := h.nodes(3)
	for _, n := range nodes {
		n.follow("room")
	}
	all := h.workers()
	for i, n := range nodes {
		for k := range 2 {
			all.Go(func() {
				for j := range each {
					id := fmt.Sprintf("m%d-%d-%d", i, k, j)
					n.append("room", join(id, id, ""))
					if j%2 == 0 {
						n.append("room", leave(id, id))
					}
				}
			})
		}
	}
	all.Wait()
	nodes[0].append("room", join("last", "last", ""))
	var first []string
	for i, n := range nodes {
		list := n.wait("room", "the last join", func(list []delivery) bool {
			words := memberWords(list)
			return len(words) > 0 && words[len(words)-1] == "+last"
		})
		words := memberWords(list)
		if i == 0 {
			first = words
		}
		assert.Equal(h.t, first, words, "one order")
		assert.Equal(h.t, nodes[0].members("room"), n.members("room"))
		n.sink.mu.Lock()
		assert.Empty(h.t, n.sink.views["room"].wrong)
		assert.Len(h.t, n.sink.views["room"].members, 3*2*each/2+1)
		n.sink.mu.Unlock()
	}
}

func checkOwnership(h *harness) {
	nodes := h.nodes(2)
	nodes[0].follow("room")
	nodes[0].append("room", join("m1", "o1", `{"n":1}`))
	for _, e := range []broker.Entry{
		leave("m1", "o2"),
		leave("m2", "o1"),
		{Kind: broker.Update, Member: "m1", Owner: "o2", Data: []byte(`{"n":2}`)},
		{Kind: broker.Update, Member: "m2", Owner: "o1", Data: []byte(`{"n":2}`)},
		adopt("m1", "o2", "o3"),
		adopt("m2", "o1", "o3"),
	} {
		for _, n := range nodes {
			_, err := n.Append(h.ctx(), "room", e)
			assert.ErrorIs(h.t, err, broker.ErrNotOwner, "%s of %s", word(e), e.Owner)
		}
	}
	nodes[1].append("room", leave("m1", "o1")) // the node does not matter
	nodes[0].wait("room", "the leave", func(list []delivery) bool { return len(memberWords(list)) == 2 })
	assert.Equal(h.t, []string{"+m1", "-m1"}, memberWords(nodes[0].sink.seen("room")))
	_, err := nodes[0].Append(h.ctx(), "room", leave("m1", "o1"))
	assert.ErrorIs(h.t, err, broker.ErrNotOwner, "it has left")
}

func checkJoinTwice(h *harness) {
	nodes := h.nodes(2)
	nodes[0].follow("room")
	nodes[0].append("room", join("m1", "o1", `{}`))
	assert.True(h.t, nodes[1].append("room", join("m1", "o1", `{}`)).Duplicate)
	_, err := nodes[1].Append(h.ctx(), "room", join("m1", "o2", `{}`))
	assert.ErrorIs(h.t, err, broker.ErrMemberExists)
	nodes[0].append("room", leave("m1", "o1"))
	assert.False(h.t, nodes[0].append("room", join("m1", "o2", `{}`)).Duplicate)
	nodes[0].wait("room", "the second join", func(list []delivery) bool { return len(memberWords(list)) == 3 })
	assert.Equal(h.t, []string{"+m1", "-m1", "+m1"}, memberWords(nodes[0].sink.seen("room")))
}

func checkAdopt(h *harness) {
	nodes := h.nodes(2)
	for _, n := range nodes {
		n.follow("room")
	}
	nodes[0].append("room", join("m1", "o1", `{"n":1}`))
	nodes[0].append("room", join("m2", "o2", ""))
	nodes[1].append("room", adopt("m1", "o1", "o3"))
	for _, n := range nodes {
		list := n.wait("room", "the adoption", func(list []delivery) bool { return len(memberWords(list)) == 3 })
		e := list[len(list)-1].entry
		assert.Equal(h.t, broker.Adopt, e.Kind)
		assert.Equal(h.t, "o1", e.OldOwner)
		assert.Equal(h.t, "o3", e.Owner)
		n.waitMembers("room", "m1", "m2")
	}
	s := h.node().follow("room")
	require.Len(h.t, s.Members, 2)
	assert.Equal(h.t, "m1", s.Members[0].ID)
	assert.Equal(h.t, "o3", s.Members[0].Owner)
	assert.Equal(h.t, nodes[1].id, s.Members[0].Node, "it depends on the adopter's lease")
	assert.JSONEq(h.t, `{"n":1}`, string(s.Members[0].Data))
}

func checkAdoptedStays(h *harness) {
	nodes := h.nodes(2)
	nodes[0].follow("room")
	nodes[0].append("room", join("m1", "o1", ""))
	nodes[1].append("room", adopt("m1", "o1", "o2"))
	_, err := nodes[0].Append(h.ctx(), "room", leave("m1", "o1"))
	assert.ErrorIs(h.t, err, broker.ErrNotOwner, "a late Leave")
	nodes[1].append("room", leave("m1", "o2"))
	_, err = nodes[0].Append(h.ctx(), "room", join("m1", "o1", ""))
	assert.ErrorIs(h.t, err, broker.ErrNotOwner, "a Join of the owner that it was taken from")
	nodes[0].append("room", join("m1", "o4", ""))
	nodes[0].waitMembers("room", "m1")
}

func checkOn(h *harness) {
	n := h.node()
	on := func(want bool, why string) {
		h.t.Helper()
		s, err := n.Follow(h.ctx(), "room")
		require.NoError(h.t, err)
		assert.Equal(h.t, want, s.On, why)
	}
	n.append("room", join("m1", "o1", ""))
	on(false, "no member has data")
	n.append("room", join("m2", "o2", `{}`))
	on(true, "a member with data joined")
	n.append("room", leave("m2", "o2"))
	on(true, "it remains set until the channel has no members")
	n.append("room", join("m3", "o3", ""))
	n.append("room", leave("m1", "o1"))
	on(true, "it remains set until the channel has no members")
	n.append("room", leave("m3", "o3"))
	on(false, "the channel has no members")
	n.append("room", join("m4", "o4", ""))
	on(false, "a new member without data does not set it")
}

func checkSnapshot(h *harness) {
	const all = 200
	nodes := h.nodes(2)
	writer := h.workers()
	writer.Go(func() {
		for i := range all {
			id := fmt.Sprint("m", i)
			nodes[0].append("room", join(id, id, ""))
			if i%3 == 0 {
				nodes[0].append("room", leave(id, id))
			}
		}
		nodes[0].append("room", join("last", "last", ""))
	})
	nodes[1].follow("room")
	writer.Wait()
	want := h.node().follow("room")
	ids := (&view{members: want.Members}).ids()
	nodes[1].wait("room", "the same members", func([]delivery) bool { return nodes[1].members("room") == ids })
	nodes[1].sink.mu.Lock()
	defer nodes[1].sink.mu.Unlock()
	assert.Empty(h.t, nodes[1].sink.views["room"].wrong)
}

func checkChannels(h *harness) {
	n := h.node()
	n.follow("a", "b")
	n.append("a", join("m1", "o1", ""))
	n.append("b", join("m1", "o2", ""))
	n.append("a", leave("m1", "o1"))
	n.waitMembers("b", "m1")
	n.wait("a", "the leave", func(list []delivery) bool { return len(memberWords(list)) == 2 })
	assert.Empty(h.t, n.members("a"))
}

func checkUnfollowed(h *harness) {
	nodes := h.nodes(2)
	nodes[0].append("room", join("m1", "o1", `{}`))
	s := nodes[1].follow("room")
	require.Len(h.t, s.Members, 1)
	nodes[0].append("room", leave("m1", "o1"))
	nodes[1].waitMembers("room")
	assert.Empty(h.t, nodes[0].sink.seen("room"))
}

// pause waits for something that only the passing of time causes. In a synctest bubble it takes
// no time.
func pause(t interface{ Helper() }, d time.Duration) {
	t.Helper()
	<-time.After(d)
}
