package pushy_test

import (
	"testing"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokertest"
)

// once gives one node: what a Server has by default serves one process.
func once[N any](make func() N) func(*testing.T) N {
	given := map[string]bool{}
	return func(t *testing.T) (node N) {
		if !given[t.Name()] {
			given[t.Name()] = true
			node = make()
		}
		return node
	}
}

func TestDefaultBroker(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, once(pushy.NewLocalBroker), "reconnect", "alone")
}

func TestDefaultPresenceStore(t *testing.T) {
	t.Parallel()
	brokertest.RunPresence(t, once(pushy.NewLocalPresence), "goodbye", "lease", "cut", "blip")
}
