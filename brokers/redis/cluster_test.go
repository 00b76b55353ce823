package redis_test

import (
	"testing"
	"time"

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

func TestCrowd(t *testing.T) {
	t.Parallel()
	clustertest.Crowd(t, clustertest.Engine{Join: func(t testing.TB) (pushy.Broker, pushy.PresenceStore) {
		o := patient(t)
		o.Addresses = []string{server.Addr}
		b := connect(t, o)
		return b, b
	}}, 6)
}

func TestCrowdOnACluster(t *testing.T) {
	t.Parallel()
	clustertest.Crowd(t, clustertest.Engine{Join: func(t testing.TB) (pushy.Broker, pushy.PresenceStore) {
		o := patient(t)
		o.Cluster, o.Addresses = true, []string{cluster[0].Addr}
		b := connect(t, o)
		return b, b
	}}, 7)
}

// A delivery costs what it costs without Redis: at 1,000 subscribers what a publish
// costs does not show.
func TestCPUOfADelivery(t *testing.T) { clustertest.CPU(t, server.Addr+" cpu", 3) }
