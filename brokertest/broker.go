package brokertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

var brokerRules = []rule[pushy.Broker]{
	{"delivery", "every node that has subscribed to a channel gets every message of it, whole and once; others get none", checkDelivery, needs{}},
	{"ownEcho", "a node gets its own messages too, once, by deliver", checkOwnEcho, needs{}},
	{"order", "messages come in each publisher's order for a channel, none missing and none twice", checkOrder, needs{}},
	{"names", "any channel name that the protocol allows is a channel of its own", checkNames, needs{}},
	{"unsubscribe", "after Unsubscribe nothing more comes, and the channel can be subscribed again", checkUnsubscribe, needs{}},
	{"receivers", "Publish says None only if no other node has subscribers, and Some only if one has", checkReceivers, needs{}},
	{"bytes", "neither side's data is changed, at once or later", checkBytes, needs{}},
	{"churn", "once Subscribe has returned messages come, whoever subscribes and unsubscribes meanwhile", checkChurn, needs{}},
	{"close", "deliver is not called after Close has returned, and Publish is refused", checkClose, needs{}},
	{"closeBusy", "Close ends what is under way, and all calls return", checkCloseBusy, needs{}},
	{"context", "no call outlives its context, be the connection cut", checkContext, needs{}},
	{"reconnect", "after a cut all channels still subscribed get EventResync, then messages again, none twice", checkReconnect, needs{cut: true}},
	{"alone", "a message that was taken while cut off reaches the others, or they get EventResync", checkAlone, needs{nodes: 2, cut: true}},
}

type delivery struct {
	channel string
	pushy.Message
	whole []byte // Data as it was when it came
}

// broker is a node under test.
type broker struct {
	pushy.Broker
	t    testing.TB
	name string
	tape tape[delivery]
	seq  uint64

	closing sync.Once
}

// brokers opens up to n nodes of one bus, one at least.
func brokers(t testing.TB, n int, open func() pushy.Broker) []*broker {
	t.Helper()
	var all []*broker
	for i := range n {
		made := open()
		if i > 0 && made == nil {
			t.Logf("held to in part: %d of %d nodes", i, n)
			break
		}
		b := &broker{Broker: made, t: t, name: "node" + strconv.Itoa(i)}
		require.NoError(t, b.Open(within(t), b.deliver), "Open")
		t.Cleanup(b.close)
		all = append(all, b)
	}
	return all
}

func (b *broker) deliver(channel string, m pushy.Message) {
	b.tape.add(delivery{channel, m, bytes.Clone(m.Data)})
}

func (b *broker) close() {
	b.closing.Do(func() {
		returns(b.t, "Close", func() { assert.NoError(b.t, b.Close(), "Close") })
		b.tape.end()
	})
}

func (b *broker) subscribe(channels ...string) {
	b.t.Helper()
	for _, channel := range channels {
		require.NoError(b.t, b.Subscribe(within(b.t), channel), "Subscribe %s", channel)
	}
}

// message is the n-th of a publisher.
func message(by string, n int) pushy.Message {
	data, _ := json.Marshal(map[string]any{"by": by, "n": n})
	return pushy.Message{Event: "said", Data: data, Node: by, Seq: uint64(n) + 1}
}

func (b *broker) publish(channel string, m pushy.Message) pushy.Receivers {
	b.t.Helper()
	received, err := b.Publish(within(b.t), channel, m)
	require.NoError(b.t, err, "Publish to %s", channel)
	return received
}

// say publishes the next of a node's numbered messages and returns its Seq.
func (b *broker) say(channel string) uint64 {
	b.t.Helper()
	b.seq++
	b.publish(channel, message(b.name, int(b.seq)-1))
	return b.seq
}

// hears waits until b has what from said.
func (b *broker) hears(from *broker, channel string, seq uint64) {
	b.t.Helper()
	b.tape.wait(b.t, fmt.Sprintf("%s: message %d of %s in %s", b.name, seq, from.name, channel), func(all []delivery) bool {
		return slices.ContainsFunc(all, func(d delivery) bool {
			return d.channel == channel && d.Node == from.name && d.Seq == seq
		})
	})
}

