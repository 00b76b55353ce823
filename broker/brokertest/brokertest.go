// Package brokertest is a test suite for the rules of package broker. The tests of an
// implementation run it:
//
//	func TestBroker(t *testing.T) {
//		brokertest.Run(t, brokertest.Options{Lease: time.Second}, func(t *testing.T) broker.Broker {
//			return redis.New(redis.Options{Addresses: addrs, Prefix: t.Name()})
//		})
//	}
//
// The func is called once for each node that a rule needs. All nodes that it returns within
// one subtest, which t.Name() identifies, must use the same store. The nodes of different
// subtests must not share anything. The suite opens and closes the nodes.
//
// The suite uses type assertions to find the optional interfaces of a node: [Cutter],
// [Killer] and those of package broker.
package brokertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
)

// A Cutter is a node whose connection to the store the suite can interrupt.
type Cutter interface {
	// Cut disconnects this node from its store, so that nothing is delivered in either
	// direction. Other nodes are not affected. reconnect allows the node to connect again,
	// and returns at once.
	Cut() (reconnect func())
}

// A Killer is a node that can end like a process that is killed.
type Killer interface {
	// Kill disconnects this node without a message to the store. The suite still calls
	// Close.
	Kill()
}

// Options describe the implementation to the suite.
type Options struct {
	// Lease is the lease of all nodes. The suite waits for leases to expire, so it should
	// be short. Default 1 s.
	Lease time.Duration
	// FakeTime runs each rule in a bubble of testing/synctest, so that the rules take no real
	// time. It is for implementations in memory, which wait only for channels and timers.
	FakeTime bool
	// MaxBytes is the largest Data of an entry. 0 means that there is no limit; then the
	// rule tooLarge does not run.
	MaxBytes int
	// NotHeld lists the rules that the implementation does not keep on purpose. They are
	// printed and not run. A rule that cannot run because the implementation lacks an
	// interface fails, unless it is listed here.
	NotHeld []string
}

// Run tests an implementation against the rules, with one subtest for each rule.
func Run(t *testing.T, o Options, open func(t *testing.T) broker.Broker) {
	t.Helper()
	if o.Lease <= 0 {
		o.Lease = time.Second
	}
	for _, name := range o.NotHeld {
		if !slices.ContainsFunc(rules(), func(r rule) bool { return r.name == name }) {
			t.Errorf("Options.NotHeld: there is no rule %q", name)
		}
	}
	for _, r := range rules() {
		if slices.Contains(o.NotHeld, r.name) {
			t.Logf("not held to %s: %s", r.name, r.promise)
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			check := func(t *testing.T) { r.run(t, o, func() broker.Broker { return open(t) }) }
			if o.FakeTime {
				synctest.Test(t, check)
			} else {
				check(t)
			}
		})
	}
}

// rule is one case. promise is the rule in words.
type rule struct {
	name    string
	promise string
	needs   []ability
	check   func(h *harness)
}

func rules() []rule {
	return slices.Concat(eventRules, historyRules, memberRules, faultRules, ledgerRules)
}

// ability is an optional interface or option that a rule needs.
type ability struct {
	name string
	has  func(o Options, b broker.Broker) bool
}

func can[T any](name string) ability {
	return ability{name: name, has: func(_ Options, b broker.Broker) bool {
		_, ok := b.(T)
		return ok
	}}
}

var (
	hasHistory = can[broker.History]("broker.History")
	hasLedger  = can[broker.Ledger]("broker.Ledger")
	hasCluster = can[broker.Cluster]("broker.Cluster")
	hasLeaser  = can[broker.Leaser]("broker.Leaser")
	canForget  = can[broker.IDForgetter]("broker.IDForgetter")
	hasHealth  = can[broker.Health]("broker.Health")
	canCut     = can[Cutter]("brokertest.Cutter")
	canKill    = can[Killer]("brokertest.Killer")
	hasLimit   = ability{name: "Options.MaxBytes", has: func(o Options, _ broker.Broker) bool { return o.MaxBytes > 0 }}
)

