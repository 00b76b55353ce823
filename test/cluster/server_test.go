package cluster_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/natstest"
)

// trigger posts a signed trigger.
func (n node) trigger(t testing.TB, channel, body string) *httptest.ResponseRecorder {
	t.Helper()
	now := time.Now().Unix()
	sign, err := pushy.SignTrigger(secretKey, channel, "said", now, []byte(body))
	require.NoError(t, err)
	r := httptest.NewRequest(http.MethodPost, "/pushy/channel/"+channel+"/trigger?event=said&timestamp="+
		strconv.FormatInt(now, 10)+"&auth_key="+sign, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	n.srv.ServeHTTP(w, r)
	return w
}

// A node that starts while its store is away serves its own clients. When the store can be
// reached, all nodes have all members.
func TestAwayAtStart(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		const room, news = "private-room", "news"
		s.failing().server.Stop()
		j := newJudge(t)
		j.lossy = true
		alone := s.start(t, 1)[0]
		require.Error(t, alone.srv.Stats().Away)
		early := connectAll(t, j, 3, "early", alone.url, room, news)
		agree(t, patience, early, room)
		settleNews(t, j, []node{alone}, early, news)
		require.Error(t, alone.srv.Stats().Away)

		require.NoError(t, s.server.Restart())
		soon(t, patience, "the node has its store", func() bool { return alone.srv.Stats().Away == nil })
		other := s.start(t, 1)[0]
		soon(t, patience, "the other has it, too", func() bool { return other.srv.Stats().Away == nil })
		all := append(early, connectAll(t, j, 3, "late", other.url, room, news)...)
		agree(t, patience, all, room)
		settleNews(t, j, []node{alone, other}, all, news)
		for _, c := range early {
			c.mu.Lock()
			assert.NotZero(t, c.subscriptions[news].resyncs, c.name)
			assert.NotZero(t, c.subscriptions[room].resyncs, c.name)
			c.mu.Unlock()
		}
		j.verdict()
	})
}

// The store accepts requests and does not answer. The trigger in progress is answered with 503
// and can be sent again. The node notices, and serves its own clients until the store answers.
func TestStoreIsSilent(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		n := s.failing().start(t, 1)[0]
		soon(t, patience, "the node has its store", func() bool { return n.srv.Stats().Away == nil })
		require.Less(t, n.trigger(t, "news", `{"n":1}`).Code, 300)
		require.NoError(t, s.server.Pause())
		var answer *httptest.ResponseRecorder
		// A process can answer once more after it was sent SIGSTOP.
		soon(t, patience, "a trigger fails", func() bool {
			answer = n.trigger(t, "news", `{"n":2}`)
			return answer.Code >= 300
		})
		assert.Equal(t, http.StatusServiceUnavailable, answer.Code, answer.Body)
		assert.NotEmpty(t, answer.Header().Get("Retry-After"))
		soon(t, patience, "the node notices", func() bool { return n.srv.Stats().Away != nil })
		soon(t, patience, "it serves its own clients", func() bool { return n.trigger(t, "news", `{"n":3}`).Code < 300 })
		require.NoError(t, s.server.Resume())
		soon(t, patience, "it is back", func() bool {
			return n.srv.Stats().Away == nil && n.trigger(t, "news", `{"n":4}`).Code < 300
		})
	})
}

// An event over max_payload of NATS fails with ErrTooLarge, a trigger for it is answered with
// 413, and a member with such data is refused.
func TestTooLargeForNATS(t *testing.T) {
	t.Parallel()
	server, err := natstest.StartConfigured("max_payload: 4096\n")
	require.NoError(t, err)
	t.Cleanup(server.Close)
	n := newStore(t, "nats", server, server.Addr).start(t, 1)[0]
	require.Less(t, n.trigger(t, "news", `{"n":1}`).Code, 300)
	large := strings.Repeat("x", 5000)
	require.ErrorIs(t, n.srv.Publish(t.Context(), "news", "said", large), broker.ErrTooLarge)
	assert.Equal(t, http.StatusRequestEntityTooLarge, n.trigger(t, "news", `{"x":"`+large+`"}`).Code)
	c := newMember(newJudge(t), strings.Repeat("n", 4000), "websocket")
	require.NoError(t, c.connect(n.url))
	assert.Contains(t, c.join("private-room"), "pushy:subscription-failed Presence data too large")
	c.name = "small"
	assert.Equal(t, "pushy:subscription-success", c.join("private-room"))
	assert.Equal(t, []string{c.in()["private-room"]}, c.list("private-room"))
	c.leave()
}

// If another program overwrites the key of a channel's members, clients can still join and
// leave, and the members that were in the channel join again.
func TestForeignKeyInPlaceOfMembers(t *testing.T) {
	t.Parallel()
	for name, command := range map[string][]string{
		"string":    {"SET", "KEY", "\xff\x00"},
		"list":      {"LPUSH", "KEY", "x"},
		"sortedSet": {"ZADD", "KEY", "1", "x"},
		"hash":      {"HSET", "KEY", "x", "y"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const room = "private-room"
			s := startRedis(t)
			s.Lease = killedLease
			key := "{" + s.Prefix + "}1:m:" + room
			overwrite := func() {
				for _, c := range [][]string{{"DEL", key}, append([]string{command[0], key}, command[2:]...)} {
					answer, err := s.redis(t).Command(c...)
					require.NoError(t, err)
					require.NotContains(t, answer, "ERR")
				}
			}
			overwrite()
			nodes := s.start(t, 2)
			j := newJudge(t)
			j.lossy = true
			all := connectAll(t, j, 2, "ann", nodes[0].url, room)
			agree(t, patience, all, room)
			overwrite()
			all = append(all, connectAll(t, j, 2, "bob", nodes[1].url, room)...)
			agree(t, patience, all, room)
			overwrite()
			for _, c := range all[1:] {
				assert.Equal(t, "pushy:subscription-end", c.ask("unsubscribe", room, ""))
			}
			soon(t, patience, "one member is left", func() bool {
				return slices.Equal(all[0].list(room), memberIDs(all[:1], room)) && len(nodes[1].ids(room)) == 0
			})
			j.verdict()
		})
	}
}
