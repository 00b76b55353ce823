package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/testproc"
)

// user is a connection of a user.
type user struct {
	connected chan struct{} // closed with the first message
	ended     chan error
}

func dialUser(base, id string) (*user, error) {
	u := &user{
		connected: make(chan struct{}),
		ended:     make(chan error, 1),
	}
	first := true
	_, err := dialWebSocket(base, "/pushy/socket/websocket?user="+id, false, func([]byte) {
		if first {
			close(u.connected)
		}
		first = false
	}, func(err error) { u.ended <- err })
	return u, err
}

func connectUser(t testing.TB, base, id string) *user {
	t.Helper()
	u, err := dialUser(base, id)
	require.NoError(t, err)
	u.await(t, u.connected)
	return u
}

func (u *user) await(t testing.TB, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the user is not connected")
	}
}

// kicked waits for the close frame of a kick and returns how long it took.
func (u *user) kicked(t testing.TB, since time.Time) time.Duration {
	t.Helper()
	select {
	case err := <-u.ended:
		require.ErrorIs(t, err, errClosedByServer)
		assert.Contains(t, err.Error(), fmt.Sprintf("%q", ws.NewCloseFrameBody(pushy.CloseRemoved, "Spam")))
	case <-time.After(patience):
		t.Fatal("the user is not kicked")
	}
	return time.Since(since)
}

func refusedStatus(t testing.TB, base, id string) int {
	t.Helper()
	_, err := dialUser(base, id)
	var status ws.StatusError
	if errors.As(err, &status) {
		return int(status)
	}
	require.NoError(t, err)
	return 101
}

// api.md, acceptance tests 11 and 14, on real stores: a user of three nodes is kicked, one of which is
// a process that is stopped (SIGSTOP). It is named as silent. When it continues, after its lease, it
// closes the user's connection, and refuses others, as a node that starts later does.
func TestKickOfAUserOnAStoppedNode(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		s.Lease = askLease
		nodes := s.start(t, 2)
		stopped := s.child(t)
		soon(t, patience, "all nodes answer", func() bool {
			list, err := nodes[0].srv.Connections(t.Context(), pushy.ConnQuery{User: "42"})
			return err == nil && list.Nodes == 3 && len(list.Silent) == 0
		})
		here := connectUser(t, nodes[0].url, "42")
		there := connectUser(t, nodes[1].url, "42")
		asleep := connectUser(t, stopped.url, "42")
		other := connectUser(t, stopped.url, "43")
		var err error
		soon(t, patience, "all connections are listed", func() bool {
			var list pushy.ConnList
			list, err = nodes[1].srv.Connections(t.Context(), pushy.ConnQuery{User: "42"})
			return err == nil && len(list.Conns) == 3
		})
		require.NoError(t, testproc.Pause(stopped.cmd.Process))

		// On a busy machine another node can take longer than 500 ms.
		var channels pushy.ChannelList
		soon(t, patience, "only the stopped node is silent", func() bool {
			began := time.Now()
			channels, err = nodes[0].srv.ListChannels(t.Context(), pushy.ChannelQuery{Count: true})
			t.Logf("a list, with a node that is stopped, took %v", time.Since(began))
			return err == nil && channels.Nodes == 2 && len(channels.Silent) == 1
		})
		seam.Of(nodes[0].srv).SetAskTimeout(5 * time.Second) // because a Kick cannot be tried again
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		result, err := nodes[0].srv.Kick(ctx, pushy.Kick{
			Target: "user:42",
			Reason: "Spam",
			Until:  time.Now().Add(time.Hour),
		})
		t.Logf("a kick, with a node that is stopped, took %v", time.Since(began))
		require.NoError(t, err)
		assert.Equal(t, pushy.Kicked{
			Closed: 2,
			Coverage: pushy.Coverage{
				Nodes:  2,
				Silent: channels.Silent,
			},
		}, result)
		t.Logf("closed after %v and %v", here.kicked(t, began), there.kicked(t, began))
		assert.Equal(t, 403, refusedStatus(t, nodes[1].url, "42"))
		soon(t, patience, "its lease has expired", func() bool { return s.alive(t) == 2 })

		began = time.Now()
		require.NoError(t, testproc.Resume(stopped.cmd.Process))
		t.Logf("closed on the node that was stopped after %v", asleep.kicked(t, began))
		assert.Equal(t, 403, refusedStatus(t, stopped.url, "42"))
		late := serve(t, s.join(t), s.Lease)
		assert.Equal(t, 403, refusedStatus(t, late.url, "42"))
		assert.Equal(t, 101, refusedStatus(t, late.url, "43"))
		select {
		case err := <-other.ended:
			t.Errorf("another user's connection has ended: %v", err)
		default:
		}
		_, lifted, err := late.srv.Unban(ctx, "user:42")
		require.NoError(t, err)
		assert.True(t, lifted)
		soon(t, patience, "the user can return", func() bool { return refusedStatus(t, stopped.url, "42") == 101 })
	})
}
