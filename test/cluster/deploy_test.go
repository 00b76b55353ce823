package cluster_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	lightDeploy = load{
		clients:  300,
		rooms:    20,
		channels: 6,
		restarts: 1,
		pace:     30 * time.Millisecond,
	}
	fullDeploy = load{
		clients:  1500,
		rooms:    100,
		channels: 6,
		restarts: 2,
		pace:     800 * time.Millisecond,
	}
)

// balancer sends clients and publishers to the nodes that are ready, as a load balancer does that
// asks for /readyz.
type balancer struct {
	mu    sync.Mutex
	nodes []*backend
}

// backend is a node that is ready.
type backend struct {
	url string
	in  sync.WaitGroup // what is being sent to it
}

func (b *balancer) add(url string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes = append(b.nodes, &backend{url: url})
}

// remove returns when nothing is being sent to the node any more: that is what the pause between
// "not ready" and the shutdown is for.
func (b *balancer) remove(url string) {
	b.mu.Lock()
	i := slices.IndexFunc(b.nodes, func(n *backend) bool { return n.url == url })
	n := b.nodes[i]
	b.nodes = slices.Delete(b.nodes, i, i+1)
	b.mu.Unlock()
	n.in.Wait()
}

// send calls what with a node that is ready.
func (b *balancer) send(r *rand.Rand, what func(url string)) {
	b.mu.Lock()
	n := b.nodes[r.IntN(len(b.nodes))]
	n.in.Add(1)
	b.mu.Unlock()
	defer n.in.Done()
	what(n.url)
}

// absences is what the clients of a deploy were told, and have done.
type absences struct {
	mu     sync.Mutex
	told   []time.Duration
	late   []time.Duration // how much later the client was subscribed again
	untold []string        // ends without a pushy:drain
}

// returns lets the client return to a node that is ready when its connection ends, at the moment
// that its server has told it. It returns after stop, when the client is connected.
func (c *resumer) returns(r *rand.Rand, b *balancer, a *absences, stop <-chan struct{}) {
	for {
		c.mu.Lock()
		ended, endedAt, in, more := c.ended, c.endedAt, c.returnIn, c.more
		c.mu.Unlock()
		if ended == "" {
			select {
			case <-more:
			case <-stop:
				return
			}
			continue
		}
		c.drop()
		if in == nil || !strings.Contains(ended, "server shutting down") {
			a.mu.Lock()
			a.untold = append(a.untold, c.name+": "+ended)
			a.mu.Unlock()
			return
		}
		told := time.Duration(*in) * time.Millisecond
		<-time.After(time.Until(endedAt.Add(told)))
		b.send(r, func(url string) { assert.NoError(c.t, c.connect(url), c.name) })
		a.mu.Lock()
		a.told = append(a.told, told)
		a.late = append(a.late, time.Since(endedAt)-told)
		a.mu.Unlock()
	}
}

// A rolling deploy of three nodes with 300 clients, or 1,500 in long runs, under load. The load
// balancer stops sending to a node, then the node is shut down, and its successor is added. Each
// client is told when to return, is back at most 2 s later, has all events that were published
// meanwhile, and nobody hears of it. All publishes are accepted. Runs beside other tests check
// 20 s instead of 2 s. (Acceptance test 7 of operations)
func TestRollingDeploy(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		size, limit := lightDeploy, 20*time.Second
		s.Lease = 30 * time.Second
		s.ReturnRate = 50
		if strict {
			size, limit = fullDeploy, 2*time.Second
			s.Lease = 15 * time.Second
			s.ReturnRate = 50
		}
		rollingDeploy(t, s, size, limit)
	})
}

func rollingDeploy(t *testing.T, s *store, size load, limit time.Duration) {
	nodes := make([]*child, 3)
	b := &balancer{}
	for i := range nodes {
		nodes[i] = s.child(t)
		b.add(nodes[i].url)
	}
	everybody := newCrew(t, size, nodes)
	if t.Failed() {
		return
	}
	began := time.Now()
	stop := make(chan struct{})
	var running sync.WaitGroup
	var a absences
	for i, c := range everybody.clients {
		running.Go(func() { c.returns(rand.New(rand.NewPCG(7, uint64(i))), b, &a, stop) })
	}
	everybody.publish(t, &running, stop, func(r *rand.Rand, post func(url string) bool) {
		b.send(r, func(url string) { assert.True(t, post(url), "the publish is accepted") })
	})
	for range size.restarts {
		for i, n := range nodes {
			b.remove(n.url)
			require.NoError(t, n.stop())
			nodes[i] = s.child(t)
			b.add(nodes[i].url)
		}
	}
	soon(t, patience, "all clients are connected", func() bool { return everybody.connected() })
	close(stop)
	running.Wait()
	assert.Empty(t, a.untold)
	require.NotEmpty(t, a.told)
	assert.GreaterOrEqual(t, len(a.told), size.clients, "each node is restarted")
	assert.Less(t, slices.Max(a.late), limit)
	t.Logf("%v: %d returns within %v, the last one %v after its time", time.Since(began).Round(time.Millisecond), len(a.told),
		slices.Max(a.told), slices.Max(a.late).Round(time.Millisecond))
	everybody.check(t, nodes[0].url)
}

func (c *crew) connected() bool {
	return !slices.ContainsFunc(c.clients, func(client *resumer) bool {
		client.mu.Lock()
		defer client.mu.Unlock()
		for _, ch := range client.channels {
			if !ch.in {
				return true
			}
		}
		return client.ended != ""
	})
}
