package backend_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/pushytest"
)

// The Client and the Server have the same results, by the same names.
func TestLists(t *testing.T) {
	onNodes(t, 2, func(t *testing.T, nodes []node) {
		ann, bob := nodes[0].connect("1"), nodes[1].connect("2")
		ann.Subscribe("lobby")
		bob.Subscribe("Lobby")
		ann.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Ann"}))
		api, ctx := nodes[0].api, t.Context()

		channels, err := api.ListChannels(ctx, backend.ChannelQuery{Count: true})
		require.NoError(t, err)
		assert.Equal(t, backend.ChannelList{
			Channels: []backend.ListedChannel{
				{Name: "lobby", Subscribers: 2},
				{Name: "private-room", Subscribers: 1, Presence: true},
			},
			Coverage: backend.Coverage{Nodes: 2},
		}, channels)
		channels, err = api.ListChannels(ctx, backend.ChannelQuery{Prefix: "PRIV"})
		require.NoError(t, err)
		assert.Equal(t, []backend.ListedChannel{{Name: "private-room", Subscribers: -1, Presence: true}}, channels.Channels)
		channels, err = api.ListChannels(ctx, backend.ChannelQuery{Page: backend.Page{Limit: 1}})
		require.NoError(t, err)
		assert.Equal(t, "lobby", channels.Next)
		require.Len(t, channels.Channels, 1)

		members, err := nodes[1].api.ListMembers(ctx, backend.MemberQuery{Channel: "Private-Room"})
		require.NoError(t, err)
		same, err := nodes[0].ListMembers(ctx, pushy.MemberQuery{Channel: "private-room"})
		require.NoError(t, err)
		assert.Equal(t, backend.MemberList{
			Members: []backend.Member{{
				ID:   same.Members[0].ID,
				User: "1",
				JSON: same.Members[0].JSON,
			}},
			Presence: true,
		}, members)

		for _, q := range []backend.ConnQuery{{User: "1"}, {Conn: ann.ID()}, {Channel: "PRIVATE-room"}} {
			conns, err := nodes[1].api.Connections(ctx, q)
			require.NoError(t, err)
			assert.Equal(t, backend.ConnList{
				Conns: []backend.ConnInfo{{
					ID:           ann.ID(),
					User:         "1",
					Node:         nodes[0].Node(),
					Protocol:     "websocket",
					Since:        time.Now(), // fake time has not passed
					Channels:     []string{"lobby", "private-room"},
					ChannelCount: 2,
				}},
				Coverage: backend.Coverage{Nodes: 2},
			}, conns)
		}
		none, err := api.Connections(ctx, backend.ConnQuery{User: "3"})
		require.NoError(t, err)
		assert.Equal(t, backend.ConnList{Coverage: backend.Coverage{Nodes: 2}}, none)
	})
}

