package backend_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

func TestKick(t *testing.T) {
	onNodes(t, 2, func(t *testing.T, nodes []node) {
		api, ctx := nodes[0].api, t.Context()
		here, there, other := nodes[0].connect("42"), nodes[1].connect("42"), nodes[1].connect("43")
		until := time.Now().Add(time.Hour).Truncate(time.Second)
		kicked, err := api.Kick(ctx, backend.Kick{
			Target: "user:42",
			Reason: "Spam",
			Until:  until,
		})
		require.NoError(t, err)
		assert.Equal(t, backend.Kicked{Closed: 2, Coverage: backend.Coverage{Nodes: 2}}, kicked)
		code, reason := here.ExpectClose()
		assert.Equal(t, 3500, code)
		assert.Equal(t, "Spam", reason)
		_, _ = there.ExpectClose()
		as42 := func(r *http.Request) { r.Header.Set("User", "42") }
		assert.Equal(t, http.StatusForbidden, nodes[1].kit.Refused(as42))
		bans, err := api.Bans(ctx)
		require.NoError(t, err)
		assert.Equal(t, []backend.Ban{{
			Target: "user:42",
			Reason: "Spam",
			Since:  time.Now().Truncate(time.Second),
			Until:  until,
		}}, bans)

		coverage, lifted, err := api.Unban(ctx, "user:42")
		require.NoError(t, err)
		assert.True(t, lifted)
		assert.Equal(t, backend.Coverage{Nodes: 2}, coverage)
		nodes[1].connect("42")
		_, lifted, err = api.Unban(ctx, "user:42")
		require.NoError(t, err)
		assert.False(t, lifted)
		bans, err = api.Bans(ctx)
		require.NoError(t, err)
		assert.Empty(t, bans)

		kicked, err = api.Kick(ctx, backend.Kick{Target: "conn:" + other.ID()})
		require.NoError(t, err)
		assert.Equal(t, 1, kicked.Closed)
		_, reason = other.ExpectClose()
		assert.Equal(t, "Removed", reason)
	})
}

// All tries of a call have one id, so a kick whose answer is lost has its first result, and clients
// that have returned meanwhile stay. The same is true of two calls with the id of the caller.
func TestKickIsTriedAgain(t *testing.T) {
	onNodes(t, 2, func(t *testing.T, nodes []node) {
		var ids []string
		lose := 2
		n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ids = append(ids, requestID(r))
			if len(ids) <= lose {
				nodes[0].ServeHTTP(httptest.NewRecorder(), r)
				nodes[1].connect("42")
				panic(http.ErrAbortHandler)
			}
			nodes[1].ServeHTTP(w, r)
		}))
		api, ctx := n.client(t, backend.Options{}), t.Context()
		first := nodes[0].connect("42")
		kicked, err := api.Kick(ctx, backend.Kick{Target: "user:42"})
		require.NoError(t, err)
		assert.Equal(t, backend.Kicked{Closed: 1, Coverage: backend.Coverage{Nodes: 2}}, kicked)
		_, _ = first.ExpectClose()
		assert.Equal(t, []string{ids[0], ids[0], ids[0]}, ids)
		connections := func() int {
			list, err := api.Connections(ctx, backend.ConnQuery{User: "42"})
			require.NoError(t, err)
			return len(list.Conns)
		}
		assert.Equal(t, 2, connections(), "those that have returned after the first try")

		k := backend.Kick{Target: "user:42", ID: "report-17"}
		kicked, err = api.Kick(ctx, k)
		require.NoError(t, err)
		assert.Equal(t, 2, kicked.Closed)
		nodes[0].connect("42")
		time.Sleep(10 * time.Minute)
		kicked, err = api.Kick(ctx, k)
		require.NoError(t, err)
		assert.Equal(t, 2, kicked.Closed)
		assert.Equal(t, 1, connections())
		k.Reason = "Spam"
		_, err = api.Kick(ctx, k)
		require.ErrorIs(t, err, backend.ErrConflict)
		assert.Equal(t, 1, connections())
	})
}

// A server that cannot ask its other nodes has kicked its own connections. The next try kicks the
// others, and all are counted. If there is no next try, the error comes with what was done.
func TestKickWhileNodesCannotBeAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		first := &mute{Broker: cluster.Broker()}
		here, there := startNode(t, first), startNode(t, cluster.Broker())
		ctx := t.Context()
		api := serve(t, here).client(t, backend.Options{})
		here.connect("42")
		there.connect("42")
		first.failures.Store(2)
		kicked, err := api.Kick(ctx, backend.Kick{Target: "user:42"})
		require.NoError(t, err)
		assert.Equal(t, backend.Kicked{Closed: 2, Coverage: backend.Coverage{Nodes: 2}}, kicked)

		here.connect("42")
		there.connect("42")
		first.failures.Store(1000)
		kicked, err = serve(t, here).client(t, backend.Options{Tries: 2}).Kick(ctx, backend.Kick{
			Target: "user:42",
			Until:  time.Now().Add(time.Hour),
		})
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.ErrorIs(t, err, backend.ErrOutcomeUnknown)
		assert.Equal(t, backend.Kicked{Closed: 1, Coverage: backend.Coverage{Nodes: 1}}, kicked)
		bans, err := api.Bans(ctx)
		require.NoError(t, err)
		assert.Len(t, bans, 1, "the ban is stored")

		first.failures.Store(1)
		coverage, lifted, err := api.Unban(ctx, "user:42")
		require.NoError(t, err)
		assert.True(t, lifted, "by the first try")
		assert.Equal(t, backend.Coverage{Nodes: 2}, coverage)
		there.connect("42") // the second try has notified the other node

		first.failures.Store(1000)
		sent, err := serve(t, here).client(t, backend.Options{Tries: 2}).SendUser(ctx, "42", "x", nil)
		require.ErrorIs(t, err, backend.ErrOutcomeUnknown)
		assert.Equal(t, 1, sent.Nodes)
	})
}

// mute is a broker whose questions to other nodes fail for some time.
type mute struct {
	*memory.Broker
	failures atomic.Int64 // the number of questions that are still to fail
}

func (m *mute) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if channel == ":nodes" && m.failures.Add(-1) >= 0 {
		return broker.Appended{}, broker.ErrAway
	}
	return m.Broker.Append(ctx, channel, e)
}

// Bans requests page after page.
func TestManyBans(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var requests []string
		n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			requests = append(requests, string(body))
			_, _ = io.WriteString(w, []string{
				`{"bans":[{"target":"channel:a","reason":"x","since":1700000000,"until":1700086400}],"next":"channel:a"}`,
				`{"bans":[{"target":"user:1","reason":"y","since":1700000001,"until":1700086401}]}`,
			}[len(requests)-1])
		}))
		bans, err := n.client(t, backend.Options{}).Bans(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []string{`{"limit":1000}`, `{"after":"channel:a","limit":1000}`}, requests)
		assert.Equal(t, []backend.Ban{
			{
				Target: "channel:a",
				Reason: "x",
				Since:  time.Unix(1700000000, 0),
				Until:  time.Unix(1700086400, 0),
			},
			{
				Target: "user:1",
				Reason: "y",
				Since:  time.Unix(1700000001, 0),
				Until:  time.Unix(1700086401, 0),
			},
		}, bans)
	})
}