// heard returns the Seqs of what came of a node in a channel.
func (b *broker) heard(from *broker, channel string) (seqs []uint64) {
	for _, d := range b.tape.seen() {
		if d.channel == channel && d.Node == from.name {
			seqs = append(seqs, d.Seq)
		}
	}
	return seqs
}

func checkDelivery(t testing.TB, open func() pushy.Broker) {
	nodes := brokers(t, 4, open)
	var in []*broker
	for i, n := range nodes {
		if i == 3 {
			n.subscribe("other")
		} else {
			n.subscribe("news")
			in = append(in, n)
		}
	}
	long, _ := json.Marshal(strings.Repeat("é\u2028\"", 30_000))
	sent := []pushy.Message{
		{Event: "headline", Data: json.RawMessage(`{"text":"Hello","n":1.0}`), Node: "node0", Seq: 1},
		{Event: "héadline:2", Data: json.RawMessage(`[]`), Except: "0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8", Node: "node0", Seq: 1<<64 - 1},
		{Event: "n", Data: json.RawMessage(`null`), Node: "0123456789abcdef", Seq: 1 << 53},
		{Event: "long", Data: long, Node: "node0", Seq: 3},
		{Event: "last", Data: json.RawMessage(`"last"`), Node: "node0", Seq: 4},
	}
	for _, m := range sent {
		nodes[0].publish("news", m)
	}
	for _, n := range in {
		got := n.tape.wait(t, n.name+": the last message", func(all []delivery) bool {
			return len(all) >= len(sent) || len(all) > 0 && all[len(all)-1].Event == "last"
		})
		require.Len(t, got, len(sent), n.name)
		for i, d := range got {
			assert.Equal(t, "news", d.channel)
			require.Equal(t, sent[i], d.Message, "%s: message %d", n.name, i)
		}
	}
	if len(nodes) == 4 {
		nodes[3].hears(nodes[0], "other", nodes[0].say("other"))
		assert.Empty(t, nodes[3].heard(nodes[0], "news"), "messages of a channel that it has not subscribed")
	}
}

func checkOwnEcho(t testing.TB, open func() pushy.Broker) {
	n := brokers(t, 2, open)[0]
	n.subscribe("news")
	var want []uint64
	for range 20 {
		want = append(want, n.say("news"))
	}
	n.hears(n, "news", 20)
	n.hears(n, "news", n.say("news"))
	assert.Equal(t, append(want, 21), n.heard(n, "news"))
}

func checkOrder(t testing.TB, open func() pushy.Broker) {
	const each = 60
	nodes := brokers(t, 3, open)
	channels := []string{"one", "two", "private-three"}
	for _, n := range nodes {
		n.subscribe(channels...)
	}
	publishers := map[string]bool{}
	var all sync.WaitGroup
	for i := range 6 {
		n, by := nodes[i%len(nodes)], "publisher"+strconv.Itoa(i)
		publishers[by] = true
		all.Go(func() {
			for k := range each * len(channels) {
				_, err := n.Publish(within(t), channels[k%len(channels)], message(by, k/len(channels)))
				assert.NoError(t, err)
			}
		})
	}
	returns(t, "Publish", all.Wait)
	for _, n := range nodes {
		total := len(publishers) * len(channels) * each
		got := n.tape.wait(t, n.name+": all messages", func(all []delivery) bool { return len(all) >= total })
		next := map[string]uint64{}
		for _, d := range got {
			key := d.channel + " of " + d.Node
			next[key]++
			require.Equal(t, next[key], d.Seq, "%s: next in %s", n.name, key)
		}
		require.Len(t, got, total)
	}
}

// oddNames mean something else to one engine or another.
var oddNames = []string{
	"a", "a.b", "a.b.c", "a.*", "a.>", "*", ">", "?", "a?c", "abc", "a b", " ", "a/b", "a//b", "/", "$sys.x", "$js.api", "a%2eb", "a%",
	"private-a", "private-", "-", "_", "=", "a=b", "a'b", "`", "#", "+", "a+b", "&", "$1", "^a$", "~", "|", "a,b", ";", "é", "e\u0301",
	"日本", "💡", "a\u200db", strings.Repeat("x", 200), strings.Repeat("é", 100), "_inbox.a", "__proto__",
}

