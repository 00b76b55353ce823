package brokertest

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
)

var ledgerRules = []rule{
	{
		name:    "claims",
		promise: "a key is claimed once until it expires or is released, and all nodes see its answer",
		needs:   []ability{hasLedger},
		check:   checkClaims,
	},
	{
		name:    "claimRace",
		promise: "exactly one of many concurrent claims of a key is granted",
		needs:   []ability{hasLedger},
		check:   checkClaimRace,
	},
	{
		name:    "claimExpiry",
		promise: "a claim expires after its lifetime, with or without an answer",
		needs:   []ability{hasLedger},
		check:   checkClaimExpiry,
	},
	{
		name:    "claimUse",
		promise: "a claim of a key that has an answer makes it last for at least the lifetime of that claim",
		needs:   []ability{hasLedger},
		check:   checkClaimUse,
	},
	{
		name: "claimAgain",
		promise: "a claim without an answer is replaced after broker.ClaimTimeout, and the new one says so; " +
			"one after a release does not",
		needs: []ability{hasLedger},
		check: checkClaimAgain,
	},
	{
		name:    "list",
		promise: "List returns the records with a prefix, sorted by key",
		needs:   []ability{hasLedger},
		check:   checkList,
	},
}

func (n *node) ledger() broker.Ledger { return n.Broker.(broker.Ledger) }

func (n *node) claim(key, digest string, ttl time.Duration) broker.Claim {
	n.h.t.Helper()
	c, err := n.ledger().Claim(n.h.ctx(), key, digest, ttl)
	assert.NoError(n.h.t, err, "Claim")
	return c
}

func checkClaims(h *harness) {
	nodes := h.nodes(2)
	const hour = time.Hour
	assert.Equal(h.t, broker.Claimed, nodes[0].claim("id:1", "d", hour).State)
	for _, n := range nodes {
		assert.Equal(h.t, broker.Pending, n.claim("id:1", "d", hour).State)
		assert.Equal(h.t, broker.Mismatch, n.claim("id:1", "other", hour).State)
		assert.ErrorIs(h.t, n.ledger().Finish(h.ctx(), "id:1", "other", []byte("x")), broker.ErrNotOwner)
	}
	assert.ErrorIs(h.t, nodes[0].ledger().Finish(h.ctx(), "never", "d", []byte("x")), broker.ErrNotOwner)
	answer := []byte("{\"status\":201}\x00\xff")
	require.NoError(h.t, nodes[0].ledger().Finish(h.ctx(), "id:1", "d", answer))
	require.NoError(h.t, nodes[0].ledger().Release(h.ctx(), "id:1", "d"), "it has an answer")
	for _, n := range nodes {
		c := n.claim("id:1", "d", hour)
		assert.Equal(h.t, broker.Finished, c.State)
		assert.Equal(h.t, answer, c.Answer)
		assert.Equal(h.t, broker.Mismatch, n.claim("id:1", "other", hour).State)
	}
	require.NoError(h.t, nodes[1].ledger().Finish(h.ctx(), "id:1", "d", []byte("new")))
	assert.Equal(h.t, []byte("new"), nodes[0].claim("id:1", "d", hour).Answer)

	assert.Equal(h.t, broker.Claimed, nodes[0].claim("id:2", "d", hour).State)
	require.NoError(h.t, nodes[1].ledger().Release(h.ctx(), "id:2", "other"))
	assert.Equal(h.t, broker.Pending, nodes[1].claim("id:2", "d", hour).State)
	require.NoError(h.t, nodes[1].ledger().Release(h.ctx(), "id:2", "d"))
	assert.Equal(h.t, broker.Claimed, nodes[1].claim("id:2", "d", hour).State)
	require.NoError(h.t, nodes[1].ledger().Finish(h.ctx(), "id:2", "d", nil))
	assert.Equal(h.t, broker.Finished, nodes[0].claim("id:2", "d", hour).State, "an empty answer is one")

	_, err := nodes[0].ledger().Claim(h.ctx(), strings.Repeat("k", 257), "d", hour)
	assert.Error(h.t, err, "a key of 257 bytes")
	_, err = nodes[0].ledger().Claim(h.ctx(), strings.Repeat("k", 256), strings.Repeat("d", 64), hour)
	assert.NoError(h.t, err)
}

func checkClaimRace(h *harness) {
	nodes := h.nodes(2)
	for round := range 10 {
		key := fmt.Sprint("race:", round)
		var mu sync.Mutex
		granted := 0
		all := h.workers()
		for i := range 8 {
			all.Go(func() {
				if nodes[i%2].claim(key, "d", time.Hour).State == broker.Claimed {
					mu.Lock()
					granted++
					mu.Unlock()
				}
			})
		}
		all.Wait()
		assert.Equal(h.t, 1, granted)
	}
}

