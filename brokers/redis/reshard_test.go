package redis_test

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/redis/internal/redistest"
)

// A slot that moves to another server of the Cluster takes its subscriptions with
// it: nodes find them again there, and the members that are in its keys.
func TestSlotMoves(t *testing.T) {
	t.Parallel()
	servers, err := redistest.Cluster(2)
	t.Cleanup(func() {
		for _, s := range servers {
			s.Close()
		}
	})
	require.NoError(t, err)
	o := options(t)
	o.Cluster, o.Addresses = true, []string{servers[0].Addr}
	a, b := connect(t, o), connect(t, o)
	_, heardB := heard(t, a), heard(t, b)
	const channel = "private-room"
	changes := make(chan pushy.Change, 100)
	require.NoError(t, b.Subscribe(t.Context(), channel))
	_, err = b.Watch(t.Context(), channel, func(c pushy.Change) { changes <- c })
	require.NoError(t, err)
	member := func(id string) pushy.Member { return pushy.Member{ID: id, HasData: true, JSON: []byte("{}")} }
	require.NoError(t, a.Join(t.Context(), channel, member("1")))
	change := func() pushy.Change {
		select {
		case c := <-changes:
			return c
		case <-time.After(30 * time.Second):
			t.Fatal("no change came")
			return pushy.Change{}
		}
	}
	assert.Equal(t, "1", change().Member.ID)

	moveSlot(t, servers, a.Tag(channel))
	for resynced := !b.Sharded(); !resynced; { // other events have no slot
		resynced = next(t, heardB).Event == pushy.EventResync
	}
	require.Eventually(t, func() bool { return a.Away() == nil && b.Away() == nil }, 30*time.Second, 20*time.Millisecond)
	_, err = a.Publish(t.Context(), channel, event("after"))
	require.NoError(t, err)
	for after := false; !after; {
		after = next(t, heardB).Event == "after"
	}
	require.NoError(t, a.Join(t.Context(), channel, member("2")))
	ids := []string{"1"}
	for !slices.Equal(ids, []string{"1", "2"}) {
		switch c := change(); {
		case c.State != nil:
			ids = nil
			for _, m := range c.State.Members {
				ids = append(ids, m.ID)
			}
		case !c.Left:
			ids = append(ids, c.Member.ID)
		default:
			assert.Fail(t, "a member left", c.Member.ID)
		}
	}
}

// moveSlot moves the slot of a tag from one of two servers to the other.
func moveSlot(t *testing.T, servers []*redistest.Server, tag string) {
	ask := func(s *redistest.Server, args ...string) string {
		answer, err := s.Command(args...)
		require.NoError(t, err)
		require.NotEqual(t, "-", answer[:1], "%v: %s", args, answer)
		return answer
	}
	slot := strings.TrimPrefix(ask(servers[0], "CLUSTER", "KEYSLOT", tag), ":")
	from, to := servers[0], servers[1]
	if answer, err := from.Command("EXISTS", tag); err != nil || strings.HasPrefix(answer, "-MOVED") {
		from, to = to, from
	}
	ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", ask(from, "CLUSTER", "MYID"))
	ask(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", ask(to, "CLUSTER", "MYID"))
	host, port, _ := net.SplitHostPort(to.Addr)
	for {
		left := ask(from, "CLUSTER", "COUNTKEYSINSLOT", slot)
		if left == ":0" {
			break
		}
		for _, key := range keys(t, from, tag+"*") {
			_, err := from.Command("MIGRATE", host, port, key, "0", "5000")
			require.NoError(t, err)
		}
	}
	for _, s := range []*redistest.Server{to, from} {
		ask(s, "CLUSTER", "SETSLOT", slot, "NODE", ask(to, "CLUSTER", "MYID"))
	}
}
