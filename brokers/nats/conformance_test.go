package nats_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
	"github.com/gopushy/pushy/brokertest"
)

func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// cutNode is a node behind a proxy.
type cutNode struct {
	*nats.Broker
	*proxy
}

func newCutNode(t *testing.T) cutNode {
	p := newProxy(t, shared)
	b, err := nats.New(t.Context(), nats.Options{URL: p.url, Prefix: prefix(t), Lease: 3 * time.Second, Logger: testLogger(t)})
	require.NoError(t, err)
	return cutNode{b, p}
}

func TestBroker(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, func(t *testing.T) pushy.Broker { return newCutNode(t) })
}

func TestPresence(t *testing.T) {
	t.Parallel()
	brokertest.RunPresence(t, func(t *testing.T) pushy.PresenceStore { return newCutNode(t) })
}