func checkClaimExpiry(h *harness) {
	const ttl = 6 * time.Second
	n := h.node()
	assert.Equal(h.t, broker.Claimed, n.claim("a", "d", ttl).State)
	assert.Equal(h.t, broker.Claimed, n.claim("b", "d", ttl).State)
	require.NoError(h.t, n.ledger().Finish(h.ctx(), "b", "d", []byte("x")))
	pause(h.t, ttl+2*time.Second)
	assert.ErrorIs(h.t, n.ledger().Finish(h.ctx(), "a", "d", []byte("x")), broker.ErrNotOwner)
	list, err := n.ledger().List(h.ctx(), "")
	require.NoError(h.t, err)
	assert.Empty(h.t, list)
	assert.Equal(h.t, broker.Claimed, n.claim("a", "other", ttl).State)
	assert.Equal(h.t, broker.Claimed, n.claim("b", "other", ttl).State)
}

func checkClaimUse(h *harness) {
	const ttl = 8 * time.Second
	nodes := h.nodes(2)
	for _, key := range []string{"used", "unused", "longer"} {
		assert.Equal(h.t, broker.Claimed, nodes[0].claim(key, "d", ttl).State)
		require.NoError(h.t, nodes[0].ledger().Finish(h.ctx(), key, "d", []byte("answer of "+key)))
	}
	finished := func(n *node, key string, ttl time.Duration) {
		h.t.Helper()
		c := n.claim(key, "d", ttl)
		assert.Equal(h.t, broker.Finished, c.State, key)
		assert.Equal(h.t, "answer of "+key, string(c.Answer))
	}
	finished(nodes[1], "longer", time.Hour)
	finished(nodes[0], "longer", time.Second) // it does not become shorter
	for range 3 {
		pause(h.t, ttl*2/5)
		finished(nodes[1], "used", ttl)
		assert.Equal(h.t, broker.Mismatch, nodes[0].claim("used", "other", time.Hour).State)
	}
	assert.Equal(h.t, broker.Claimed, nodes[1].claim("unused", "other", ttl).State)
	finished(nodes[0], "longer", ttl)
	require.NoError(h.t, nodes[0].ledger().Finish(h.ctx(), "longer", "d", []byte("answer of longer, again")))
	list, err := nodes[1].ledger().List(h.ctx(), "longer")
	require.NoError(h.t, err)
	if assert.Len(h.t, list, 1) {
		assert.WithinDuration(h.t, time.Now().Add(time.Hour), list[0].Until, 5*time.Minute)
		assert.Equal(h.t, "answer of longer, again", string(list[0].Answer))
	}
	pause(h.t, ttl+2*time.Second)
	assert.Equal(h.t, broker.Claimed, nodes[0].claim("used", "other", ttl).State, "its life ends, too")
}

func checkClaimAgain(h *harness) {
	nodes := h.nodes(2)
	for _, key := range []string{"lost", "released"} {
		assert.Equal(h.t, broker.Claim{State: broker.Claimed}, nodes[0].claim(key, "d", time.Hour))
	}
	require.NoError(h.t, nodes[0].ledger().Release(h.ctx(), "released", "d"))
	assert.Equal(h.t, broker.Claim{State: broker.Claimed}, nodes[1].claim("released", "d", time.Hour))
	pause(h.t, broker.ClaimTimeout+time.Second)
	again := broker.Claim{State: broker.Claimed, Again: true}
	assert.Equal(h.t, again, nodes[1].claim("lost", "d", time.Hour))
	assert.Equal(h.t, broker.Pending, nodes[0].claim("lost", "d", time.Hour).State)
}

func checkList(h *harness) {
	nodes := h.nodes(2)
	for _, key := range []string{"ban:zoe", "ban:ann", "ban", "id:1", "ban:*", "BAN:bob"} {
		nodes[0].claim(key, "digest of "+key, time.Hour)
	}
	require.NoError(h.t, nodes[0].ledger().Finish(h.ctx(), "ban:ann", "digest of ban:ann", []byte("until")))
	list, err := nodes[1].ledger().List(h.ctx(), "ban:")
	require.NoError(h.t, err)
	var keys []string
	for _, r := range list {
		keys = append(keys, r.Key)
		assert.Equal(h.t, "digest of "+r.Key, r.Digest)
		assert.WithinDuration(h.t, time.Now().Add(time.Hour), r.Until, time.Minute)
		if r.Key == "ban:ann" {
			assert.Equal(h.t, "until", string(r.Answer))
		} else {
			assert.Nil(h.t, r.Answer)
		}
	}
	assert.Equal(h.t, []string{"ban:*", "ban:ann", "ban:zoe"}, keys)
}