// The pages of a list have each item that stays exactly once, while others come and go.
func TestPagesWhileItemsComeAndGo(t *testing.T) {
	const stay = 150
	onNodes(t, 3, func(t *testing.T, nodes []node) {
		var clients []*pushytest.Client
		for i, n := range nodes {
			client := n.connect(fmt.Sprint(i))
			client.Subscribe("private-all", pushytest.Member(map[string]int{"node": i}))
			for k := range stay {
				client.Subscribe(fmt.Sprintf("stay-%03d-%d", k, i))
			}
			clients = append(clients, client)
		}
		seen := map[string]int{}
		count := 0
		for page, err := range nodes[1].api.ChannelPages(t.Context(), backend.ChannelQuery{
			Prefix: "stay-",
			Page:   backend.Page{Limit: 20},
		}) {
			require.NoError(t, err)
			assert.Equal(t, backend.Coverage{Nodes: 3}, page.Coverage)
			assert.LessOrEqual(t, len(page.Channels), 20)
			for _, ch := range page.Channels {
				seen[ch.Name]++
			}
			// Channels come before and after the place at which the next page begins, and go.
			client := clients[count%3]
			for k := 0; k < stay; k += 10 {
				name := fmt.Sprintf("stay-%03d-x%d", k, count)
				client.Subscribe(name)
				if count%2 == 0 {
					require.NoError(t, client.Exec("unsubscribe", map[string]string{"channel": name}, nil))
				}
			}
			count++
		}
		assert.Greater(t, count, 3*stay/20)
		for k := range stay {
			for i := range nodes {
				assert.Equal(t, 1, seen[fmt.Sprintf("stay-%03d-%d", k, i)])
			}
		}
		for name, times := range seen {
			assert.Equal(t, 1, times, name)
		}

		var ids, conns []string
		for page, err := range nodes[2].api.MemberPages(t.Context(), backend.MemberQuery{
			Channel: "private-all",
			Page:    backend.Page{Limit: 1},
		}) {
			require.NoError(t, err)
			for _, m := range page.Members {
				ids = append(ids, m.ID)
			}
			if len(ids) == 1 {
				nodes[0].connect("9").Subscribe("private-all", pushytest.Member(map[string]int{"node": 9}))
			}
		}
		assert.True(t, slices.IsSorted(ids))
		assert.GreaterOrEqual(t, len(ids), 3)
		assert.Len(t, slices.Compact(ids), len(ids))
		for page, err := range nodes[2].api.ConnectionPages(t.Context(), backend.ConnQuery{
			Channel: "private-all",
			Page:    backend.Page{Limit: 2},
		}) {
			require.NoError(t, err)
			for _, c := range page.Conns {
				conns = append(conns, c.ID)
			}
		}
		assert.Len(t, conns, 4)
		assert.True(t, slices.IsSorted(conns))

		pages := 0
		for range nodes[0].api.ChannelPages(t.Context(), backend.ChannelQuery{Page: backend.Page{Limit: 1}}) {
			if pages++; pages == 2 {
				break
			}
		}
		assert.Equal(t, 2, pages)
	})
}

// A node that does not answer is named. One that cannot ask the others returns an error, with what
// it knows, and the outcome of a query is never unknown.
func TestSilentNodes(t *testing.T) {
	onNodes(t, 3, func(t *testing.T, nodes []node) {
		for _, n := range nodes {
			n.connect("42").Subscribe("on-" + n.Node())
		}
		mend := nodes[2].broker.Cut()
		defer mend()
		api, ctx := nodes[0].api, t.Context()
		silent := backend.Coverage{Nodes: 2, Silent: []string{nodes[2].Node()}}
		for _, c := range []struct {
			name string
			call func() (backend.Coverage, int, error)
			want int
		}{
			{"channels", func() (backend.Coverage, int, error) {
				list, err := api.ListChannels(ctx, backend.ChannelQuery{Prefix: "on-"})
				return list.Coverage, len(list.Channels), err
			}, 2},
			{"connections", func() (backend.Coverage, int, error) {
				list, err := api.Connections(ctx, backend.ConnQuery{User: "42"})
				return list.Coverage, len(list.Conns), err
			}, 2},
			{"members", func() (backend.Coverage, int, error) {
				list, err := api.ListMembers(ctx, backend.MemberQuery{Channel: "private-unknown"})
				return backend.Coverage{Nodes: 2, Silent: list.Silent}, len(list.Members), err
			}, 0},
			{"send", func() (backend.Coverage, int, error) {
				sent, err := api.SendUser(ctx, "42", "hello", nil)
				return sent.Coverage, sent.Sent, err
			}, 2},
			{"kick", func() (backend.Coverage, int, error) {
				kicked, err := api.Kick(ctx, backend.Kick{Target: "user:42", Until: time.Now().Add(time.Hour)})
				return kicked.Coverage, kicked.Closed, err
			}, 2},
			{"unban", func() (backend.Coverage, int, error) {
				coverage, lifted, err := api.Unban(ctx, "user:42")
				assert.True(t, lifted)
				return coverage, 0, err
			}, 0},
		} {
			began := time.Now()
			coverage, n, err := c.call()
			require.NoError(t, err, c.name)
			assert.Equal(t, silent, coverage, c.name)
			assert.Equal(t, c.want, n, c.name)
			assert.LessOrEqual(t, time.Since(began), 600*time.Millisecond, c.name)
		}

		list, err := nodes[2].api.ListChannels(ctx, backend.ChannelQuery{Prefix: "on-"})
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.NotErrorIs(t, err, backend.ErrOutcomeUnknown)
		assert.Equal(t, "on-"+nodes[2].Node(), list.Channels[0].Name)
		assert.Equal(t, 1, list.Nodes)
		n := 0
		for page, err := range nodes[2].api.ConnectionPages(ctx, backend.ConnQuery{User: "42"}) {
			require.ErrorIs(t, err, backend.ErrUnavailable)
			assert.Len(t, page.Conns, 1)
			n++
		}
		assert.Equal(t, 1, n, "the loop ends after an error")
	})
}

