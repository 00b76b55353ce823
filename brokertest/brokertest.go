// Package brokertest has the rules of pushy.Broker and pushy.PresenceStore as
// test suites. An implementation's own tests run them:
//
//	func TestBroker(t *testing.T) {
//		brokertest.Run(t, func(t *testing.T) pushy.Broker {
//			b, err := redis.New(redis.Options{Addresses: addrs, Prefix: t.Name()})
//			require.NoError(t, err)
//			return b
//		})
//	}
//
// The func is called once for each node that a rule needs. All that it returns
// within one subtest, to be told by t.Name(), are nodes that act as one; those
// of different subtests have nothing to do with each other. From its second
// call in a subtest on it may return nil: an implementation that serves one
// process only is held to what is left of each rule. The suite opens and closes
// what it is given.
//
// What else a node can do it shows by its methods: see [Cutter] and [Killer]. A rule
// that cannot be run because an implementation lacks one of them, or serves one
// process only, fails unless its name is listed: nothing passes that was not tested.
package brokertest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gopushy/pushy"
)

// A Cutter is a node whose connection the suite can cut: the rules of faults
// apply to it.
type Cutter interface {
	// Cut cuts this node off from what it works with, so that nothing goes in or
	// out; others go on. mend lets it connect again, and returns at once.
	Cut() (mend func())
}

// A Killer is a PresenceStore that can end as a killed process does: the rules of
// leases apply to it.
type Killer interface {
	// Kill ends this node without a word to the others. Close is still called.
	Kill()
	// Lease is how long a node may be silent before it counts as dead. Give
	// tests a short one: they wait for it.
	Lease() time.Duration
}

// Run holds a Broker to its rules, one subtest each. notHeld are the names of rules
// that it is knowingly not held to: they are logged and not run. A rule that cannot be
// run fails unless it is listed there.
func Run(t *testing.T, open func(t *testing.T) pushy.Broker, notHeld ...string) {
	t.Helper()
	runAll(t, brokerRules, open, notHeld)
}

// RunPresence holds a PresenceStore to its rules, as Run does a Broker.
func RunPresence(t *testing.T, open func(t *testing.T) pushy.PresenceStore, notHeld ...string) {
	t.Helper()
	runAll(t, presenceRules, open, notHeld)
}

// rule is one case. words is what is broken when it fails.
type rule[N any] struct {
	name, words string
	check       func(t testing.TB, open func() N)
	needs       needs
}

// needs is what a rule cannot do without.
type needs struct {
	nodes int // that act as one; 0 for one
	cut   bool
	kill  bool
}

func runAll[N any](t *testing.T, rules []rule[N], open func(t *testing.T) N, notHeld []string) {
	t.Helper()
	for _, name := range unknown(rules, notHeld) {
		t.Errorf("there is no rule %q", name)
	}
	for _, r := range rules {
		if slices.Contains(notHeld, r.name) {
			t.Logf("not held to the rule %s: %s", r.name, r.words)
			continue
		}
		t.Run(r.name, func(t *testing.T) { r.run(t, func() N { return open(t) }) })
	}
}

// unknown returns the names that are no rule's.
func unknown[N any](rules []rule[N], names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(rules, func(r rule[N]) bool { return r.name == name })
	})
}

// run checks the rule, or fails if it cannot be checked.
func (r rule[N]) run(t testing.TB, open func() N) {
	t.Helper()
	var made []N
	lacks := ""
	for len(made) < max(r.needs.nodes, 1) && lacks == "" {
		n := open()
		if len(made) > 0 && any(n) == nil {
			lacks = fmt.Sprintf("%d nodes that act as one", r.needs.nodes)
			break
		}
		made = append(made, n)
		_, cuts := any(n).(Cutter)
		_, kills := any(n).(Killer)
		switch {
		case r.needs.cut && !cuts:
			lacks = "brokertest.Cutter"
		case r.needs.kill && !kills:
			lacks = "brokertest.Killer"
		}
	}
	if lacks != "" {
		for _, n := range made {
			if closer, ok := any(n).(io.Closer); ok {
				_ = closer.Close()
			}
		}
		t.Errorf("not held to the rule %s, which needs %s; list it if that is intended: %s", r.name, lacks, r.words)
		return
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the rule: %s", r.words)
		}
	})
	r.check(t, func() N {
		if len(made) == 0 {
			return open()
		}
		n := made[0]
		made = made[1:]
		return n
	})
}

const (
	// patience is how long a rule waits for what must come.
	patience = 30 * time.Second
	// grace is what a dead node's members may outlive its lease by.
	grace = 2 * time.Second
	// brief bounds a call that is expected to find nobody.
	brief = 200 * time.Millisecond
)

// within returns a context for one call.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// A tape is what a node was told, in order.
type tape[E any] struct {
	mu    sync.Mutex
	all   []E
	more  chan struct{} // closed when there is more
	ended bool
	late  int // entries after the end
}

func (p *tape[E]) add(e E) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		p.late++
	}
	p.all = append(p.all, e)
	if p.more != nil {
		close(p.more)
		p.more = nil
	}
}

// end notes that nothing may come from now on.
func (p *tape[E]) end() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
}

// look returns what there is, and a channel that is closed when there is more.
func (p *tape[E]) look() ([]E, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.more == nil {
		p.more = make(chan struct{})
	}
	return p.all[:len(p.all):len(p.all)], p.more
}

func (p *tape[E]) seen() []E {
	all, _ := p.look()
	return all
}

// wait waits until enough is true of the tape, which it returns.
func (p *tape[E]) wait(t testing.TB, what string, enough func([]E) bool) []E {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		all, more := p.look()
		if enough(all) {
			return all
		}
		select {
		case <-more:
		case <-timeout.C:
			t.Fatalf("%s did not come; there is %+v", what, all)
		}
	}
}

// returns fails unless call returns in time.
func returns(t testing.TB, what string, call func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
		t.Fatalf("%s does not return", what)
	}
}

// stopper returns a channel that is closed by end, or when the test ends.
func stopper(t testing.TB) (stop <-chan struct{}, end func()) {
	c := make(chan struct{})
	end = sync.OnceFunc(func() { close(c) })
	t.Cleanup(end)
	return c, end
}

// pause lets others go on. It reports whether stop is still open.
func pause(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return false
	case <-time.After(time.Millisecond):
		return true
	}
}
