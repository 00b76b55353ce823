package pusher_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/pushytest"
)

type presence struct {
	Presence struct {
		IDs   []string
		Hash  map[string]json.RawMessage
		Count int
	}
}

// list joins a presence channel as a user, and returns the list.
func (p *peer) list(channel, data string) (list presence) {
	p.t.Helper()
	require.NoError(p.t, json.Unmarshal([]byte(p.join(channel, data)), &list))
	assert.Equal(p.t, len(list.Presence.IDs), list.Presence.Count)
	assert.Len(p.t, list.Presence.Hash, list.Presence.Count)
	return list
}

// joined and left receive the event of a member, and return its user_id.
func (p *peer) joined() (id, info string) {
	p.t.Helper()
	return p.memberEvent("pusher_internal:member_added")
}

func (p *peer) left() string {
	p.t.Helper()
	id, info := p.memberEvent("pusher_internal:member_removed")
	assert.Empty(p.t, info)
	return id
}

func (p *peer) memberEvent(event string) (id, info string) {
	p.t.Helper()
	var m struct {
		UserID   string          `json:"user_id"`
		UserInfo json.RawMessage `json:"user_info"`
	}
	require.NoError(p.t, json.Unmarshal([]byte(p.expect(event).content(p.t)), &m))
	return m.UserID, string(m.UserInfo)
}

func TestPresence(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	a := n.dial()
	list := a.list("presence-room", channelData("1"))
	assert.Equal(t, []string{"1"}, list.Presence.IDs)
	assert.JSONEq(t, `{"name":"N1"}`, string(list.Presence.Hash["1"]))
	b := n.dial()
	list = b.list("presence-room", `{"user_id":2}`) // an integer, without user_info
	assert.Equal(t, []string{"1", "2"}, list.Presence.IDs)
	assert.JSONEq(t, `{}`, string(list.Presence.Hash["2"]), "clients lose members without a value")
	id, info := a.joined()
	assert.Equal(t, "2", id)
	assert.Equal(t, "{}", info)
	// Again, and another connection of the same user: nothing for the others.
	assert.Contains(t, b.join("presence-room", `{"user_id":2}`), `"count":2`)
	c := n.dial()
	list = c.list("presence-room", `{"user_id":"2","user_info":{"tab":2}}`)
	assert.Equal(t, 2, list.Presence.Count)
	assert.JSONEq(t, `{}`, string(list.Presence.Hash["2"]), "user_info is that of the first connection")
	for _, p := range []*peer{a, b, c} {
		p.sync()
	}
	// The first connection of the user leaves: the user stays.
	b.send("pusher:unsubscribe", "", map[string]any{"channel": "presence-room"})
	b.sync()
	a.sync()
	c.leave()
	assert.Equal(t, "2", a.left())
	b.sync()
}

// laravel/reverb#213, beyondcode/laravel-websockets#297 and #362: one member_added with a user's first
// connection and one member_removed with the last, whatever the order of closing.
func TestUsersInAnyOrder(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			cluster := memory.NewCluster(memory.Options{Logger: slog.New(slog.DiscardHandler)})
			var nodes []*node
			for range 3 {
				nodes = append(nodes, serve(t, pushy.Options{Broker: cluster.Broker()}))
			}
			watch := nodes[0].dial()
			watch.list("presence-room", channelData("w"))
			var tabs []*peer
			for i, n := range nodes {
				tab := n.dial()
				list := tab.list("presence-room", channelData("u"))
				assert.Equal(t, 2, list.Presence.Count, "laravel/reverb#273: the members of all nodes")
				tabs = append(tabs, tab)
				if i == 0 {
					id, _ := watch.joined()
					assert.Equal(t, "u", id)
				}
			}
			watch.sync()
			for i, at := range order {
				watch.sync()
				tabs[at].leave()
				if i == 2 {
					assert.Equal(t, "u", watch.left())
				}
			}
			watch.sync()
		})
	}
}

// A client that loses its connection, or whose page is reloaded, does not leave if it returns in time.
func TestReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := serve(t, pushy.Options{})
		watch := n.dial()
		watch.list("presence-room", channelData("w"))
		tab := n.dial()
		tab.list("presence-room", channelData("u"))
		watch.joined()
		_ = tab.conn.Close()
		time.Sleep(5 * time.Second)
		watch.sync()
		tab = n.dial()
		tab.list("presence-room", channelData("u"))
		go answerPings(tab)
		for range 6 {
			time.Sleep(10 * time.Second) // longer than Options.Grace
			watch.sync()
		}
		_ = tab.conn.Close()
		began := time.Now()
		assert.Equal(t, "u", watch.left())
		assert.InDelta(t, 15, time.Since(began).Seconds(), 1)
	})
}

// answerPings reads until the connection ends.
func answerPings(p *peer) {
	for {
		f, err := p.frame()
		if err != nil {
			return
		}
		if f.Header.OpCode == ws.OpPing {
			p.write(ws.NewPongFrame(f.Payload))
		}
	}
}

func TestPresenceCredentials(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	c := n.dial()
	for _, data := range []string{
		``, `x`, `[]`, `5`, `{}`, `{"user_id":null}`, `{"user_id":""}`, `{"user_id":1.5}`, `{"user_id":true}`, `{"user_id":[1]}`,
		`{"user_id":1e3}`, `{"user_info":{}}`, `{"user_id":"` + strings.Repeat("x", 129) + `"}`,
	} {
		status, _ := c.refused(map[string]any{
			"channel": "presence-x", "channel_data": data, "auth": sign(c.id + ":presence-x:" + data),
		})
		assert.Equal(t, 401, status, data)
	}
	for _, odd := range []map[string]any{
		{"channel": "presence-x"},
		{"channel": "presence-x", "channel_data": channelData("1")},
		{"channel": "presence-x", "auth": sign(c.id + ":presence-x")},
		{"channel": "presence-x", "auth": sign(c.id + ":presence-x:" + channelData("1")), "channel_data": channelData("2")},
		{"channel": "presence-x", "auth": sign(c.id + ":presence-x"), "channel_data": channelData("2")},
		{"channel": "presence-x", "auth": sign(c.id + ":presence-x:5"), "channel_data": 5},
	} {
		status, _ := c.refused(odd)
		assert.Equal(t, 401, status, odd)
	}
	c.list("presence-x", `{"user_id":"1","user_info":"text"}`)
}

// Pushy's own clients and Pusher clients see each other.
func TestPresenceOfBothProtocols(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	kit := pushytest.New(t, n.srv)
	own := kit.Connect()
	own.Subscribe("presence-room", pushytest.Member(map[string]any{"user": "9", "name": "Zoe"}))
	c := n.dial()
	list := c.list("presence-room", channelData("1"))
	assert.Equal(t, []string{"9", "1"}, list.Presence.IDs)
	assert.JSONEq(t, `{"name":"Zoe"}`, string(list.Presence.Hash["9"]))
	var add struct{ Member map[string]any }
	own.ExpectEvent("presence-room", "pushy:presence-add", &add)
	assert.Equal(t, "1", add.Member["user"])
	assert.Equal(t, map[string]any{"name": "N1"}, add.Member["user_info"])
	kit.Connect().Subscribe("presence-room")
	id, info := c.joined()
	assert.Len(t, id, 32, "its memberId")
	assert.Equal(t, "{}", info)
}
