package pushy_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// twoNodes runs a test with two Servers at a hub without delays.
func twoNodes(t *testing.T, run func(t *testing.T, h *hub, nodes []*hubNode, servers []*pushy.Server)) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		h := newHub(1, 0)
		var nodes []*hubNode
		var servers []*pushy.Server
		for range 2 {
			n := h.node()
			nodes = append(nodes, n)
			servers = append(servers, startServer(t, pushy.Options{Broker: n, Presence: hubStore{n}}))
		}
		run(t, h, nodes, servers)
		synctest.Wait()
		assert.Empty(t, h.complaints())
	})
}

func listed(h *hub, channel, id string) pushy.Member {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.logLocked(channel).members {
		if m.ID == id {
			return m
		}
	}
	return pushy.Member{}
}

// A State takes the place of all that was: members get it as a sync, and follow from
// its revision on, be that lower.
func TestStateReplacesPresence(t *testing.T) {
	twoNodes(t, func(t *testing.T, h *hub, nodes []*hubNode, servers []*pushy.Server) {
		ann, bob := connectPeer(t, servers[0]), connectPeer(t, servers[1])
		annID := ann.subscribe("private-room", `{"name":"Ann"}`).field("memberId")
		bob.subscribe("private-room", `{"name":"Bob"}`)
		require.Equal(t, "pushy:presence-add", ann.next().Event)
		cyd := pushy.Member{ID: "c", HasData: true, JSON: []byte(`{"name":"Cyd","subscribed":5,"memberId":"c","idle":false}`)}
		self := listed(h, "private-room", annID)
		h.lose("private-room", 1, true, cyd, self)
		hubStore{nodes[0]}.restate("private-room")
		ann.expect(fmt.Sprintf(`pushy:presence-sync private-room {"presence":[%s,%s]}`, cyd.JSON, self.JSON))
		ch, _ := servers[0].Channels().Lookup("private-room")
		members, on := ch.Presence()
		assert.True(t, on)
		assert.Equal(t, []pushy.Member{cyd, self}, members)

		require.NoError(t, hubStore{nodes[1]}.Leave(deadline(t), "private-room", "c"))
		ann.expect(fmt.Sprintf(`pushy:presence-quit private-room {"member":%s}`, cyd.JSON))
		ann.quiet()
	})
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	t.Cleanup(cancel)
	return ctx
}

// A join whose entry was lost comes through with the State.
func TestStateBringsJoinThrough(t *testing.T) {
	twoNodes(t, func(t *testing.T, h *hub, nodes []*hubNode, servers []*pushy.Server) {
		ann, bob := connectPeer(t, servers[0]), connectPeer(t, servers[0])
		ann.subscribe("private-room", `{"name":"Ann"}`)
		nodes[0].deaf(true)
		bob.send(subscribeText(t, bob.id, "private-room", `{"name":"Bob"}`))
		time.Sleep(time.Second) // the entry is in the log, and has not come back
		require.Len(t, h.members("private-room"), 2)
		nodes[0].deaf(false)
		hubStore{nodes[0]}.restate("private-room")
		assert.Equal(t, "pushy:presence-sync", ann.next().Event)
		success := bob.next()
		assert.Equal(t, "pushy:subscription-success", success.Event)
		ids, _ := memberIDs(success.Data, "presence")
		assert.Equal(t, h.members("private-room"), ids)
		ann.quiet()
		bob.quiet()
	})
}

// Without presence a State is nobody's business.
func TestStateWithoutPresence(t *testing.T) {
	twoNodes(t, func(t *testing.T, h *hub, nodes []*hubNode, servers []*pushy.Server) {
		ann := connectPeer(t, servers[0])
		ann.subscribe("private-room", "")
		hubStore{nodes[0]}.restate("private-room")
		synctest.Wait()
		ann.quiet()
	})
}

func TestResync(t *testing.T) {
	twoNodes(t, func(t *testing.T, h *hub, nodes []*hubNode, servers []*pushy.Server) {
		ann := connectPeer(t, servers[0])
		ann.subscribe("news", "")
		nodes[0].deliver("news", pushy.Message{Event: pushy.EventResync, Data: []byte("{}")})
		ann.expect("pushy:resync news {}")
		err := servers[0].Publish(t.Context(), "news", pushy.EventResync, struct{}{})
		assert.ErrorContains(t, err, "event name", "nobody else sends it")
	})
}

func TestStatsSayWhyANodeIsAlone(t *testing.T) {
	twoNodes(t, func(t *testing.T, h *hub, nodes []*hubNode, servers []*pushy.Server) {
		assert.NoError(t, servers[0].Stats().Away)
		nodes[0].away = errors.New("the cable is out")
		assert.Equal(t, nodes[0].away, servers[0].Stats().Away)
		assert.NoError(t, servers[1].Stats().Away)
	})
	assert.NoError(t, startServer(t, pushy.Options{}).Stats().Away)
}

// What is left of a dead node goes once, and nothing of it comes up for an hour.
func TestDeadNodeLeavesOnce(t *testing.T) {
	twoNodes(t, func(t *testing.T, h *hub, nodes []*hubNode, servers []*pushy.Server) {
		const lease = 15 * time.Second
		ann := connectPeer(t, servers[0])
		ann.subscribe("private-room", `{"name":"Ann"}`)
		dead := map[string]bool{}
		for range 20 {
			id := connectPeer(t, servers[1]).subscribe("private-room", `{"name":"dead"}`).field("memberId")
			dead[id] = true
			require.Equal(t, "pushy:presence-add", ann.next().Event)
		}
		nodes[1].deaf(true) // its own watch hears no more
		time.Sleep(lease)
		for id := range dead { // the store of another node sweeps it
			require.NoError(t, hubStore{nodes[0]}.Leave(deadline(t), "private-room", id))
		}
		for range dead {
			quit := ann.next()
			require.Equal(t, "pushy:presence-quit", quit.Event)
		}
		for range 60 {
			time.Sleep(time.Minute)
			ann.quiet()
			assert.Len(t, h.members("private-room"), 1)
		}
	})
}
