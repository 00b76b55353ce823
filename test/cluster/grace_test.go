package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/storetest"
)

// member returns the client's member id in a channel, and whether the last success has given
// it back its membership.
func (c *resumer) member(channel string) (id string, resumed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.channels[channel]
	return ch.memberID, ch.again
}

// heard returns the presence events that the client has received since the last call.
func (c *resumer) heard(channel string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.channels[channel]
	events := ch.presence
	ch.presence = nil
	return events
}

// sees waits until the client's list of members has exactly these ids.
func (c *resumer) sees(channel string, ids []string) {
	c.t.Helper()
	want := slices.Sorted(slices.Values(ids))
	if !c.await(func() bool {
		return slices.Equal(want, slices.Sorted(slices.Values(c.channels[channel].list)))
	}) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.t.Errorf("%s: the members of %s are %d and should be %d", c.name, channel, len(c.channels[channel].list), len(want))
	}
}

// A node with 300 members, or 1,000 in long runs, is killed with kill -9. Nine tenths of them
// return to other nodes within the grace period, with their keys. Nobody hears of these. The
// others leave when the grace period is over. (Acceptance test 22)
func TestNodeOfManyMembersIsKilled(t *testing.T) {
	t.Parallel()
	const rooms = 10
	on(t, everyStore, func(t *testing.T, s *store) {
		each := 30
		s.Lease = 15 * time.Second
		within := 2 * time.Second
		if strict {
			each = 100
			within = 10 * time.Second
		}
		lost := each / 10
		nodes := s.start(t, 2)
		killed := s.child(t)
		r := rand.New(rand.NewPCG(22, 22))
		var watchers []*resumer
		members := map[string][]*resumer{}
		var all sync.WaitGroup
		for i := range rooms {
			room := fmt.Sprint("private-room-", i)
			for k, n := range nodes {
				watchers = append(watchers, logs{}.enter(t, n, fmt.Sprint("watcher", k), room))
			}
			for k := range each {
				c := newResumer(t, fmt.Sprint("member", k)).follow(nil, room)
				members[room] = append(members[room], c)
			}
			all.Go(func() {
				for _, c := range members[room] {
					assert.NoError(t, c.connect(killed.url))
				}
			})
		}
		all.Wait()
		ids := map[string][]string{}     // of all members of a room
		staying := map[string][]string{} // of those that return, and the watchers
		roomOf := func(watcher int) string { return fmt.Sprint("private-room-", watcher/len(nodes)) }
		for i, c := range watchers {
			id, _ := c.member(roomOf(i))
			ids[roomOf(i)] = append(ids[roomOf(i)], id)
			staying[roomOf(i)] = append(staying[roomOf(i)], id)
		}
		for room, clients := range members {
			for k, c := range clients {
				id, _ := c.member(room)
				ids[room] = append(ids[room], id)
				if k >= lost {
					staying[room] = append(staying[room], id)
				}
			}
		}
		for i, c := range watchers {
			c.sees(roomOf(i), ids[roomOf(i)])
			c.heard(roomOf(i))
		}

		began := time.Now()
		killed.kill()
		for room, clients := range members {
			for k, c := range clients {
				c.drop()
				if k < lost {
					continue
				}
				after := time.Duration(r.Int64N(int64(within)))
				to := nodes[k%len(nodes)]
				all.Go(func() {
					<-time.After(after)
					before, _ := c.member(room)
					assert.NoError(t, c.connect(to.url))
					id, resumed := c.member(room)
					assert.True(t, resumed)
					assert.Equal(t, before, id)
				})
			}
		}
		all.Wait()
		t.Logf("%d members were back after %v", rooms*(each-lost), time.Since(began).Round(time.Millisecond))
		for i, c := range watchers {
			c.sees(roomOf(i), staying[roomOf(i)])
		}
		t.Logf("%d members had left after %v, with a grace period of %v", rooms*lost, time.Since(began).Round(time.Millisecond), s.Lease)
		for i, c := range watchers {
			room := roomOf(i)
			events := c.heard(room)
			assert.Len(t, events, lost, "%s on node %d", room, i%len(nodes))
			for _, e := range events {
				id, quit := strings.CutPrefix(e, "quit ")
				assert.True(t, quit && !slices.Contains(staying[room], id), "%s in %s", e, room)
			}
			c.verdict()
		}
		for room, clients := range members {
			for _, c := range clients[lost:] {
				c.sees(room, staying[room])
				c.verdict()
			}
		}
	})
}

// A client's network is cut, so that its node does not know that the connection is lost. The
// client returns to a second node, and then to a third one, with its key. It is one member in
// all lists all the time, and nobody hears of it until it leaves for good. (Acceptance test 20)
func TestHalfOpenConnectionsOnThreeNodes(t *testing.T) {
	t.Parallel()
	const room = "private-room"
	on(t, everyStore, func(t *testing.T, s *store) {
		s.Lease = killedLease
		nodes := s.start(t, 3)
		var ids []string
		var watchers []*resumer
		for i, n := range nodes {
			w := logs{}.enter(t, n, fmt.Sprint("watcher", i), room)
			watchers = append(watchers, w)
			id, _ := w.member(room)
			ids = append(ids, id)
		}
		var proxies []*storetest.Proxy
		for _, n := range nodes {
			p, err := storetest.NewProxy(strings.TrimPrefix(n.url, "http://"))
			require.NoError(t, err)
			t.Cleanup(p.Close)
			proxies = append(proxies, p)
		}
		bob := newResumer(t, "bob").follow(nil, room)
		require.NoError(t, bob.connect("http://"+proxies[0].Addr))
		id, _ := bob.member(room)
		ids = append(ids, id)
		for _, w := range watchers {
			w.sees(room, ids)
			w.heard(room)
		}
		for i := 1; i <= 5; i++ {
			proxies[(i-1)%3].Cut()
			require.NoError(t, bob.connect("http://"+proxies[i%3].Addr))
			now, resumed := bob.member(room)
			assert.True(t, resumed)
			assert.Equal(t, id, now)
			bob.sees(room, ids)
			for k, n := range nodes {
				soon(t, patience, "the node has the member once", func() bool {
					return slices.Equal(slices.Sorted(slices.Values(ids)), slices.Sorted(slices.Values(n.ids(room))))
				})
				watchers[k].sees(room, ids)
			}
			proxies[(i-1)%3].Mend() // now the node notices
		}
		<-time.After(s.Lease + time.Second) // the connections that were replaced have no grace period
		for _, w := range watchers {
			assert.Empty(t, w.heard(room))
			w.sees(room, ids)
		}
		require.NoError(t, bob.link.send(`{"command":"unsubscribe","data":{"channel":"`+room+`"}}`))
		for _, w := range watchers {
			w.sees(room, ids[:len(nodes)])
			assert.Equal(t, []string{"quit " + id}, w.heard(room))
			w.verdict()
		}
		bob.verdict()
	})
}
