package pushy_test

import (
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

// refusals returns Stats.Refused without the reasons that were not counted.
func refusals(srv *pushy.Server) map[string]uint64 {
	refused := srv.Stats().Refused
	maps.DeleteFunc(refused, func(_ string, n uint64) bool { return n == 0 })
	return refused
}

// Each reason of a refusal is there before the first one, because rates of Prometheus do not see the
// increase of a series that begins with it.
func TestStatsHaveEachReasonOfARefusal(t *testing.T) {
	t.Parallel()
	refused := startServer(t, pushy.Options{}).Stats().Refused
	for _, reason := range []string{
		"connections", "address", "memory", "shutdown", "origin", "accept", "banned", "connectRate", "acceptRate",
		"slow body", "large body", "other",
	} {
		assert.Contains(t, refused, reason)
	}
	assert.Len(t, refused, 12)
}

// What clients do is counted, and what they choose is no key.
func TestStatsOfClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{
			Heartbeat: -1,
			Limits:    pushy.Limits{Channels: 2},
		})
		before := srv.Stats()
		p := connectPeer(t, srv)
		other := connectPeer(t, srv)
		p.subscribe("news", "")
		other.subscribe("news", "")
		p.subscribe("more", "")
		for _, text := range []string{
			`{"command":"subscribe","data":{"channel":"three"}}`,
			`{"command":"SUBSCRIBE","data":{"channel":"news"}}`,
			subscribeText(t, other.id, "private-x", ""),
			`{"command":"none"}`,
			`{"command":"` + strings.Repeat("x", 100) + `"}`,
		} {
			p.send(text)
			p.next()
		}
		require.NoError(t, srv.Publish(t.Context(), "news", "e", 1))
		p.next()
		other.next()
		other.Close(4321, "")
		other.Abort()
		synctest.Wait()

		s := srv.Stats()
		assert.Equal(t, uint64(2), s.Opened)
		assert.Equal(t, uint64(1), s.Closed[0], "all codes of applications are one")
		assert.Len(t, s.Closed, len(before.Closed))
		assert.Equal(t, uint64(8), s.MessagesIn)
		assert.Greater(t, s.BytesIn, uint64(300))
		assert.Equal(t, uint64(2+3+5+2), s.MessagesOut)
		assert.Greater(t, s.BytesOut, uint64(600))
		assert.Equal(t, uint64(2), s.Deliveries)
		assert.Equal(t, uint64(3), s.Joins["joined"])
		assert.Equal(t, uint64(1), s.Joins["too-many-channels"])
		assert.Equal(t, uint64(1), s.Joins["already-subscribed"])
		assert.Equal(t, uint64(1), s.Joins["denied"])
		assert.Len(t, s.Joins, len(before.Joins))
		assert.Equal(t, uint64(6), s.Commands["subscribe"].Count())
		assert.Equal(t, uint64(2), s.Commands["unknown"].Count())
		assert.Len(t, s.Commands, len(before.Commands))
		assert.Equal(t, uint64(0), s.BrokerTime.Count(), "there is no Broker")
	})
}

// A change of the members that a subscriber is sent is a delivery, as an event is.
func TestStatsOfMembers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{Heartbeat: -1})
		var all []*peer
		for n := range 3 {
			p := connectPeer(t, srv)
			p.subscribe("private-room", `{"name":"ann"}`)
			for _, other := range all {
				assert.Equal(t, "pushy:presence-add", other.event())
			}
			all = append(all, p)
			synctest.Wait() // deliveries are counted after they are queued
			assert.Equal(t, []uint64{0, 1, 3}[n], srv.Stats().Deliveries)
		}
		all[2].Abort()
		assert.Equal(t, "pushy:presence-quit", all[0].event())
		assert.Equal(t, "pushy:presence-quit", all[1].event())
		synctest.Wait()
		assert.Equal(t, uint64(5), srv.Stats().Deliveries)
	})
}

// A client that reads too slowly counts, and one that says so itself does not.
func TestStatsOfSlowConsumers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{Limits: pushy.Limits{ConnBuffer: 10_000, TriggerBytes: 2000}})
		liar := connectPeer(t, srv)
		liar.Close(pushy.CloseSlowConsumer, "")
		synctest.Wait() // the server has read the close frame before the connection breaks
		liar.Abort()
		p := connectPeer(t, srv)
		p.subscribe("news", "")
		for srv.Stats().Connections > 0 {
			require.NoError(t, srv.Publish(t.Context(), "news", "e", strings.Repeat("x", 1000)))
			synctest.Wait()
		}
		s := srv.Stats()
		assert.Equal(t, uint64(1), s.Slow)
		assert.Equal(t, uint64(2), s.Closed[pushy.CloseSlowConsumer])
	})
}

// Calls of the Broker have a histogram, and those that fail are counted by method.
func TestStatsOfTheBroker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := newUnreliable(t, 1, 20*time.Millisecond)
		u.fail = func(call string) (error, bool) {
			if call == "Event" {
				return broker.ErrBusy, false
			}
			return nil, false
		}
		srv := startServer(t, pushy.Options{Broker: u.node()})
		before := srv.Stats()
		for range 20 {
			require.ErrorIs(t, srv.Publish(t.Context(), "news", "e", 1), broker.ErrBusy)
		}
		s := srv.Stats()
		assert.Equal(t, uint64(20), s.BrokerErrors["append"]-before.BrokerErrors["append"])
		assert.Equal(t, uint64(20), s.BrokerTime.Count()-before.BrokerTime.Count())
		assert.Less(t, s.BrokerTime.Sum, 20*21*time.Millisecond+before.BrokerTime.Sum)
		assert.Greater(t, s.BrokerTime.Sum, before.BrokerTime.Sum)
	})
}
