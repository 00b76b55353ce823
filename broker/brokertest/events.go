package brokertest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
)

var eventRules = []rule{
	{
		name:    "everyone",
		promise: "every node that follows the channel, also the publisher, receives an event once and with all fields",
		check:   checkEveryone,
	},
	{
		name:    "order",
		promise: "events of one publisher are delivered in the order in which it appended them",
		check:   checkOrder,
	},
	{
		name:    "names",
		promise: "channel names are opaque",
		check:   checkNames,
	},
	{
		name:    "unfollow",
		promise: "nothing is delivered for a channel that is not followed",
		check:   checkUnfollow,
	},
	{
		name:    "receivers",
		promise: "Receivers is None only if no other node follows the channel, and Some only if one does",
		check:   checkReceivers,
	},
	{
		name:    "bytes",
		promise: "the broker does not change Data, neither before nor after the delivery",
		check:   checkBytes,
	},
	{
		name:    "serial",
		promise: "calls of the sink for one channel are never concurrent",
		check:   checkSerial,
	},
	{
		name:    "context",
		promise: "calls return soon after their context has ended, with its error",
		check:   checkContext,
	},
	{
		name:    "close",
		promise: "nothing is delivered after Close, and every call fails with ErrClosed",
		check:   checkClose,
	},
	{
		name:    "followTwice",
		promise: "following a channel twice delivers nothing twice",
		check:   checkFollowTwice,
	},
	{
		name:    "churn",
		promise: "an entry that is appended after Follow has returned is delivered, whatever happens in other channels",
		check:   checkChurn,
	},
	{
		name:    "tooLarge",
		promise: "an entry over the limit fails with ErrTooLarge and does not affect other entries",
		needs:   []ability{hasLimit},
		check:   checkTooLarge,
	},
	{
		name:    "once",
		promise: "an entry with an ID is appended once, whichever nodes append it, and every Append returns the first result",
		check:   checkOnce,
	},
	{
		name:    "forgetIDs",
		promise: "an ID that was forgotten can be used again, and no other one",
		needs:   []ability{canForget},
		check:   checkForgetIDs,
	},
}

func checkEveryone(h *harness) {
	nodes := h.nodes(3)
	for _, n := range nodes {
		n.follow("news")
	}
	want := broker.Entry{
		Kind:      broker.Event,
		Event:     "said",
		Except:    []string{"conn-1", "conn-2"},
		From:      "conn-1",
		Latest:    "position",
		Droppable: true,
		Data:      []byte(`{"text":"Zoë"}`),
	}
	for _, n := range nodes {
		n.append("news", want)
	}
	for _, n := range nodes {
		n.events("news", 3)
	}
	for _, n := range nodes {
		list := n.sink.seen("news")
		assert.Len(h.t, list, 3)
		for _, d := range list {
			got := d.entry
			got.Time = time.Time{}
			assert.Equal(h.t, want, got)
		}
	}
}

func checkOrder(h *harness) {
	const each = 100
	nodes := h.nodes(3)
	for _, n := range nodes {
		n.follow("news")
	}
	publishers := h.workers()
	for i, n := range nodes {
		publishers.Go(func() {
			for j := range each {
				n.append("news", event(fmt.Sprintf(`[%d,%d]`, i, j)))
			}
		})
	}
	publishers.Wait()
	for _, n := range nodes {
		next := map[string]int{}
		for _, data := range n.events("news", each*len(nodes)) {
			who, number, _ := strings.Cut(strings.Trim(data, "[]"), ",")
			assert.Equal(h.t, strconv.Itoa(next[who]), number, "publisher %s", who)
			next[who]++
		}
	}
}

func checkNames(h *harness) {
	names := []string{
		"news", "News", "news.a", "news.*", "news.>", "*", ">", "a b", "a/b", "a%2Fb", "{a}", "ü", "u\u0308", "-", "_", "$x", "a\x00b",
		strings.Repeat("long", 50), "news:a", "{news}", "'\"`", "🙂",
	}
	nodes := h.nodes(2)
	nodes[1].follow(names...)
	for i, name := range names {
		nodes[0].append(name, event(strconv.Itoa(i)))
	}
	for i, name := range names {
		nodes[1].events(name, 1)
		assert.Equal(h.t, []string{strconv.Itoa(i)}, eventData(nodes[1].sink.seen(name)), "%q", name)
	}
}

func checkUnfollow(h *harness) {
	nodes := h.nodes(2)
	for _, n := range nodes {
		n.follow("news", "chat")
	}
	require.NoError(h.t, nodes[1].Unfollow(h.ctx(), "news"))
	require.NoError(h.t, nodes[1].Unfollow(h.ctx(), "never"))
	for range 10 {
		nodes[0].append("news", event(`"no"`))
	}
	nodes[0].append("chat", event(`"yes"`))
	nodes[0].events("news", 10)
	nodes[1].events("chat", 1)
	assert.Empty(h.t, nodes[1].sink.seen("news"))
	nodes[1].follow("news")
	nodes[0].append("news", event(`"again"`))
	// An event from before this Follow may still be on its way, as in a Redis Cluster whose
	// servers forward what is published.
	nodes[1].wait("news", "the event after the second Follow", func(list []delivery) bool {
		data := eventData(list)
		return len(data) > 0 && data[len(data)-1] == `"again"`
	})
}

