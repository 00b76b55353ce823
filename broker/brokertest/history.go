package brokertest

import (
	"fmt"
	"strconv"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
)

var historyRules = []rule{
	{
		name:    "keptOrder",
		promise: "kept events have one order on all nodes, with offsets that increase by one, the previous offset, and a time",
		needs:   []ability{hasHistory},
		check:   checkKeptOrder,
	},
	{
		name:    "empty",
		promise: "a channel to which nothing was appended has an epoch and offset 0, and its first event has offset 1 there",
		needs:   []ability{hasHistory},
		check:   checkEmpty,
	},
	{
		name:    "size",
		promise: "at most the newest Keep.Size events are kept",
		needs:   []ability{hasHistory},
		check:   checkSize,
	},
	{
		name:    "ttl",
		promise: "no event is kept longer than its TTL, and the offset continues",
		needs:   []ability{hasHistory},
		check:   checkTTL,
	},
	{
		name:    "keepBytes",
		promise: "at most the newest Keep.Bytes bytes of data are kept",
		needs:   []ability{hasHistory},
		check:   checkKeepBytes,
	},
	{
		name:    "read",
		promise: "Read returns the events of its Range, oldest first, and reports First, Top and More",
		needs:   []ability{hasHistory},
		check:   checkRead,
	},
	{
		name:    "readEpoch",
		promise: "Read of another epoch fails with ErrEpoch",
		needs:   []ability{hasHistory},
		check:   checkReadEpoch,
	},
	{
		name:    "tops",
		promise: "Tops returns the last position of each channel, in the order of the channels",
		needs:   []ability{hasHistory},
		check:   checkTops,
	},
	{
		name:    "notKept",
		promise: "events that are not kept have no offset",
		needs:   []ability{hasHistory},
		check:   checkNotKept,
	},
	{
		name:    "noHole",
		promise: "no kept event is missing between the State of Follow and the first delivery after it",
		needs:   []ability{hasHistory},
		check:   checkNoHole,
	},
	{
		name:    "forget",
		promise: "Forget removes the kept events, and a new epoch begins on all nodes",
		needs:   []ability{hasHistory},
		check:   checkForget,
	},
	{
		name:    "readsWriteNothing",
		promise: "Follow, Read and Tops do not change a channel's position",
		needs:   []ability{hasHistory},
		check:   checkReadsWriteNothing,
	},
}

func (n *node) read(channel string, r broker.Range) broker.Page {
	n.h.t.Helper()
	p, err := n.Broker.(broker.History).Read(n.h.ctx(), channel, r)
	require.NoError(n.h.t, err, "Read")
	return p
}

func (n *node) top(channel string) broker.Position {
	n.h.t.Helper()
	tops, err := n.Broker.(broker.History).Tops(n.h.ctx(), []string{channel})
	require.NoError(n.h.t, err, "Tops")
	require.Len(n.h.t, tops, 1)
	return tops[0]
}

func pageData(p broker.Page) []string {
	data := []string{}
	for _, e := range p.Entries {
		data = append(data, string(e.Data))
	}
	return data
}

// numbers returns the numbers from first to last as the data of events.
func numbers(first, last int) []string {
	list := []string{}
	for i := first; i <= last; i++ {
		list = append(list, strconv.Itoa(i))
	}
	return list
}

func (n *node) keep(channel string, first, last int, k broker.Keep) {
	n.h.t.Helper()
	for i := first; i <= last; i++ {
		e := event(strconv.Itoa(i))
		e.Keep = k
		n.append(channel, e)
	}
}

func checkKeptOrder(h *harness) {
	const each = 100
	nodes := h.nodes(3)
	start := nodes[0].follow("news").At
	nodes[1].follow("news")
	nodes[2].follow("news")
	publishers := h.workers()
	for i, n := range nodes {
		publishers.Go(func() {
			for j := range each {
				n.append("news", keptEvent(fmt.Sprintf("[%d,%d]", i, j)))
			}
		})
	}
	publishers.Wait()
	first := nodes[0].events("news", 3*each)
	for _, n := range nodes {
		assert.Equal(h.t, first, n.events("news", 3*each), "one order")
		at := start
		for _, d := range n.sink.seen("news") {
			assert.Equal(h.t, at.Offset, d.entry.Prev, "Prev")
			at.Offset++
			assert.Equal(h.t, at, d.entry.At, "At")
			assert.False(h.t, d.entry.Time.IsZero(), "Time")
		}
	}
	p := nodes[1].read("news", broker.Range{Epoch: start.Epoch, After: start.Offset, Limit: 1000})
	assert.Equal(h.t, first, pageData(p), "the log has the same order")
}

