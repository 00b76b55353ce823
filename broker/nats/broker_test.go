package nats_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/brokertest"
	"github.com/gopushy/pushy/broker/nats"
)

func testLogger(t testing.TB) *slog.Logger {
	_, logger := newSaid(t)
	return logger
}

// testNode is a node behind a proxy.
type testNode struct {
	*nats.Broker
	*proxy
}

// Kill is what brokertest.Killer says.
func (n testNode) Kill() { n.Cut() }

func newTestNode(t testing.TB) testNode {
	p := newProxy(t, shared)
	return testNode{nats.New(nats.Options{
		URL:     p.url,
		Prefix:  prefix(t),
		Timeout: 20 * time.Second,
		Logger:  testLogger(t),
	}), p}
}

func TestBroker(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, brokertest.Options{
		Lease:    6 * time.Second, // a busy machine may not run a node for some seconds
		MaxBytes: 1 << 20,         // the server's max_payload
		NotHeld:  []string{"forgetIDs"},
	}, func(t *testing.T) broker.Broker { return newTestNode(t) })
}