func checkReceivers(h *harness) {
	nodes := h.nodes(2)
	expect := func(want broker.Receivers, why string) {
		h.t.Helper()
		a := nodes[0].append("news", event("1"))
		if a.Receivers != broker.Unknown {
			assert.Equal(h.t, want, a.Receivers, why)
		}
	}
	expect(broker.None, "no other node follows it")
	nodes[0].follow("news")
	expect(broker.None, "only the publisher follows it")
	nodes[1].follow("news")
	expect(broker.Some, "another node follows it")
}

func checkBytes(h *harness) {
	n := h.node()
	n.follow("news")
	data := []byte(`{"text":"keep this"}`)
	for range 20 {
		e := event("")
		e.Data = data
		n.append("news", e)
	}
	n.events("news", 20)
	for i := range 20 {
		n.append("news", event(fmt.Sprintf(`{"text":"other %d"}`, i)))
	}
	n.events("news", 40)
	assert.Equal(h.t, `{"text":"keep this"}`, string(data))
	for _, d := range n.sink.seen("news") {
		assert.Equal(h.t, d.data, string(d.entry.Data), "delivered data changed later")
	}
}

func checkSerial(h *harness) {
	nodes := h.nodes(2)
	for _, n := range nodes {
		n.follow("news")
	}
	publishers := h.workers()
	for i := range 8 {
		publishers.Go(func() {
			n := nodes[i%2]
			for j := range 50 {
				member := fmt.Sprintf("m%d-%d", i, j)
				n.append("news", event("1"))
				n.append("news", join(member, "o", ""))
			}
		})
	}
	publishers.Wait()
	for _, n := range nodes {
		n.events("news", 400)
		n.sink.mu.Lock()
		assert.Zero(h.t, n.sink.overlaps, "concurrent calls")
		n.sink.mu.Unlock()
	}
}

// returns fails the rule if a call does not return soon.
func returns(t testing.TB, what string, call func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	timer := time.NewTimer(callLimit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		fatal(t, "%s did not return within %v", what, callLimit)
	}
}

func checkContext(h *harness) {
	n := h.node()
	n.follow("news")
	over, cancel := context.WithCancel(context.Background())
	cancel()
	returns(h.t, "Append", func() {
		_, err := n.Append(over, "news", event("1"))
		assert.ErrorIs(h.t, err, context.Canceled, "Append")
	})
	returns(h.t, "Follow", func() {
		_, err := n.Follow(over, "late")
		assert.ErrorIs(h.t, err, context.Canceled, "Follow")
	})
	returns(h.t, "Unfollow", func() { _ = n.Unfollow(over, "late") })
	n.append("news", event(`"after"`))
	n.wait("news", "the next event", func(list []delivery) bool {
		data := eventData(list)
		return len(data) > 0 && data[len(data)-1] == `"after"`
	})
}

func checkClose(h *harness) {
	nodes := h.nodes(2)
	for _, n := range nodes {
		n.follow("news")
	}
	publishing, stop := context.WithCancel(context.Background())
	defer stop()
	publisher := h.workers()
	publisher.Go(func() {
		for publishing.Err() == nil {
			nodes[0].append("news", event("1"))
		}
	})
	nodes[1].events("news", 10)
	nodes[1].close()
	from := len(nodes[0].sink.seen("news"))
	nodes[0].events("news", from+20)
	stop()
	publisher.Wait()
	assert.Zero(h.t, nodes[1].sink.lateCalls(), "calls after Close")
	ctx := h.ctx()
	returns(h.t, "calls after Close", func() {
		_, err := nodes[1].Append(ctx, "news", event("1"))
		assert.ErrorIs(h.t, err, broker.ErrClosed, "Append")
		_, err = nodes[1].Follow(ctx, "news")
		assert.ErrorIs(h.t, err, broker.ErrClosed, "Follow")
		assert.ErrorIs(h.t, nodes[1].Unfollow(ctx, "news"), broker.ErrClosed, "Unfollow")
		assert.ErrorIs(h.t, nodes[1].Close(ctx), broker.ErrClosed, "Close")
	})
}

