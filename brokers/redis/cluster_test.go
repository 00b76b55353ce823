package redis_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/redis"
	"github.com/gopushy/pushy/internal/clustertest"
)

// patient are options for a machine that has more to do than it can.
func patient(t testing.TB) redis.Options {
	o := options(t)
	o.Timeout, o.Lease = 20*time.Second, time.Minute
	return o
}

// size is that of every run, or the full one with PUSHY_SOAK.
func size() clustertest.Size {
	if os.Getenv("PUSHY_SOAK") != "" {
		return clustertest.Full
	}
	return clustertest.Small
}

func TestCrowd(t *testing.T) {
	t.Parallel()
	clustertest.Crowd(t, clustertest.Engine{Join: func(t testing.TB) (pushy.Broker, pushy.PresenceStore) {
		o := patient(t)
		o.Addresses = []string{server.Addr}
		b := connect(t, o)
		return b, b
	}}, size(), 6)
}

func TestCrowdOnACluster(t *testing.T) {
	t.Parallel()
	clustertest.Crowd(t, clustertest.Engine{Join: func(t testing.TB) (pushy.Broker, pushy.PresenceStore) {
		o := patient(t)
		o.Cluster, o.Addresses = true, []string{cluster[0].Addr}
		b := connect(t, o)
		return b, b
	}}, size(), 7)
}

// A delivery costs what it costs without Redis: at 1,000 subscribers what a publish
// costs does not show. The bound is 1.15; beside other tests it says less.
func TestCPUOfADelivery(t *testing.T) {
	rounds, events, most := 3, 50, 3.0
	if os.Getenv("PUSHY_SOAK") != "" {
		rounds, events, most = 10, 300, 1.15
	}
	ratio := clustertest.CPURatio(t, server.Addr+" cpu", rounds, events)
	assert.LessOrEqual(t, ratio, most)
}
