package brokertest_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokertest"
)

// mutant is a flaw and the rules that must find it; others may.
type mutant struct {
	flaw  string
	rules []string
}

var brokerMutants = []mutant{
	{"drops", []string{"delivery", "order"}},
	{"twice", []string{"order", "ownEcho"}},
	{"loses Except", []string{"delivery"}},
	{"no echo", []string{"ownEcho"}},
	{"reorders", []string{"order"}},
	{"folds names", []string{"names"}},
	{"does not unsubscribe", []string{"unsubscribe"}},
	{"says None", []string{"receivers"}},
	{"says Some", []string{"receivers"}},
	{"reuses bytes", []string{"bytes"}},
	{"scribbles", []string{"bytes"}},
	{"subscribes late", []string{"churn"}},
	{"delivers late", []string{"close"}},
	{"takes all", []string{"close"}},
	{"hangs once closed", []string{"closeBusy"}},
	{"deaf to contexts", []string{"context"}},
	{"no resync", []string{"reconnect"}},
	{"forgets subscriptions", []string{"reconnect"}},
	{"replays", []string{"reconnect"}},
	{"swallows", []string{"alone"}},
}

var presenceMutants = []mutant{
	{"drops", []string{"log", "oneOrder"}},
	{"loses data", []string{"log"}},
	{"two orders", []string{"oneOrder"}},
	{"flat revisions", []string{"oneOrder"}},
	{"forgets what is over", []string{"brief"}},
	{"tears", []string{"snapshot"}},
	{"disorders", []string{"snapshot", "on"}},
	{"never on", []string{"on"}},
	{"stays on", []string{"on"}},
	{"joins twice", []string{"joinTwice"}},
	{"leaves unknown", []string{"leaveUnknown"}},
	{"one log", []string{"channels"}},
	{"watches once", []string{"rewatch"}},
	{"deaf to contexts", []string{"context"}},
	{"stays", []string{"goodbye"}},
	{"no lease", []string{"lease", "cut"}},
	{"sweeps twice", []string{"lease"}},
	{"sweeps the living", []string{"lease"}},
	{"forgets its own", []string{"cut"}},
	{"no state", []string{"cut"}},
	{"joins again", []string{"blip"}},
}

// broken returns which rules are broken, of those named or all, and what they say.
func broken(t *testing.T, only []string, suite func(check func(string, func(testing.TB)), over *chan struct{})) map[string][]string {
	failed := map[string][]string{}
	var over chan struct{}
	suite(func(name string, run func(testing.TB)) {
		if only != nil && !slices.Contains(only, name) {
			return
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{TB: t}
				if said := r.run(run); len(said) > 0 {
					failed[name] = said
				}
				close(over)
			})
		})
	}, &over)
	return failed
}

func brokenBroker(t *testing.T, flaw string, only ...string) map[string][]string {
	return broken(t, only, func(check func(string, func(testing.TB)), over *chan struct{}) {
		var h *memory
		brokertest.Check(func(name string, run func(testing.TB)) {
			check(name, func(t testing.TB) {
				h = newMemory(flaw)
				*over = h.over
				run(t)
			})
		}, func() pushy.Broker { return h.broker() })
	})
}

func brokenPresence(t *testing.T, flaw string, only ...string) map[string][]string {
	return broken(t, only, func(check func(string, func(testing.TB)), over *chan struct{}) {
		var h *memoryStores
		brokertest.CheckPresence(func(name string, run func(testing.TB)) {
			check(name, func(t testing.TB) {
				h = newMemoryStores(flaw)
				*over = h.over
				run(t)
			})
		}, func() pushy.PresenceStore { return h.store() })
	})
}

func TestSuitesPassWhatKeepsTheRules(t *testing.T) {
	t.Parallel()
	assert.Empty(t, brokenBroker(t, ""))
	assert.Empty(t, brokenPresence(t, ""))
}

