package pushy_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

// The list in pushy:subscription-success is rendered from texts that the server keeps for the next
// newcomer. Whatever has changed in between, and in each form of a message, it is the list that
// pushy:members has.
func TestListsOfNewcomers(t *testing.T) {
	t.Parallel()
	for _, perUser := range []bool{false, true} {
		t.Run(fmt.Sprintf("perUser=%t", perUser), func(t *testing.T) {
			t.Parallel()
			o := presence(pushy.PresenceOptions{PerUser: perUser})
			o.SecretKey = peerKey
			o.Limits = pushy.Limits{CommandRate: -1, JoinRate: -1}
			c := newCluster()
			o.Broker = c.Broker()
			srv, base := serve(t, o)
			first := connectPeer(t, srv)
			first.send(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-room","auth":%q,"presence":{"mode":"none"}}}`,
				ownToken(first.id, "private-room", "")))
			require.Equal(t, "pushy:subscription-success", first.next().Event)
			framed, bare := dial(t, base, true), dial(t, base, false)
			others := &otherNode{
				guest: newGuest(t, c),
				r:     rand.New(rand.NewPCG(1, 2)),
			}
			for round := range 72 {
				others.change(round/18%2 == 0)
				for i, newcomer := range []func() (list, members json.RawMessage){
					func() (list, members json.RawMessage) {
						return newcomerLists(t, framed.id, framed.Send, framed.Receive)
					},
					func() (list, members json.RawMessage) { return newcomerLists(t, bare.id, bare.Send, bare.Receive) },
				} {
					list, members := newcomer()
					require.Equal(t, string(members), string(list), "round %d, newcomer %d", round, i)
				}
			}
			require.Greater(t, others.most, 64)
		})
	}
}

// otherNode are members of another node.
type otherNode struct {
	guest
	r    *rand.Rand
	ids  []string
	n    int // the number of the last one
	most int
}

// change lets some members join, leave and change. While it grows, more of them join than leave.
func (c *otherNode) change(grows bool) {
	for range c.r.IntN(12) {
		joins := 2
		if grows {
			joins = 7
		}
		var e broker.Entry
		switch i := c.r.IntN(10); {
		case i < joins || len(c.ids) == 0:
			c.n++
			e = broker.Entry{
				Kind:   broker.Join,
				Member: fmt.Sprint("m", c.n),
				User:   fmt.Sprint("u", c.r.IntN(200)),
			}
			c.ids = append(c.ids, e.Member)
			c.most = max(c.most, len(c.ids))
		case i < 8:
			e.Kind = broker.Leave
			at := c.r.IntN(len(c.ids))
			e.Member = c.ids[at]
			c.ids = slices.Delete(c.ids, at, at+1)
		default:
			e.Kind = broker.Update
			e.Member = c.ids[c.r.IntN(len(c.ids))]
			e.State = json.RawMessage(fmt.Sprintf(`{"state":{"n":%d},"at":%d}`, c.r.IntN(9), c.r.IntN(1000)))
		}
		e.Owner = "guest"
		e.Joined = time.UnixMilli(1)
		if e.Kind != broker.Leave {
			e.Data = json.RawMessage(fmt.Sprintf(`{"name":"\"%s\" \u2028é"}`, e.Member))
		}
		_, err := c.Append(c.t.Context(), "private-room", e)
		require.NoError(c.t, err)
	}
}

// newcomerLists lets a client join and leave. It returns the members as the answer to the join has
// them, and as pushy:members has them.
func newcomerLists(t *testing.T, id string, send func(string), receive func() string) (list, members json.RawMessage) {
	t.Helper()
	send(subscribeText(t, id, "private-room", `{"name":"new"}`))
	var success struct {
		Event string
		Data  struct{ Presence json.RawMessage }
	}
	text := receive()
	require.NoError(t, json.Unmarshal([]byte(text), &success))
	require.Equal(t, "pushy:subscription-success", success.Event, text)
	send(`{"command":"pushy:members","id":1,"data":{"channel":"private-room","limit":500}}`)
	var page struct {
		Data struct {
			Data struct {
				List json.RawMessage
				Next *string
			}
		}
	}
	text = receive()
	require.NoError(t, json.Unmarshal([]byte(text), &page))
	require.NotEmpty(t, page.Data.Data.List, text)
	require.Nil(t, page.Data.Data.Next)
	send(`{"command":"unsubscribe","data":{"channel":"private-room"}}`)
	require.Contains(t, receive(), "pushy:subscription-end")
	// The answer to the next command comes after the leave, which nobody else receives then.
	send(`{"command":"is-anything-there"}`)
	require.Contains(t, receive(), "Unknown command")
	return success.Data.Presence, page.Data.Data.List
}
