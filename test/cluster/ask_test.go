package cluster_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
)

// All nodes answer a question that one of them asks. A node that cannot be reached is listed
// as silent until its lease has expired.
func TestAsk(t *testing.T) {
	t.Parallel()
	on(t, []string{"redis", "redisCluster", "nats"}, func(t *testing.T, s *store) {
		// A proxy to one server of a Cluster does not lead to the other servers.
		s.proxied = s.Kind != "redis-cluster"
		s.failing().Lease = askLease
		nodes := s.start(t, 3)
		var all []string
		for _, n := range nodes {
			n.srv.HandleAsk("who", func(context.Context, json.RawMessage) (any, error) { return n.srv.Node(), nil })
			all = append(all, n.srv.Node())
			soon(t, patience, "the node has its store", func() bool { return n.srv.Stats().Away == nil })
		}
		slices.Sort(all)
		for _, n := range nodes {
			answered, silent := ask(t, n, patience)
			assert.Equal(t, all, answered)
			assert.Empty(t, silent)
		}
		if !s.proxied {
			return
		}

		s.proxies[1].Cut()
		others := []string{nodes[0].srv.Node(), nodes[2].srv.Node()}
		slices.Sort(others)
		soon(t, patience, "only the node that cannot be reached is silent", func() bool {
			answered, silent := ask(t, nodes[0], 2*time.Second) // on a busy machine another node can be late
			return slices.Equal(others, answered) && slices.Equal([]string{nodes[1].srv.Node()}, silent)
		})
		soon(t, patience, "the node notices", func() bool { return nodes[1].srv.Stats().Away != nil })
		answers, err := nodes[1].srv.Ask(t.Context(), "who", nil)
		require.ErrorIs(t, err, broker.ErrAway)
		assert.Len(t, answers.Answers, 1, "the node's own answer")
		soon(t, patience, "its lease has expired", func() bool { return s.alive(t) == 2 })
		answered, silent := ask(t, nodes[0], patience)
		assert.Equal(t, others, answered)
		assert.Empty(t, silent, "an expired node is not listed")

		s.proxies[1].Mend()
		soon(t, patience, "all answer again", func() bool {
			answered, silent := ask(t, nodes[1], 2*time.Second)
			return slices.Equal(answered, all) && len(silent) == 0
		})
	})
}

// A node that was shut down is neither waited for nor listed as silent, although its lease has
// not expired.
func TestAskAfterAShutdown(t *testing.T) {
	t.Parallel()
	on(t, []string{"redis", "redisCluster", "nats"}, func(t *testing.T, s *store) {
		nodes := s.start(t, 3)
		for _, n := range nodes {
			n.srv.HandleAsk("who", func(context.Context, json.RawMessage) (any, error) { return n.srv.Node(), nil })
			soon(t, patience, "the node has its store", func() bool { return n.srv.Stats().Away == nil })
		}
		require.NoError(t, nodes[1].srv.Shutdown(t.Context()))
		want := []string{nodes[0].srv.Node(), nodes[2].srv.Node()}
		slices.Sort(want)
		for _, n := range []node{nodes[0], nodes[2]} {
			began := time.Now()
			answered, silent := ask(t, n, patience)
			assert.Less(t, time.Since(began), patience, "it does not wait for the time limit")
			assert.Equal(t, want, answered)
			assert.Empty(t, silent)
		}
	})
}

// ask returns the nodes that answered, sorted, and those that were silent.
func ask(t testing.TB, n node, within time.Duration) (answered, silent []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	answers, err := n.srv.Ask(ctx, "who", nil)
	if err != nil {
		t.Logf("ask: %v", err)
	}
	for _, a := range answers.Answers {
		var said string
		require.NoError(t, json.Unmarshal(a.Data, &said))
		assert.Equal(t, a.Node, said)
		answered = append(answered, a.Node)
	}
	slices.Sort(answered)
	return answered, answers.Silent
}