func checkEmpty(h *harness) {
	nodes := h.nodes(2)
	at := nodes[0].follow("news").At
	assert.True(h.t, broker.ValidEpoch(at.Epoch), "epoch %q", at.Epoch)
	assert.Zero(h.t, at.Offset)
	assert.Equal(h.t, at, nodes[1].top("news"), "Tops on another node")
	p := nodes[1].read("news", broker.Range{Epoch: at.Epoch, Limit: 10})
	assert.Equal(h.t, broker.Page{First: 1, Top: at}, p)
	a := nodes[1].append("news", keptEvent("1"))
	assert.Equal(h.t, broker.Position{Epoch: at.Epoch, Offset: 1}, a.At)
	nodes[0].events("news", 1)
	p = nodes[0].read("news", broker.Range{Epoch: at.Epoch, Limit: 10})
	assert.Equal(h.t, []string{"1"}, pageData(p))
}

func checkSize(h *harness) {
	n := h.node()
	n.keep("news", 1, 25, broker.Keep{Size: 10, TTL: time.Hour})
	p := n.read("news", broker.Range{Limit: 100})
	assert.Equal(h.t, numbers(16, 25), pageData(p))
	assert.Equal(h.t, uint64(16), p.First)
	assert.Equal(h.t, uint64(25), p.Top.Offset)
	assert.False(h.t, p.More)
}

func checkTTL(h *harness) {
	const ttl = 2 * time.Second
	n, other := h.node(), h.node()
	other.follow("archive")
	n.keep("archive", 1, 1, broker.Keep{Size: 10, TTL: 60 * 24 * time.Hour})
	other.events("archive", 1)
	assert.Equal(h.t, []string{"1"}, pageData(n.read("archive", broker.Range{Limit: 10})))

	n.follow("news")
	n.keep("news", 1, 3, broker.Keep{Size: 10, TTL: ttl})
	before := n.top("news")
	pause(h.t, ttl+time.Second)
	p := n.read("news", broker.Range{Limit: 10})
	assert.Empty(h.t, p.Entries)
	assert.Equal(h.t, before, p.Top)
	assert.Equal(h.t, before.Offset+1, p.First)
	n.keep("news", 4, 4, broker.Keep{Size: 10, TTL: time.Hour})
	p = n.read("news", broker.Range{Epoch: before.Epoch, After: before.Offset, Limit: 10})
	assert.Equal(h.t, []string{"4"}, pageData(p))
	assert.Equal(h.t, before.Offset+1, p.Top.Offset)
}

func checkKeepBytes(h *harness) {
	n := h.node()
	for i := range 10 {
		e := event(fmt.Sprintf(`"%098d"`, i))
		e.Keep = broker.Keep{Size: 100, TTL: time.Hour, Bytes: 350}
		n.append("news", e)
	}
	p := n.read("news", broker.Range{Limit: 100})
	assert.Len(h.t, p.Entries, 3)
	assert.Equal(h.t, uint64(8), p.First)
	assert.Equal(h.t, uint64(10), p.Top.Offset)
}

func checkRead(h *harness) {
	n := h.node()
	n.keep("news", 1, 30, broker.Keep{Size: 20, TTL: time.Hour}) // 11 to 30 are kept
	epoch := n.top("news").Epoch
	for _, c := range []struct {
		name        string
		r           broker.Range
		first, last int
		more        bool
	}{
		{"all", broker.Range{Limit: 100}, 11, 30, false},
		{"with the epoch", broker.Range{Epoch: epoch, Limit: 100}, 11, 30, false},
		{"after", broker.Range{After: 25, Limit: 100}, 26, 30, false},
		{"after, limited", broker.Range{After: 12, Limit: 5}, 13, 17, true},
		{"after, just enough", broker.Range{After: 25, Limit: 5}, 26, 30, false},
		{"after what is trimmed", broker.Range{After: 3, Limit: 4}, 11, 14, true},
		{"after the last", broker.Range{After: 30, Limit: 4}, 1, 0, false},
		{"after the end", broker.Range{After: 99, Limit: 4}, 1, 0, false},
		{"before", broker.Range{Before: 15, Limit: 100}, 11, 14, false},
		{"before, limited", broker.Range{Before: 25, Limit: 5}, 20, 24, true},
		{"before, from the end", broker.Range{Before: 31, Limit: 3}, 28, 30, true},
		{"before, beyond the end", broker.Range{Before: 99, Limit: 3}, 28, 30, true},
		{"before the first", broker.Range{Before: 11, Limit: 3}, 1, 0, false},
		{"before what is trimmed", broker.Range{Before: 4, Limit: 3}, 1, 0, false},
		{"after, by bytes", broker.Range{After: 20, Limit: 100, Bytes: 7}, 21, 23, true},
		{"before, by bytes", broker.Range{Before: 31, Limit: 100, Bytes: 7}, 28, 30, true},
		{"one at least", broker.Range{After: 20, Limit: 100, Bytes: 1}, 21, 21, true},
	} {
		p := n.read("news", c.r)
		assert.Equal(h.t, numbers(c.first, c.last), pageData(p), c.name)
		assert.Equal(h.t, c.more, p.More, "More: %s", c.name)
		assert.Equal(h.t, uint64(11), p.First, "First: %s", c.name)
		assert.Equal(h.t, broker.Position{Epoch: epoch, Offset: 30}, p.Top, "Top: %s", c.name)
		for i, e := range p.Entries {
			assert.Equal(h.t, broker.Position{Epoch: epoch, Offset: uint64(c.first + i)}, e.At, c.name)
			assert.Equal(h.t, broker.Event, e.Kind)
			assert.Equal(h.t, "said", e.Event)
			assert.False(h.t, e.Time.IsZero(), "Time")
		}
	}
}