func checkNames(t testing.TB, open func() pushy.Broker) {
	nodes := brokers(t, 3, open)
	from, others := nodes[0], nodes[1:]
	if len(others) == 0 {
		others = nodes
	}
	in := func(n, name int) bool { return name%len(others) == n }
	for i, name := range oddNames {
		for n, to := range others {
			if in(n, i) {
				to.subscribe(name)
			}
		}
	}
	for i, name := range oddNames {
		m := message(from.name, i)
		m.Data, _ = json.Marshal(name)
		from.publish(name, m)
	}
	from.seq = 1000
	for n, to := range others {
		want := map[string]int{}
		for i, name := range oddNames {
			if in(n, i) {
				want[name]++
			}
		}
		to.tape.wait(t, "a message for each name", func(all []delivery) bool { return len(all) >= len(want) })
		to.hears(from, oddNames[n], from.say(oddNames[n]))
		got := map[string]int{}
		for _, d := range to.tape.seen() {
			if d.Seq > 1000 {
				continue
			}
			var name string
			require.NoError(t, json.Unmarshal(d.Data, &name))
			assert.Equal(t, name, d.channel)
			got[name]++
		}
		assert.Equal(t, want, got, to.name)
	}
}

func checkUnsubscribe(t testing.TB, open func() pushy.Broker) {
	nodes := brokers(t, 2, open)
	if len(nodes) == 1 {
		// A node alone may be given what it has not subscribed.
		n := nodes[0]
		n.subscribe("news")
		require.NoError(t, n.Unsubscribe(within(t), "news"))
		n.subscribe("news")
		n.hears(n, "news", n.say("news"))
		return
	}
	from, to := nodes[0], nodes[1]
	to.subscribe("news", "other")
	to.hears(from, "news", from.say("news"))
	require.NoError(t, to.Unsubscribe(within(t), "news"))
	missed := from.say("news")
	to.hears(from, "other", from.say("other"))
	assert.Equal(t, []uint64{1}, to.heard(from, "news"), "message %d came after Unsubscribe", missed)
	to.subscribe("news")
	last := from.say("news")
	to.hears(from, "news", last)
	// Published is on its way, and that may be longer than the one of "other".
	late := func(seq uint64) bool { return seq == missed }
	assert.Equal(t, []uint64{1, last}, slices.DeleteFunc(to.heard(from, "news"), late))
	require.NoError(t, to.Unsubscribe(within(t), "never"), "a channel that is not subscribed")
}

func checkReceivers(t testing.TB, open func() pushy.Broker) {
	nodes := brokers(t, 2, open)
	n := nodes[0]
	assert.NotEqual(t, pushy.Some, n.publish("news", message("p", 0)), "nobody has subscribed")
	n.subscribe("news")
	assert.NotEqual(t, pushy.Some, n.publish("news", message("p", 1)), "no other node has subscribed")
	if len(nodes) == 1 {
		return
	}
	nodes[1].subscribe("news")
	assert.NotEqual(t, pushy.None, n.publish("news", message("p", 2)), "another node has subscribed")
	require.NoError(t, n.Unsubscribe(within(t), "news"))
	assert.NotEqual(t, pushy.None, n.publish("news", message("p", 3)), "only another node has subscribed")
	require.NoError(t, nodes[1].Unsubscribe(within(t), "news"))
	assert.NotEqual(t, pushy.Some, n.publish("news", message("p", 4)), "nobody is subscribed any more")
}

func checkBytes(t testing.TB, open func() pushy.Broker) {
	nodes := brokers(t, 2, open)
	for _, n := range nodes {
		n.subscribe("news")
	}
	var sent []json.RawMessage
	for i := range 300 {
		sent = append(sent, json.RawMessage(fmt.Sprintf(`{"number":%06d,"letters":"%s"}`, 100_000+i, strings.Repeat(string(rune('a'+i%26)), 40+i%7))))
	}
	for i, data := range sent {
		nodes[i%len(nodes)].publish("news", pushy.Message{Event: "said", Data: data, Node: "p", Seq: uint64(i)})
	}
	whole := map[string]bool{}
	for i, data := range sent {
		assert.Equal(t, fmt.Sprintf(`{"number":%06d,"letters":"%s"}`, 100_000+i, strings.Repeat(string(rune('a'+i%26)), 40+i%7)), string(data), "the publisher's data")
		whole[string(data)] = true
	}
	for _, n := range nodes {
		got := n.tape.wait(t, n.name+": all messages", func(all []delivery) bool { return len(all) >= len(sent) })
		for _, d := range got {
			require.True(t, whole[string(d.whole)], "%s: was delivered as %s", n.name, d.whole)
			require.Equal(t, string(d.whole), string(d.Data), "%s: changed after it was delivered", n.name)
		}
	}
}

