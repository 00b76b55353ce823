package brokertest

import (
	"testing"

	"github.com/gopushy/pushy/broker"
)

// Names returns the names of the rules.
func Names() []string {
	var names []string
	for _, r := range rules() {
		names = append(names, r.name)
	}
	return names
}

// Check runs one rule with the caller's testing.TB.
func Check(t testing.TB, name string, o Options, open func() broker.Broker) {
	for _, r := range rules() {
		if r.name == name {
			r.run(t, o, open)
		}
	}
}
