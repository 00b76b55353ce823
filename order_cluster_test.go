package pushy_test

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy"
)

// everywhere notes when all nodes had a message.
func (p *orderLog) everywhere(channel string, data json.RawMessage) {
	var said struct {
		By string `json:"by"`
		N  int    `json:"n"`
	}
	_ = json.Unmarshal(data, &said)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.shouts {
		if s.channel == channel && s.by == said.By && s.n == said.N {
			s.everywhere = p.now()
		}
	}
}

// runCluster is a crowd on some nodes that share an unreliable cluster.
func runCluster(t *testing.T, seed uint64, nodes int, most time.Duration, failing bool) {
	u := newUnreliable(t, seed, most)
	c := newCrowd(t, func(r *rand.Rand) { time.Sleep(time.Duration(r.Int64N(int64(300 * time.Millisecond)))) })
	c.log.cluster, c.patience = true, time.Hour
	u.all = c.log.everywhere
	for range nodes {
		c.addServer(pushy.Options{Broker: u.node()})
	}
	if failing {
		u.resets, c.log.restated = true, true
		u.fail = func(string) (error, bool) {
			if u.r.IntN(8) > 0 {
				return nil, false
			}
			return errBroker, u.r.IntN(2) == 0
		}
	}
	c.run(seed, func() {
		time.Sleep(time.Minute) // the cluster comes to rest
		synctest.Wait()
	})
	time.Sleep(2 * memberLease) // leaves that failed are made up for by then
	synctest.Wait()
	assert.Empty(t, u.complaints(), "rules of package broker")
	for _, channel := range crowdChannels {
		assert.Empty(t, u.members(channel), "members left behind in %s", channel)
	}
}

func TestOrderOnManyNodes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		for _, c := range []struct {
			name    string
			nodes   int
			most    time.Duration
			failing bool
		}{
			{"fast", 2, 0, false},
			{"slow", 3, 400 * time.Millisecond, false},
			{"failing", 3, 400 * time.Millisecond, true},
			{"alone", 1, 2 * time.Second, true},
		} {
			t.Run(c.name+strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { runCluster(t, seed, c.nodes, c.most, c.failing) })
			})
		}
	}
}