func checkChurn(t testing.TB, open func() pushy.Broker) {
	nodes := brokers(t, 3, open)
	const walkers, rounds = 6, 25
	stop, end := stopper(t)
	var noise, all sync.WaitGroup
	for _, n := range nodes {
		noise.Go(func() {
			for i := 0; pause(stop); i++ {
				_, err := n.Publish(within(t), "walk"+strconv.Itoa(i%walkers), message("noise of "+n.name, i))
				assert.NoError(t, err)
			}
		})
	}
	for w := range walkers {
		n, other := nodes[w%len(nodes)], nodes[(w+1)%len(nodes)]
		channel, by := "walk"+strconv.Itoa(w), "walker"+strconv.Itoa(w)
		all.Go(func() {
			for i := range rounds {
				if !assert.NoError(t, n.Subscribe(within(t), channel)) {
					return
				}
				_, err := other.Publish(within(t), channel, message(by, i))
				assert.NoError(t, err)
				if !n.heardSoon(by, uint64(i)+1) {
					assert.Fail(t, "a message published after Subscribe did not come", "%s %d", by, i)
					return
				}
				assert.NoError(t, n.Unsubscribe(within(t), channel))
			}
		})
	}
	all.Wait()
	end()
	returns(t, "Publish", noise.Wait)
}

// heardSoon is hears for goroutines other than the test's, and long tapes.
func (b *broker) heardSoon(by string, seq uint64) bool {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for from := 0; ; {
		all, more := b.tape.look()
		for ; from < len(all); from++ {
			if all[from].Node == by && all[from].Seq == seq {
				return true
			}
		}
		select {
		case <-more:
		case <-timeout.C:
			return false
		}
	}
}

func checkClose(t testing.TB, open func() pushy.Broker) {
	nodes := brokers(t, 2, open)
	last := nodes[len(nodes)-1]
	for _, n := range nodes {
		n.subscribe("news")
	}
	stop, end := stopper(t)
	var busy sync.WaitGroup
	for i, n := range nodes {
		busy.Go(func() {
			for k := 0; pause(stop); k++ {
				_, err := n.Publish(within(t), "news", message("busy"+strconv.Itoa(i), k))
				if n != last {
					assert.NoError(t, err)
				}
			}
		})
	}
	last.tape.wait(t, "some messages", func(all []delivery) bool { return len(all) > 50 })
	last.close()
	if len(nodes) > 1 {
		for range 50 {
			nodes[0].hears(nodes[0], "news", nodes[0].say("news"))
		}
	}
	returns(t, "Publish after Close", func() {
		_, err := last.Publish(within(t), "news", message("p", 1))
		assert.Error(t, err, "Publish after Close")
	})
	end()
	returns(t, "Publish", busy.Wait)
	last.tape.mu.Lock()
	defer last.tape.mu.Unlock()
	assert.Zero(t, last.tape.late, "calls of deliver after Close has returned")
}

func checkCloseBusy(t testing.TB, open func() pushy.Broker) {
	nodes := brokers(t, 2, open)
	n := nodes[0]
	stop, end := stopper(t)
	var busy sync.WaitGroup
	for i := range 8 {
		channel := "busy" + strconv.Itoa(i)
		busy.Go(func() {
			for k, more := 0, true; more; k++ {
				more = pause(stop) // and once more after Close
				if i%2 == 0 {
					_, _ = n.Publish(within(t), channel, message("p", k))
				} else if n.Subscribe(within(t), channel) == nil {
					_ = n.Unsubscribe(within(t), channel)
				}
			}
		})
	}
	n.subscribe("news")
	n.hears(n, "news", n.say("news"))
	n.close()
	end()
	returns(t, "a call under way while the Broker closes", busy.Wait)
	last := nodes[len(nodes)-1]
	if last != n {
		last.subscribe("news")
		last.hears(last, "news", last.say("news"))
	}
}
