package brokertest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy"
)

func checkContext(t testing.TB, open func() pushy.Broker) {
	n := brokers(t, 2, open)[0]
	n.subscribe("news")
	over, cancel := context.WithCancel(context.Background())
	cancel()
	calls := func(when string, ctx func() context.Context) {
		returns(t, "Publish "+when, func() { _, _ = n.Publish(ctx(), "news", message("p", 0)) })
		returns(t, "Subscribe "+when, func() { _ = n.Subscribe(ctx(), "late") })
		returns(t, "Unsubscribe "+when, func() { _ = n.Unsubscribe(ctx(), "late") })
	}
	calls("with a context that has ended", func() context.Context { return over })
	c, ok := n.Broker.(Cutter)
	if !ok {
		t.Log("held to in part: the connection cannot be cut")
		return
	}
	mend := c.Cut()
	t.Cleanup(mend)
	calls("while cut off", func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), brief)
		t.Cleanup(cancel)
		return ctx
	})
}

// resynced waits for a channel's EventResync after the first from entries.
func (b *broker) resynced(channel string, from int) {
	b.t.Helper()
	all := b.tape.wait(b.t, b.name+": EventResync in "+channel, func(all []delivery) bool {
		return slices.ContainsFunc(all[from:], func(d delivery) bool { return d.channel == channel && d.Event == pushy.EventResync })
	})
	for _, d := range all {
		if d.Event == pushy.EventResync {
			assert.Equal(b.t, "{}", string(d.Data), "data of EventResync")
		}
	}
}

func checkReconnect(t testing.TB, open func() pushy.Broker) {
	nodes := brokers(t, 2, open)
	other, n := nodes[0], nodes[len(nodes)-1]
	c := n.Broker.(Cutter)
	other.subscribe("news", "chat")
	n.subscribe("news", "chat", "left")
	n.hears(other, "news", other.say("news"))
	for round := range 2 {
		from := len(n.tape.seen())
		mend := c.Cut()
		other.hears(other, "news", other.say("news"))
		ctx, cancel := context.WithTimeout(context.Background(), brief)
		_ = n.Unsubscribe(ctx, "left")
		fresh := "late" + strconv.Itoa(round)
		late := n.Subscribe(ctx, fresh) == nil
		if !late {
			_ = n.Unsubscribe(ctx, fresh)
		}
		cancel()
		mend()
		n.resynced("news", from)
		n.resynced("chat", from)
		n.hears(other, "news", other.say("news"))
		n.hears(other, "chat", other.say("chat"))
		n.hears(n, "chat", n.say("chat"))
		other.hears(n, "chat", n.seq)
		if late {
			n.resynced(fresh, from)
			n.hears(other, fresh, other.say(fresh))
		}
		left := len(n.heard(other, "left"))
		other.say("left")
		n.hears(other, "chat", other.say("chat"))
		assert.Len(t, n.heard(other, "left"), left, "a channel that was unsubscribed while cut off")
	}
	for _, b := range nodes {
		for _, from := range nodes {
			for _, channel := range []string{"news", "chat"} {
				seqs := b.heard(from, channel)
				assert.True(t, slices.IsSorted(seqs), "%s: order of %s in %s: %v", b.name, from.name, channel, seqs)
				assert.Len(t, slices.Compact(slices.Clone(seqs)), len(seqs), "%s: twice of %s in %s: %v", b.name, from.name, channel, seqs)
			}
		}
	}
}

func checkAlone(t testing.TB, open func() pushy.Broker) {
	nodes := brokers(t, 2, open)
	other, n := nodes[0], nodes[len(nodes)-1]
	c := n.Broker.(Cutter)
	other.subscribe("news", "chat")
	n.subscribe("chat")
	other.hears(n, "chat", n.say("chat"))
	from := len(other.tape.seen())
	mend := c.Cut()
	var taken []delivery
	for i := range 4 {
		channel := []string{"news", "chat"}[i%2]
		ctx, cancel := context.WithTimeout(context.Background(), brief)
		m := message("alone", i)
		if _, err := n.Publish(ctx, channel, m); err == nil {
			taken = append(taken, delivery{channel: channel, Message: m})
		}
		cancel()
	}
	mend()
	for _, m := range taken {
		other.tape.wait(t, fmt.Sprintf("%+v or EventResync", m), func(all []delivery) bool {
			return slices.ContainsFunc(all[from:], func(d delivery) bool {
				return d.channel == m.channel && (d.Event == pushy.EventResync || d.Node == m.Node && d.Seq == m.Seq)
			})
		})
	}
	n.resynced("chat", 0)
	other.hears(n, "chat", n.say("chat"))
}
