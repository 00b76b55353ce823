package nats_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
	"github.com/gopushy/pushy/internal/clustertest"
)

// engine makes nodes of the shared server, patient with a machine that has more to
// do than it can.
var engine = clustertest.Engine{
	Join: func(t testing.TB) (pushy.Broker, pushy.PresenceStore) {
		b := open(t, nats.Options{URL: shared.url, Lease: time.Minute, Timeout: 20 * time.Second})
		return b, b
	},
	Lease: time.Minute,
}

// open makes a node of the test's own cluster.
func open(t testing.TB, o nats.Options) *nats.Broker {
	t.Helper()
	o.Prefix, o.Logger, o.RequireAtStart = prefix(t), testLogger(t), true
	if o.Lease == 0 {
		o.Lease = 8 * time.Second
	}
	b, err := nats.New(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestCrowd(t *testing.T) {
	t.Parallel()
	clustertest.Crowd(t, engine, 6)
}

// A delivery costs what it costs without NATS: at 1,000 subscribers what a publish
// costs does not show.
func TestCPUOfADelivery(t *testing.T) { clustertest.CPU(t, shared.url+" cpu", 1.5) }