func checkFollowTwice(h *harness) {
	n := h.node()
	n.follow("news")
	n.append("news", join("m1", "o1", ""))
	n.waitMembers("news", "m1")
	s, err := n.Follow(h.ctx(), "news")
	require.NoError(h.t, err)
	require.Len(h.t, s.Members, 1)
	assert.Equal(h.t, "m1", s.Members[0].ID)
	n.append("news", event("1"))
	n.append("news", event("2"))
	n.append("news", join("m2", "o2", ""))
	n.waitMembers("news", "m1", "m2")
	n.events("news", 2)
	assert.Equal(h.t, []string{"1", "2"}, eventData(n.sink.seen("news")))
	require.NoError(h.t, n.Unfollow(h.ctx(), "news"))
	n.follow("chat")
	n.append("news", event("3"))
	n.append("chat", event("4"))
	n.events("chat", 1)
	assert.Len(h.t, eventData(n.sink.seen("news")), 2, "one Unfollow ends it")
}

func checkChurn(h *harness) {
	nodes := h.nodes(2)
	all := h.workers()
	for i := range 10 {
		all.Go(func() {
			channel := fmt.Sprintf("room-%d", i)
			n, other := nodes[i%2], nodes[(i+1)%2]
			for round := range 20 {
				if _, err := n.Follow(h.ctx(), channel); !assert.NoError(h.t, err) {
					return
				}
				data := fmt.Sprintf(`"%d"`, round)
				if _, err := other.Append(h.ctx(), channel, event(data)); !assert.NoError(h.t, err) {
					return
				}
				got := n.events(channel, round+1)
				assert.Equal(h.t, data, got[round])
				if !assert.NoError(h.t, n.Unfollow(h.ctx(), channel)) {
					return
				}
			}
		})
	}
	all.Wait()
}

func checkTooLarge(h *harness) {
	n := h.node()
	n.follow("news")
	large := `"` + strings.Repeat("x", h.o.MaxBytes) + `"`
	for _, e := range []broker.Entry{event(large), join("m1", "o1", large)} {
		_, err := n.Append(h.ctx(), "news", e)
		assert.ErrorIs(h.t, err, broker.ErrTooLarge)
	}
	matches := `"` + strings.Repeat("x", h.o.MaxBytes-1024) + `"`
	n.append("news", event(matches))
	assert.Equal(h.t, []string{matches}, n.events("news", 1))
	assert.Empty(h.t, n.members("news"))
}

func checkOnce(h *harness) {
	nodes := h.nodes(2)
	for _, n := range nodes {
		n.follow("news")
	}
	const calls = 8
	e := event(`"once"`)
	e.ID = "request-1"
	var mu sync.Mutex
	firsts := 0
	all := h.workers()
	for i := range calls {
		all.Go(func() {
			a, err := nodes[i%2].Append(h.ctx(), "news", e)
			if !assert.NoError(h.t, err) || a.Duplicate {
				return
			}
			mu.Lock()
			firsts++
			mu.Unlock()
		})
	}
	all.Wait()
	assert.Equal(h.t, 1, firsts, "appends that are no duplicates")
	nodes[0].append("news", event(`"last"`))
	nodes[1].append("news", event(`"last"`))
	for _, n := range nodes {
		data := n.events("news", 3)
		assert.Equal(h.t, []string{`"once"`, `"last"`, `"last"`}, data)
	}
	nodes[0].follow("chat")
	assert.False(h.t, nodes[0].append("chat", e).Duplicate, "another channel")
	if _, ok := nodes[0].Broker.(broker.History); !ok {
		return
	}
	e = keptEvent(`"kept"`)
	e.ID = "request-2"
	first := nodes[0].append("news", e)
	nodes[0].append("news", keptEvent(`"between"`))
	again := nodes[1].append("news", e)
	assert.True(h.t, again.Duplicate)
	assert.Equal(h.t, first.At, again.At)
}

func checkForgetIDs(h *harness) {
	nodes := h.nodes(2)
	appends := func(n *node, channel, id string) (duplicate bool) {
		e := event(`1`)
		e.ID = id
		return n.append(channel, e).Duplicate
	}
	all := []broker.EntryID{{Channel: "news", ID: "one"}, {Channel: "news", ID: "two"}, {Channel: "chat", ID: "one"}}
	for _, id := range all {
		assert.False(h.t, appends(nodes[0], id.Channel, id.ID))
	}
	for range 2 { // also if they were forgotten before
		forgotten := []broker.EntryID{{Channel: "news", ID: "one"}, {Channel: "chat", ID: "unknown"}}
		require.NoError(h.t, nodes[1].Broker.(broker.IDForgetter).ForgetIDs(h.ctx(), forgotten))
		assert.False(h.t, appends(nodes[0], "news", "one"))
		assert.True(h.t, appends(nodes[1], "news", "one"), "it is remembered again")
	}
	assert.True(h.t, appends(nodes[1], "news", "two"), "another ID")
	assert.True(h.t, appends(nodes[0], "chat", "one"), "the same ID in another channel")
	require.NoError(h.t, nodes[0].Broker.(broker.IDForgetter).ForgetIDs(h.ctx(), nil))
}