// Every rule finds a flaw that is made for it.
func TestSuitesFindFlaws(t *testing.T) {
	t.Parallel()
	for suite, mutants := range map[string][]mutant{"broker": brokerMutants, "presence": presenceMutants} {
		find := brokenBroker
		if suite == "presence" {
			find = brokenPresence
		}
		found := map[string]bool{}
		for _, m := range mutants {
			t.Run(suite+" "+m.flaw, func(t *testing.T) {
				failed := find(t, m.flaw, m.rules...)
				for _, rule := range m.rules {
					assert.Contains(t, failed, rule, "rules that %q breaks", m.flaw)
					found[rule] = true
				}
			})
		}
		for _, rule := range brokertest.Rules(suite) {
			assert.True(t, found[rule], "no flaw is made for the rule %s of the %s suite", rule, suite)
		}
	}
}

// without and storeWithout hide what a node can do beside its interface.
type without struct{ pushy.Broker }

type storeWithout struct{ pushy.PresenceStore }

// Issue 11, number 11. A rule that cannot be run fails and says what it needs: it does
// not pass as if it was kept.
func TestRulesThatCannotRunFail(t *testing.T) {
	t.Parallel()
	for _, one := range []bool{false, true} {
		want := map[string]string{"reconnect": "brokertest.Cutter", "alone": "brokertest.Cutter"}
		failed := broken(t, nil, func(check func(string, func(testing.TB)), over *chan struct{}) {
			var h *memory
			opened := 0
			brokertest.Check(func(name string, run func(testing.TB)) {
				check(name, func(t testing.TB) {
					h, opened = newMemory(""), 0
					*over = h.over
					run(t)
				})
			}, func() pushy.Broker {
				if opened++; one && opened > 1 {
					return nil
				}
				return without{h.broker()}
			})
		})
		assert.Len(t, failed, len(want), "%v", failed)
		for name, needs := range want {
			assert.Contains(t, strings.Join(failed[name], " "), "not held to the rule "+name+", which needs "+needs)
		}

		want = map[string]string{"lease": "brokertest.Killer", "cut": "brokertest.Cutter", "blip": "brokertest.Cutter"}
		if one {
			want["goodbye"] = "2 nodes that act as one"
		}
		failed = broken(t, nil, func(check func(string, func(testing.TB)), over *chan struct{}) {
			var h *memoryStores
			opened := 0
			brokertest.CheckPresence(func(name string, run func(testing.TB)) {
				check(name, func(t testing.TB) {
					h, opened = newMemoryStores(""), 0
					*over = h.over
					run(t)
				})
			}, func() pushy.PresenceStore {
				if opened++; one && opened > 1 {
					return nil
				}
				return storeWithout{h.store()}
			})
		})
		assert.Len(t, failed, len(want), "%v", failed)
		for name, needs := range want {
			assert.Contains(t, strings.Join(failed[name], " "), "not held to the rule "+name+", which needs "+needs)
		}
	}
	assert.Equal(t, []string{"no such"}, brokertest.Unknown("alone", "no such"))
}

// Rules that are listed are not run, and the suite passes without them.
func TestListedRulesAreNotRun(t *testing.T) {
	t.Parallel()
	opened := map[string]bool{}
	listed := slices.DeleteFunc(brokertest.Rules("broker"), func(name string) bool { return name == "receivers" })
	brokertest.Run(t, func(t *testing.T) pushy.Broker {
		if opened[t.Name()] {
			return nil
		}
		opened[t.Name()] = true
		return silent{}
	}, listed...)
	assert.Len(t, opened, 1)
}

// silent keeps the rule receivers, and no other.
type silent struct{ pushy.Broker }

func (silent) Open(context.Context, func(string, pushy.Message)) error { return nil }
func (silent) Subscribe(context.Context, string) error                 { return nil }
func (silent) Close() error                                            { return nil }
func (silent) Publish(context.Context, string, pushy.Message) (pushy.Receivers, error) {
	return pushy.None, nil
}
