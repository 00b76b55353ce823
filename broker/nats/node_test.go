package nats_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
)

const testPatience = 60 * time.Second

// shortLease is for tests that wait until a lease has expired. A busy machine may not run a node
// for some seconds, and that node must not expire.
const shortLease = 6 * time.Second

// news is one call of a sink.
type news struct {
	channel string
	entry   broker.Entry
	state   *broker.State // of a Reset
	reason  string
}

// node is an open Broker, and what its sink has received.
type node struct {
	*nats.Broker
	t    testing.TB
	id   string
	told chan news
	hold atomic.Pointer[chan struct{}] // closed when the sink may go on
}

var _ broker.Sink = (*node)(nil)

func (n *node) Deliver(channel string, e broker.Entry) {
	if hold := n.hold.Load(); hold != nil {
		<-*hold
	}
	n.told <- news{channel: channel, entry: e}
}

func (n *node) Reset(channel string, s broker.State, reason string) {
	n.told <- news{channel: channel, state: &s, reason: reason}
}

var opened atomic.Int64

// try opens a Broker with the test's prefix.
func try(t testing.TB, o nats.Options, lease time.Duration, settings map[string]string) (*node, error) {
	t.Helper()
	if o.Prefix == "" {
		o.Prefix = prefix(t)
	}
	if o.Logger == nil {
		o.Logger = testLogger(t)
	}
	n := &node{Broker: nats.New(o), t: t, id: fmt.Sprint("node-", opened.Add(1)), told: make(chan news, 10_000)}
	err := n.Open(t.Context(), broker.OpenOptions{Node: n.id, Lease: lease, Settings: settings}, n)
	if err == nil {
		t.Cleanup(func() { _ = n.Close(context.Background()) })
	}
	return n, err
}

// open is try for what must work, with a lease and a timeout that a machine which has
// more to do than it can keeps.
func open(t testing.TB, o nats.Options) *node {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	n, err := try(t, o, time.Minute, nil)
	require.NoError(t, err)
	return n
}

func (n *node) follow(channel string) broker.State {
	n.t.Helper()
	s, err := n.Follow(n.t.Context(), channel)
	require.NoError(n.t, err)
	return s
}

func (n *node) append(channel string, e broker.Entry) broker.Appended {
	n.t.Helper()
	a, err := n.Append(n.t.Context(), channel, e)
	require.NoError(n.t, err)
	return a
}

// next returns the next call of the sink that matches.
func (n *node) next(fits func(news) bool) news {
	n.t.Helper()
	late := time.After(testPatience)
	for {
		select {
		case got := <-n.told:
			if fits(got) {
				return got
			}
		case <-late:
			n.t.Fatal("nothing came")
		}
	}
}

func (n *node) nextEvent() broker.Entry {
	n.t.Helper()
	return n.next(func(got news) bool { return got.state == nil && got.entry.Kind == broker.Event }).entry
}

func (n *node) nextMember() broker.Entry {
	n.t.Helper()
	return n.next(func(got news) bool { return got.state == nil && got.entry.Kind != broker.Event }).entry
}

func (n *node) nextReset(channel string) news {
	n.t.Helper()
	return n.next(func(got news) bool { return got.state != nil && got.channel == channel })
}

// members are the ids of a channel's members, as Follow returns them.
func (n *node) members(channel string) []string {
	n.t.Helper()
	ids := []string{}
	for _, m := range n.follow(channel).Members {
		ids = append(ids, m.ID)
	}
	return ids
}

func event(data string) broker.Entry {
	return broker.Entry{Kind: broker.Event, Event: "said", Data: json.RawMessage(data)}
}

func kept(data string) broker.Entry {
	e := event(data)
	e.Keep = broker.Keep{Size: 50, TTL: time.Hour}
	return e
}

func join(id string) broker.Entry {
	return broker.Entry{Kind: broker.Join, Member: id, Owner: "owner-" + id, Data: json.RawMessage(`{"id":"` + id + `"}`)}
}

func leave(id string) broker.Entry {
	return broker.Entry{Kind: broker.Leave, Member: id, Owner: "owner-" + id}
}

func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	assert.Eventually(t, true, testPatience, 20*time.Millisecond, what)
}

// admin is a connection past the broker.
func admin(t testing.TB, url string) (*natsgo.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := natsgo.Connect(url)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return nc, js
}

// stored returns how many messages a stream has of the subjects that fit.
func stored(t testing.TB, js jetstream.JetStream, name, subjects string) (n int) {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	require.NoError(t, err)
	info, err := s.Info(t.Context(), jetstream.WithSubjectFilter(subjects))
	require.NoError(t, err)
	for _, count := range info.State.Subjects {
		n += int(count)
	}
	return n
}
