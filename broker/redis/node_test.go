package redis_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/redis"
	"github.com/gopushy/pushy/internal/redistest"
)

// openNode is an open Broker and what it delivers.
type openNode struct {
	*redis.Broker
	t     testing.TB
	id    string
	lease time.Duration

	mu     sync.Mutex
	calls  []call
	called chan struct{} // closed and replaced at each call
	onCall func()
}

// call is one call of the sink.
type call struct {
	channel string
	entry   broker.Entry
	state   *broker.State
	reason  string
}

// String is short: an event's data, a sign and a member's id, or a Reset's reason.
func (c call) String() string {
	sign := map[broker.Kind]string{broker.Join: "+", broker.Update: "=", broker.Leave: "-", broker.Adopt: "~"}[c.entry.Kind]
	switch {
	case c.state != nil:
		return "reset:" + c.reason
	case sign == "":
		return string(c.entry.Data)
	}
	return sign + c.entry.Member
}

var lastNode atomic.Int64

// nodeLease is short, because tests wait until it has expired. A busy machine may not run a node
// for some seconds, and that node must not expire.
const nodeLease = 6 * time.Second

// open opens a node, with options by which it connects straight.
func open(t testing.TB, o redis.Options) *openNode {
	t.Helper()
	n := closedNode(t, o)
	require.NoError(t, n.open())
	return n
}

// closedNode is a node to be opened.
func closedNode(t testing.TB, o redis.Options) *openNode {
	return &openNode{
		Broker: redis.New(o),
		t:      t,
		id:     fmt.Sprint("node-", lastNode.Add(1)),
		lease:  nodeLease,
		called: make(chan struct{}),
	}
}

func (n *openNode) open() error {
	return n.openWith(nil)
}

func (n *openNode) openWith(settings map[string]string) error {
	err := n.Open(bounded(n.t), broker.OpenOptions{Node: n.id, Lease: n.lease, Settings: settings}, n)
	if err == nil {
		n.t.Cleanup(func() { _ = n.Close(bounded(n.t)) })
	}
	return err
}

// Deliver implements broker.Sink.
func (n *openNode) Deliver(channel string, e broker.Entry) {
	n.record(call{channel: channel, entry: e})
}

// Reset implements broker.Sink.
func (n *openNode) Reset(channel string, s broker.State, reason string) {
	n.record(call{channel: channel, state: &s, reason: reason})
}

func (n *openNode) record(c call) {
	n.mu.Lock()
	n.calls = append(n.calls, c)
	close(n.called)
	n.called = make(chan struct{})
	hook := n.onCall
	n.mu.Unlock()
	if hook != nil {
		hook()
	}
}

// seen returns the calls for a channel.
func (n *openNode) seen(channel string) (list []call) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.calls {
		if c.channel == channel {
			list = append(list, c)
		}
	}
	return list
}

// words are the calls for a channel, in short.
func (n *openNode) words(channel string) (words []string) {
	for _, c := range n.seen(channel) {
		words = append(words, c.String())
	}
	return words
}

// wait waits for a call of a channel that is this in short, and returns the first.
func (n *openNode) wait(channel, word string) call {
	n.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		n.mu.Lock()
		more := n.called
		n.mu.Unlock()
		for _, c := range n.seen(channel) {
			if c.String() == word {
				return c
			}
		}
		select {
		case <-more:
		case <-timeout.C:
			require.Fail(n.t, "in vain", "%s in %q; there are: %s", word, channel, strings.Join(n.words(channel), " "))
		}
	}
}

func (n *openNode) follow(channel string) broker.State {
	n.t.Helper()
	s, err := n.Follow(bounded(n.t), channel)
	require.NoError(n.t, err)
	return s
}

func (n *openNode) append(channel string, e broker.Entry) broker.Appended {
	n.t.Helper()
	a, err := n.Append(bounded(n.t), channel, e)
	require.NoError(n.t, err)
	return a
}

func (n *openNode) top(channel string) broker.Position {
	n.t.Helper()
	tops, err := n.Tops(bounded(n.t), []string{channel})
	require.NoError(n.t, err)
	return tops[0]
}

// back waits until the node has its store.
func (n *openNode) back() {
	n.t.Helper()
	require.Eventually(n.t, func() bool { return n.Away() == nil }, patience, tick)
}

// gone waits until the node has detected that its store is away.
func (n *openNode) gone() {
	n.t.Helper()
	require.Eventually(n.t, func() bool { return n.Away() != nil }, patience, tick)
	assert.ErrorIs(n.t, n.Away(), broker.ErrAway)
}

func event(data string) broker.Entry {
	return broker.Entry{Kind: broker.Event, Event: "said", Data: []byte(data)}
}

func kept(data string) broker.Entry {
	e := event(data)
	e.Keep = broker.Keep{Size: 100, TTL: time.Hour, Bytes: 1 << 20}
	return e
}

func join(id string) broker.Entry {
	return broker.Entry{Kind: broker.Join, Member: id, Owner: "owner-" + id, Data: []byte(`{"id":"` + id + `"}`)}
}

func leave(id string) broker.Entry {
	return broker.Entry{Kind: broker.Leave, Member: id, Owner: "owner-" + id}
}

func ids(s broker.State) string {
	var list []string
	for _, m := range s.Members {
		list = append(list, m.ID)
	}
	return strings.Join(list, " ")
}

func data(p broker.Page) string {
	var list []string
	for _, e := range p.Entries {
		list = append(list, string(e.Data))
	}
	return strings.Join(list, " ")
}

// set runs a command that is to succeed.
func set(t testing.TB, s *redistest.Server, args ...string) string {
	t.Helper()
	answer, err := s.Command(args...)
	require.NoError(t, err)
	require.False(t, strings.HasPrefix(answer, "-"), "%q: %s", args, answer)
	return answer
}

// keys returns the keys that match a pattern.
func keys(t testing.TB, s *redistest.Server, pattern string) []string {
	t.Helper()
	all := set(t, s, "EVAL", "return table.concat(redis.call('KEYS', ARGV[1]), '\\n')", "0", pattern)
	list := strings.Fields(all)
	slices.Sort(list)
	return list
}