// The errors of calls name the place, and nothing is done.
func TestCallsAreChecked(t *testing.T) {
	onNodes(t, 1, func(t *testing.T, nodes []node) {
		api, ctx := nodes[0].api, t.Context()
		client := nodes[0].connect("42")
		past := time.Now().Add(-time.Second)
		for _, c := range []struct {
			name string
			call func() error
			says string
			is   error // nil: the Client refuses
		}{
			{"limit", func() error {
				_, err := api.ListChannels(ctx, backend.ChannelQuery{Page: backend.Page{Limit: 1001}})
				return err
			}, "limit: must be 1 to 1000", backend.ErrBadRequest},
			{"negativeLimit", func() error {
				_, err := api.ListMembers(ctx, backend.MemberQuery{Channel: "private-a", Page: backend.Page{Limit: -1}})
				return err
			}, "limit: must be 1 to 1000", backend.ErrBadRequest},
			{"prefix", func() error {
				_, err := api.ListChannels(ctx, backend.ChannelQuery{Prefix: "a:"})
				return err
			}, "prefix: must not contain :", backend.ErrBadRequest},
			{"prefixUTF8", func() error {
				_, err := api.ListChannels(ctx, backend.ChannelQuery{Prefix: "\xff"})
				return err
			}, "channels: prefix: must be valid UTF-8", nil},
			{"publicChannel", func() error {
				_, err := api.ListMembers(ctx, backend.MemberQuery{Channel: "lobby"})
				return err
			}, "channel: is not private", backend.ErrBadRequest},
			{"memberUTF8", func() error {
				_, err := api.ListMembers(ctx, backend.MemberQuery{Channel: "\xff"})
				return err
			}, "members: channel: must be valid UTF-8", nil},
			{"twoOfThree", func() error {
				_, err := api.Connections(ctx, backend.ConnQuery{User: "1", Channel: "a"})
				return err
			}, "user: exactly one of user, conn and channel", backend.ErrBadRequest},
			{"userUTF8", func() error {
				_, err := api.Connections(ctx, backend.ConnQuery{User: "\xff"})
				return err
			}, "connections: user: must be valid UTF-8", nil},
			{"target", func() error {
				_, err := api.Kick(ctx, backend.Kick{Target: "42"})
				return err
			}, `target: must begin with "user:"`, backend.ErrBadRequest},
			{"reason", func() error {
				_, err := api.Kick(ctx, backend.Kick{Target: "user:42", Reason: strings.Repeat("x", 124)})
				return err
			}, "reason: must be valid UTF-8 of at most 123 bytes", backend.ErrBadRequest},
			{"reasonUTF8", func() error {
				_, err := api.Kick(ctx, backend.Kick{Target: "user:42", Reason: "\xff"})
				return err
			}, "kick: reason: must be valid UTF-8", nil},
			{"untilPast", func() error {
				_, err := api.Kick(ctx, backend.Kick{Target: "user:42", Until: past})
				return err
			}, "until: must be in the future", backend.ErrBadRequest},
			{"until1970", func() error {
				_, err := api.Kick(ctx, backend.Kick{Target: "user:42", Until: time.Unix(0, 0)})
				return err
			}, "until: must be in the future", backend.ErrBadRequest},
			{"untilOfAConnection", func() error {
				_, err := api.Kick(ctx, backend.Kick{Target: "conn:" + client.ID(), Until: time.Now().Add(time.Hour)})
				return err
			}, "until: is not allowed for a connection", backend.ErrBadRequest},
			{"kickID", func() error {
				_, err := api.Kick(ctx, backend.Kick{Target: "user:42", ID: "a b"})
				return err
			}, `the id "a b" must be 1 to 64 of`, nil},
			{"unban", func() error {
				_, _, err := api.Unban(ctx, "conn:"+client.ID())
				return err
			}, "target: ", backend.ErrBadRequest},
			{"unbanUTF8", func() error {
				_, _, err := api.Unban(ctx, "user:\xff")
				return err
			}, "unban: target: must be valid UTF-8", nil},
			{"sendToNobody", func() error {
				_, err := api.Send(ctx, backend.Message{Event: "x"})
				return err
			}, "user: exactly one of user and conn", backend.ErrBadRequest},
			{"sendEvent", func() error {
				_, err := api.SendUser(ctx, "42", "pushy:x", nil)
				return err
			}, "event: ", backend.ErrBadRequest},
			{"sendData", func() error {
				_, err := api.SendUser(ctx, "42", "x", func() {})
				return err
			}, "send: data: encode data", nil},
			{"sendUTF8", func() error {
				_, err := api.SendConn(ctx, "\xff", "x", nil)
				return err
			}, "send: conn: must be valid UTF-8", nil},
			{"notKept", func() error {
				_, err := api.History(ctx, "lobby", backend.HistoryOptions{})
				return err
			}, "channel: keeps no events", backend.ErrNotFound},
			{"positionNotKept", func() error {
				_, err := api.Position(ctx, "lobby")
				return err
			}, "channel: keeps no events", backend.ErrNotFound},
			{"bothEnds", func() error {
				_, err := api.History(ctx, "kept", backend.HistoryOptions{Before: 1, After: 1})
				return err
			}, "before: must not be given together with after", backend.ErrBadRequest},
			{"historyLimit", func() error {
				_, err := api.History(ctx, "kept", backend.HistoryOptions{Limit: 501})
				return err
			}, "limit: must be 1 to 500", backend.ErrBadRequest},
			{"historyUTF8", func() error {
				_, err := api.History(ctx, "\xff", backend.HistoryOptions{})
				return err
			}, "history: channel: must be valid UTF-8", nil},
			{"positionUTF8", func() error {
				_, err := api.Position(ctx, "\xff")
				return err
			}, "position: channel: must be valid UTF-8", nil},
		} {
			err := c.call()
			require.ErrorContains(t, err, c.says, c.name)
			assert.NotErrorIs(t, err, backend.ErrOutcomeUnknown, c.name)
			var refused *backend.Error
			assert.Equal(t, c.is != nil, errors.As(err, &refused), c.name)
			if c.is != nil {
				assert.ErrorIs(t, err, c.is, c.name)
			}
		}
		client.ExpectNone("", "x")
		_, err := nodes[0].api.Connections(ctx, backend.ConnQuery{Conn: client.ID()})
		require.NoError(t, err)
	})
}

// A list whose pages do not advance ends with an error.
func TestPagesWithoutAnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"channels":[{"name":"a"}],"next":"a","nodes":1,"silent":[]}`)
		}))
		pages := 0
		for _, err := range n.client(t, backend.Options{}).ChannelPages(t.Context(), backend.ChannelQuery{}) {
			if pages++; pages == 2 {
				require.ErrorContains(t, err, "does not follow the one before")
			} else {
				require.NoError(t, err)
			}
		}
		assert.Equal(t, 2, pages)
	})
}
