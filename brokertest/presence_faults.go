package brokertest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy"
)

func checkPresenceContext(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	s := stores(t, 2, open)[0]
	s.join(channel, member("0", true))
	over, cancel := context.WithCancel(context.Background())
	cancel()
	calls := func(when string, ctx func() context.Context) {
		returns(t, "Join "+when, func() { _ = s.Join(ctx(), channel, member("1", true)) })
		returns(t, "Leave "+when, func() { _ = s.Leave(ctx(), channel, "1") })
		returns(t, "Watch "+when, func() { _, _ = s.tryWatch(ctx(), channel) })
	}
	calls("with a context that has ended", func() context.Context { return over })
	c, ok := s.PresenceStore.(Cutter)
	if !ok {
		t.Log("held to in part: the connection cannot be cut")
		return
	}
	mend := c.Cut()
	t.Cleanup(mend)
	calls("while cut off", func() context.Context {
		ctx, cancel := context.WithTimeout(s.ctx, brief)
		t.Cleanup(cancel)
		return ctx
	})
}

func checkGoodbye(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	all := stores(t, 2, open)
	w := all[0].watch(channel)
	all[0].join(channel, member("0", true))
	all[1].join(channel, member("1", true))
	all[1].join("private-other", member("2", true))
	w.sees("+1")
	all[1].close()
	w.sees("-1")
	assert.Equal(t, []string{"+0", "+1", "-1"}, words(w.entries()))
	other := all[0].watch("private-other")
	other.has()
}

func checkLease(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	all := stores(t, 3, open)
	k := all[2].PresenceStore.(Killer)
	lease := k.Lease()
	watchers := []*watcher{all[0].watch(channel), all[1].watch(channel)}
	all[2].watch(channel)
	const n = 20
	var dead, living []string
	for i := range n {
		for j, s := range all {
			m := member(fmt.Sprintf("%d-%d", j, i), i%2 == 0)
			s.join(channel, m)
			if s == all[2] {
				dead = append(dead, "-"+m.ID)
			} else {
				living = append(living, m.ID)
			}
		}
	}
	all[2].join("private-alone", member("alone", true)) // that nobody else watches
	for _, w := range watchers {
		w.sees("+2-19")
	}
	began := time.Now()
	k.Kill()
	for _, w := range watchers {
		w.has(living...)
	}
	assert.LessOrEqual(t, time.Since(began), lease+grace+slack, "until the dead node's members had left")
	<-time.After(3 * lease)
	for _, w := range watchers {
		w.growing()
		entries := words(w.entries())
		assert.Len(t, entries, 3*n+n, w.name)
		assert.ElementsMatch(t, dead, entries[3*n:], w.name)
	}
	alone := all[0].watch("private-alone")
	assert.Empty(t, alone.start.Members, "members in a channel that only the dead node knew")
}

// slack is for machines that are busy with other tests.
const slack = 5 * time.Second

func checkCut(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	all := stores(t, 2, open)
	c, k := all[1].PresenceStore.(Cutter), all[1].PresenceStore.(Killer)
	lease := k.Lease()
	other, own := all[0].watch(channel), all[1].watch(channel)
	all[0].join(channel, member("stays", true))
	all[0].join(channel, member("leaves", true))
	all[1].join(channel, member("cut", true))
	all[1].join(channel, member("cut-leaves", false))
	own.has("stays", "leaves", "cut", "cut-leaves")
	mend := c.Cut()
	other.has("stays", "leaves")
	all[0].leave(channel, "leaves")
	all[0].join(channel, member("meanwhile", false))
	ctx, cancel := context.WithTimeout(context.Background(), brief)
	_ = all[1].Leave(ctx, channel, "cut-leaves")
	cancel()
	mend()
	own.has("stays", "cut", "meanwhile")
	other.has("stays", "cut", "meanwhile")
	all[1].join(channel, member("later", false))
	<-time.After(3 * lease)
	other.has("stays", "cut", "meanwhile", "later")
	own.has("stays", "cut", "meanwhile", "later")
	count := map[string]int{}
	for _, word := range words(other.entries()) {
		count[word]++
	}
	assert.Equal(t, map[string]int{"+stays": 1, "+leaves": 1, "-leaves": 1, "+cut": 2, "-cut": 1,
		"+cut-leaves": 1, "-cut-leaves": 1, "+meanwhile": 1, "+later": 1}, count)
	other.growing()
	assert.True(t, slices.ContainsFunc(own.entries(), func(c pushy.Change) bool { return c.State != nil }), "a State for the node that was cut off")
	assert.Equal(t, ids(other.state().Members), ids(own.state().Members), "the order")
}

func checkBlip(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	all := stores(t, 2, open)
	c, k := all[1].PresenceStore.(Cutter), all[1].PresenceStore.(Killer)
	other, own := all[0].watch(channel), all[1].watch(channel)
	all[1].join(channel, member("0", true))
	other.sees("+0")
	own.has("0")
	mend := c.Cut()
	all[0].join(channel, member("1", true))
	mend()
	own.has("0", "1")
	<-time.After(3 * k.Lease())
	assert.Equal(t, []string{"+0", "+1"}, words(other.entries()))
	own.has("0", "1")
}
