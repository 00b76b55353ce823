package memory_test

import (
	"sync"
	"testing"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/brokertest"
	"github.com/gopushy/pushy/broker/memory"
)

// clusters has one Cluster for each subtest.
type clusters struct {
	mu     sync.Mutex
	byTest map[string]*memory.Cluster
}

func (c *clusters) broker(t *testing.T) broker.Broker {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byTest == nil {
		c.byTest = map[string]*memory.Cluster{}
	}
	cluster := c.byTest[t.Name()]
	if cluster == nil {
		cluster = memory.NewCluster(memory.Options{})
		c.byTest[t.Name()] = cluster
	}
	return cluster.Broker()
}

func TestBroker(t *testing.T) {
	t.Parallel()
	var all clusters
	brokertest.Run(t, brokertest.Options{
		Lease:    time.Second,
		FakeTime: true,
		NotHeld:  []string{"tooLarge"}, // memory has no limit
	}, all.broker)
}