func checkReadEpoch(h *harness) {
	n := h.node()
	n.keep("news", 1, 3, kept)
	for _, channel := range []string{"news", "empty"} {
		p, err := n.Broker.(broker.History).Read(h.ctx(), channel, broker.Range{Epoch: "other", After: 1, Limit: 10})
		assert.ErrorIs(h.t, err, broker.ErrEpoch)
		assert.Equal(h.t, n.top(channel), p.Top)
		assert.Empty(h.t, p.Entries)
	}
}

func checkTops(h *harness) {
	nodes := h.nodes(2)
	nodes[0].keep("a", 1, 3, kept)
	nodes[1].keep("b", 1, 5, kept)
	tops, err := nodes[0].Broker.(broker.History).Tops(h.ctx(), []string{"b", "none", "a", "b"})
	require.NoError(h.t, err)
	var offsets []uint64
	for _, p := range tops {
		offsets = append(offsets, p.Offset)
		assert.True(h.t, broker.ValidEpoch(p.Epoch), "epoch %q", p.Epoch)
	}
	assert.Equal(h.t, []uint64{5, 0, 3, 5}, offsets)
	tops, err = nodes[0].Broker.(broker.History).Tops(h.ctx(), nil)
	assert.NoError(h.t, err)
	assert.Empty(h.t, tops)
}

func checkNotKept(h *harness) {
	n := h.node()
	n.follow("news")
	n.append("news", keptEvent("1"))
	a := n.append("news", event("2"))
	assert.Zero(h.t, a.At)
	a = n.append("news", keptEvent("3"))
	assert.Equal(h.t, uint64(2), a.At.Offset)
	n.events("news", 3)
	for _, d := range n.sink.seen("news") {
		if d.data == "2" {
			assert.Zero(h.t, d.entry.At)
		}
	}
	assert.Equal(h.t, []string{"1", "3"}, pageData(n.read("news", broker.Range{Limit: 10})))
}

func checkNoHole(h *harness) {
	const all = 300
	nodes := h.nodes(2)
	nodes[0].keep("news", 1, all/3, kept)
	publisher := h.workers()
	publisher.Go(func() { nodes[0].keep("news", all/3+1, all, kept) })
	s := nodes[1].follow("news")
	publisher.Wait()
	next := s.At.Offset + 1
	nodes[1].wait("news", "the last event", func(list []delivery) bool {
		return s.At.Offset == all || len(list) > 0 && list[len(list)-1].entry.At.Offset == all
	})
	for _, d := range nodes[1].sink.seen("news") {
		if d.entry.At.Offset <= s.At.Offset {
			continue // the State includes it
		}
		assert.Equal(h.t, next, d.entry.At.Offset)
		next++
	}
	assert.Equal(h.t, uint64(all+1), next)
}

func checkForget(h *harness) {
	nodes := h.nodes(2)
	for _, n := range nodes {
		n.follow("news")
	}
	nodes[0].keep("news", 1, 3, kept)
	nodes[1].events("news", 3)
	before := nodes[0].top("news")
	require.NoError(h.t, nodes[0].Broker.(broker.History).Forget(h.ctx(), "news"))
	for _, n := range nodes {
		r := n.waitReset("news", 0)
		assert.Equal(h.t, broker.ResetEpoch, r.reason)
		assert.NotEqual(h.t, before.Epoch, r.state.At.Epoch)
		assert.Empty(h.t, n.read("news", broker.Range{Limit: 10}).Entries)
	}
	a := nodes[1].append("news", keptEvent("4"))
	assert.Equal(h.t, uint64(1), a.At.Offset)
	assert.NotEqual(h.t, before.Epoch, a.At.Epoch)
}

func checkReadsWriteNothing(h *harness) {
	nodes := h.nodes(2)
	nodes[0].keep("news", 1, 3, kept)
	want := nodes[0].top("news")
	for range 3 {
		assert.Equal(h.t, want, nodes[1].follow("news").At)
		nodes[1].read("news", broker.Range{Limit: 2})
		require.NoError(h.t, nodes[1].Unfollow(h.ctx(), "news"))
		assert.Equal(h.t, want, nodes[1].top("news"))
	}
}
