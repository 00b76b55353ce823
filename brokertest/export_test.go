package brokertest

import (
	"testing"

	"github.com/gopushy/pushy"
)

// Check holds an implementation to all rules, with t told what is broken of each.
func Check(check func(name string, run func(t testing.TB)), open func() pushy.Broker) {
	for _, r := range brokerRules {
		check(r.name, func(t testing.TB) { r.run(t, open) })
	}
}

// CheckPresence is Check for a PresenceStore.
func CheckPresence(check func(name string, run func(t testing.TB)), open func() pushy.PresenceStore) {
	for _, r := range presenceRules {
		check(r.name, func(t testing.TB) { r.run(t, open) })
	}
}

// Unknown returns the names that are no rule's of the Broker suite.
func Unknown(names ...string) []string { return unknown(brokerRules, names) }

// Rules returns the names of a suite's rules.
func Rules(suite string) (names []string) {
	if suite == "broker" {
		for _, r := range brokerRules {
			names = append(names, r.name)
		}
		return names
	}
	for _, r := range presenceRules {
		names = append(names, r.name)
	}
	return names
}