func (r rule) run(t testing.TB, o Options, open func() broker.Broker) {
	t.Helper()
	h := &harness{t: t, o: o, open: open}
	first := open()
	for _, a := range r.needs {
		if !a.has(o, first) {
			t.Errorf("the rule %s cannot run without %s; list it in Options.NotHeld if that is intended: %s",
				r.name, a.name, r.promise)
			return
		}
	}
	h.first = first
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the rule: %s", r.promise)
		}
	})
	r.check(h)
}

const (
	// patience is how long a rule waits for something that must happen.
	patience = 60 * time.Second
	// graceTime is how long the members of a dead node may remain after its lease has expired,
	// with Options.FakeTime.
	graceTime = 3 * time.Second
	// callLimit is the time limit of a call that must return at once.
	callLimit = 20 * time.Second
)

// harness is one run of a rule.
type harness struct {
	t     testing.TB
	o     Options
	open  func() broker.Broker
	first broker.Broker // created by run for the first node
}

// node is an open Broker.
type node struct {
	broker.Broker
	h      *harness
	id     string
	sink   *recorder
	closed bool
}

var lastNode atomic.Int64

// node opens another node.
func (h *harness) node() *node {
	h.t.Helper()
	b := h.first
	h.first = nil
	if b == nil {
		b = h.open()
	}
	n := &node{Broker: b, h: h, id: fmt.Sprintf("node-%d", lastNode.Add(1)), sink: newRecorder()}
	err := b.Open(h.ctx(), broker.OpenOptions{Node: n.id, Lease: h.o.Lease}, n.sink)
	require.NoError(h.t, err, "Open")
	h.t.Cleanup(n.close)
	return n
}

func (h *harness) nodes(count int) []*node {
	h.t.Helper()
	var all []*node
	for range count {
		all = append(all, h.node())
	}
	return all
}

// workers returns a WaitGroup for the goroutines of a rule. They end before the test does,
// also if the rule fails before it waits for them.
func (h *harness) workers() *sync.WaitGroup {
	var all sync.WaitGroup
	h.t.Cleanup(all.Wait)
	return &all
}

// ctx returns a context for one call, which ends after patience.
func (h *harness) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

func (n *node) close() {
	if n.closed {
		return
	}
	n.closed = true
	if err := n.Broker.Close(n.h.ctx()); err != nil {
		n.h.t.Errorf("Close: %v", err)
	}
	n.sink.end()
}

func (n *node) follow(channels ...string) broker.State {
	n.h.t.Helper()
	var s broker.State
	for _, channel := range channels {
		var err error
		s, err = n.Follow(n.h.ctx(), channel)
		require.NoError(n.h.t, err, "Follow %q", channel)
		n.sink.begin(channel, s)
	}
	return s
}

func (n *node) append(channel string, e broker.Entry) broker.Appended {
	n.h.t.Helper()
	a, err := n.Append(n.h.ctx(), channel, e)
	assert.NoError(n.h.t, err, "Append to %q", channel)
	return a
}

// kept is the Keep of most rules about history.
var kept = broker.Keep{Size: 1000, TTL: time.Hour}

func event(data string) broker.Entry {
	return broker.Entry{Kind: broker.Event, Event: "said", Data: []byte(data)}
}

func keptEvent(data string) broker.Entry {
	e := event(data)
	e.Keep = kept
	return e
}

func join(member, owner, data string) broker.Entry {
	e := broker.Entry{Kind: broker.Join, Member: member, Owner: owner}
	if data != "" {
		e.Data = []byte(data)
	}
	return e
}

func leave(member, owner string) broker.Entry {
	return broker.Entry{Kind: broker.Leave, Member: member, Owner: owner}
}

func adopt(member, from, to string) broker.Entry {
	return broker.Entry{Kind: broker.Adopt, Member: member, OldOwner: from, Owner: to}
}
