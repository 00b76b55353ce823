package cluster_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/redistest"
)

const keptNews = "kept-news"

// probes is how soon lost messages must be found: two of the intervals at which nodes compare
// their channels with the store, which is "every 10 s" at most.
const probes = 20 * time.Second

// arrives checks that all clients receive everything up to a position.
func arrives(t testing.TB, channel string, at broker.Position, clients ...*resumer) {
	t.Helper()
	for _, c := range clients {
		if !c.has(channel, at) {
			c.mu.Lock()
			t.Errorf("%s has %s and not %s", c.name, c.channels[channel].kept.At, at)
			c.mu.Unlock()
		}
		c.verdict()
	}
}

// A replica that lacks three acknowledged events becomes the primary, by Sentinel. No client
// that resumes is told that it has everything: the reason is "restarted" for all of them,
// whether they have the lost events or not, and on every node. Clients that are connected get
// a pushy:resync with that reason. (Acceptance test 8)
func TestPromotedReplicaLacksEvents(t *testing.T) {
	t.Parallel()
	primary, err := redistest.Start()
	require.NoError(t, err)
	t.Cleanup(primary.Close)
	host, port, _ := net.SplitHostPort(primary.Addr)
	replica, err := redistest.Start("--replicaof", host, port)
	require.NoError(t, err)
	t.Cleanup(replica.Close)
	sentinel, err := redistest.Sentinel(primary)
	require.NoError(t, err)
	t.Cleanup(sentinel.Close)
	soon(t, patience, "the Sentinel knows the replica", func() bool {
		info, err := sentinel.Command("INFO", "sentinel")
		return err == nil && strings.Contains(info, "slaves=1")
	})
	s := newStore(t, "redis-sentinel", nil, sentinel.Addr).failing()
	nodes := s.start(t, 2)
	all := logs{}
	early := all.enter(t, nodes[0], "early", keptNews)
	behind := all.enter(t, nodes[1], "behind", keptNews)
	early.drop() // at offset 0
	at := all.publish(t, nodes[0], keptNews, 1, 5)
	arrives(t, keptNews, at, behind)
	behind.drop() // the replica has all that it has
	soon(t, patience, "the replica has the events", func() bool {
		n, err := replica.Command("LLEN", "{"+s.Prefix+"}1:k:"+keptNews)
		return err == nil && n == ":5"
	})
	command(t, primary, "ACL", "SETUSER", "default", "-psync", "-sync", "-replconf")
	command(t, primary, "CLIENT", "KILL", "TYPE", "replica")
	current := all.enter(t, nodes[0], "current", keptNews)
	live := []*resumer{
		all.enter(t, nodes[0], "live0", keptNews),
		all.enter(t, nodes[1], "live1", keptNews),
	}
	at = all.publish(t, nodes[1], keptNews, 6, 8)
	arrives(t, keptNews, at, current, live[0], live[1])
	current.drop() // it has the events that will be lost
	primary.Stop()
	for _, c := range live {
		require.True(t, c.await(func() bool { return len(c.channels[keptNews].kept.Breaks) > 0 }))
		assert.Equal(t, []string{"restarted"}, c.breaks(keptNews), c.name)
	}
	require.Equal(t, ":5", command(t, replica, "LLEN", "{"+s.Prefix+"}1:k:"+keptNews), "three events are lost")
	soon(t, patience, "both nodes are back", func() bool {
		return nodes[0].srv.Stats().Away == nil && nodes[1].srv.Stats().Away == nil
	})
	fresh := s.start(t, 1)[0] // a node that has known no other primary
	places := map[*resumer]broker.Position{}
	for _, c := range []*resumer{early, behind, current} {
		places[c] = *c.channels[keptNews].kept.At
	}
	for _, n := range append(nodes, fresh) {
		for c, place := range places {
			c.channels[keptNews].kept.At = &place
			c.channels[keptNews].kept.Breaks = nil
			require.NoError(t, c.connect(n.url))
			assert.Equal(t, []string{"restarted"}, c.breaks(keptNews), c.name)
			c.drop()
		}
	}
	for i, c := range []*resumer{early, behind, current} {
		require.NoError(t, c.connect(append(nodes, fresh)[i].url), "with the new position")
	}
	at = all.publish(t, nodes[0], keptNews, 9, 12)
	arrives(t, keptNews, at, append(live, early, behind, current)...)
	for _, c := range live {
		assert.Len(t, c.breaks(keptNews), 1, c.name)
	}
}

func command(t testing.TB, s *redistest.Server, args ...string) string {
	t.Helper()
	answer, err := s.Command(args...)
	require.NoError(t, err)
	require.False(t, strings.HasPrefix(answer, "-"), "%v: %s", args, answer)
	return answer
}

// deaf returns a store of Redis with two nodes, the first of which is connected through a
// Dropper.
func deaf(t testing.TB) (*store, *redistest.Dropper, []node) {
	t.Helper()
	s := startRedis(t)
	d, err := redistest.NewDropper(s.Addresses[0])
	require.NoError(t, err)
	t.Cleanup(d.Close)
	direct := s.Addresses
	s.Addresses = []string{d.Addr}
	nodes := s.start(t, 1)
	s.Addresses = direct
	return s, d, append(nodes, s.start(t, 1)...)
}

// The connection with a node's subscriptions stays open, but messages do not arrive on it. The
// node finds the missing events within two intervals and reads them from the log: its clients
// receive every event once, in order, and no pushy:resync. In channels that keep nothing they
// receive a pushy:resync, and the right list of members. (Acceptance test 9)
func TestSubscriptionIsDeaf(t *testing.T) {
	t.Parallel()
	const room = "private-room"
	_, d, nodes := deaf(t)
	all := logs{}
	c := all.enter(t, nodes[0], "deaf", keptNews, "news", room)
	other := all.enter(t, nodes[1], "other", keptNews, "news")
	at := all.publish(t, nodes[1], keptNews, 1, 3)
	arrives(t, keptNews, at, c, other)
	d.Drop(true)
	began := time.Now()
	at = all.publish(t, nodes[1], keptNews, 4, 23)
	require.NoError(t, nodes[1].srv.Publish(t.Context(), "news", "n", 1))
	late := all.enter(t, nodes[1], "late", room)
	arrives(t, keptNews, at, other)
	arrives(t, keptNews, at, c)
	took := time.Since(began)
	t.Logf("20 events were healed after %v; %d messages were dropped", took.Round(time.Millisecond), d.Dropped())
	if strict {
		assert.Less(t, took, probes)
	}
	assert.GreaterOrEqual(t, d.Dropped(), 20)
	first, _ := c.member(room)
	second, _ := late.member(room)
	c.sees(room, []string{first, second})
	assert.True(t, c.await(func() bool { return len(c.channels["news"].resyncs) == 1 }))
	t.Logf("the others were told after %v", time.Since(began).Round(time.Millisecond))
	at = all.publish(t, nodes[1], keptNews, 24, 24)
	arrives(t, keptNews, at, c, other) // messages are still dropped
	d.Drop(false)
	at = all.publish(t, nodes[0], keptNews, 25, 30)
	arrives(t, keptNews, at, c, other)
	assert.Empty(t, c.breaks(keptNews))
	late.verdict()
}

// A node's subscriptions are killed between the publish and the delivery of the last event of
// a quiet channel. The event arrives within 10 s, and no pushy:resync. (Acceptance test 10)
func TestSubscriptionIsKilledBeforeTheLastEvent(t *testing.T) {
	t.Parallel()
	s, d, nodes := deaf(t)
	all := logs{}
	c := all.enter(t, nodes[0], "killed", keptNews)
	other := all.enter(t, nodes[1], "other", keptNews)
	at := all.publish(t, nodes[1], keptNews, 1, 3)
	arrives(t, keptNews, at, c, other)
	for i := 4; i <= 5; i++ { // a third heal within a minute is the last one
		soon(t, patience, "both nodes have subscribed again", func() bool {
			subscribers, err := s.redis(t).Command("EVAL", "return redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2]", "0",
				"{"+s.Prefix+"}1:c:"+keptNews)
			return err == nil && subscribers == ":2" &&
				nodes[0].srv.Stats().Away == nil && nodes[1].srv.Stats().Away == nil
		})
		before := d.Dropped()
		d.Drop(true) // so that the event is not delivered before the connection is killed
		began := time.Now()
		at = all.publish(t, nodes[1], keptNews, i, i)
		soon(t, patience, "the event is lost", func() bool { return d.Dropped() > before })
		require.NotEqual(t, ":0", command(t, s.redis(t), "CLIENT", "KILL", "TYPE", "pubsub"))
		d.Drop(false)
		arrives(t, keptNews, at, c, other)
		took := time.Since(began)
		t.Logf("the last event arrived after %v", took.Round(time.Millisecond))
		if strict {
			assert.Less(t, took, 10*time.Second)
		}
	}
	assert.Empty(t, c.breaks(keptNews))
	assert.Empty(t, other.breaks(keptNews))
}

// A node with 1,000 channels that keep events loses the store for a while. Its clients receive
// the missing events in order and no pushy:resync, except in channels that keep nothing.
// (Acceptance test 11)
func TestThousandKeptChannelsAfterAnOutage(t *testing.T) {
	t.Parallel()
	const clients, each = 20, 50
	on(t, everyStore, func(t *testing.T, s *store) {
		s.proxied = true
		s.Timeout = 10 * time.Second
		nodes := s.start(t, 2)
		all := logs{}
		var channels []string
		var far []*resumer
		for range clients {
			names := []string{"news"}
			for range each {
				names = append(names, fmt.Sprint("kept-", len(channels)))
				channels = append(channels, names[len(names)-1])
			}
			far = append(far, all.enter(t, nodes[0], "far", names...))
		}
		near := all.enter(t, nodes[1], "near", "news", channels[0])
		place := map[string]broker.Position{}
		for _, name := range channels {
			place[name] = all.publish(t, nodes[1], name, 1, 1)
		}
		for i, name := range channels {
			arrives(t, name, place[name], far[i/each])
		}

		s.proxies[0].Refuse()
		soon(t, patience, "the node notices", func() bool { return nodes[0].srv.Stats().Away != nil })
		for i, name := range channels {
			place[name] = all.publish(t, nodes[1], name, 2, 2+i%3)
		}
		require.NoError(t, nodes[1].srv.Publish(t.Context(), "news", "n", 1))
		s.proxies[0].Mend()
		began := time.Now()
		for i, name := range channels {
			arrives(t, name, place[name], far[i/each])
		}
		t.Logf("the clients of 1,000 channels had everything after %v", time.Since(began).Round(time.Millisecond))
		arrives(t, channels[0], place[channels[0]], near)
		for i, name := range channels {
			assert.Empty(t, far[i/each].breaks(name), name)
		}
		for _, c := range far {
			assert.True(t, c.await(func() bool { return len(c.channels["news"].resyncs) > 0 }))
		}
		require.NoError(t, nodes[1].srv.Publish(t.Context(), "news", "n", 2))
		for _, c := range append(far, near) {
			assert.True(t, c.await(func() bool {
				ch := c.channels["news"]
				return len(ch.events) > 0 && ch.events[len(ch.events)-1] == "2"
			}))
			c.mu.Lock()
			resyncs := 1
			if c == near {
				resyncs = 0
			}
			assert.Len(t, c.channels["news"].resyncs, resyncs)
			c.mu.Unlock()
			c.verdict()
		}
	})
}

// A client that has the event before the oldest one that is kept recovers everything, and one
// that has an event less is told "trimmed". When all events have expired, a client that has the
// last one still recovers, after a long time without events, and one that has not is told
// "expired". All this is so on a node that has known the channel all the time and on one that
// opens it. On NATS it holds because the last event of a channel is stored for two days at
// least. (Acceptance tests 2 and 3)
func TestEdgesOfTheLog(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		nodes := s.start(t, 2)
		all := logs{}
		resume := func(n node, channel string, at broker.Position) (*resumer, []string) {
			t.Helper()
			c := newResumer(t, fmt.Sprint("from", at.Offset)).follow(all, channel)
			c.channels[channel].kept.At = &at
			require.NoError(t, c.connect(n.url))
			return c, c.breaks(channel)
		}

		const few = "few-kept"
		live := all.enter(t, nodes[0], "live", few)
		last := all.publish(t, nodes[0], few, 1, 10)
		arrives(t, few, last, live) // until then, the node has older events than the log
		for _, n := range nodes {
			edge, breaks := resume(n, few, back(last, keepFew.Size))
			assert.Empty(t, breaks)
			_, breaks = resume(n, few, back(last, keepFew.Size+1))
			assert.Equal(t, []string{"trimmed"}, breaks)
			arrives(t, few, last, edge, live)
		}
		assert.Empty(t, live.breaks(few))

		const short = "short-kept"
		live = all.enter(t, nodes[0], "live", short)
		last = all.publish(t, nodes[0], short, 1, 10)
		arrives(t, short, last, live)
		idle := keepShort.TTL * 3 / 2
		if strict {
			idle = 10 * keepShort.TTL
		}
		for _, n := range append(nodes, s.start(t, 1)...) {
			<-time.After(idle)
			whole, breaks := resume(n, short, last)
			assert.Empty(t, breaks)
			less, breaks := resume(n, short, back(last, 1))
			assert.Equal(t, []string{"expired"}, breaks)
			next := int(last.Offset) + 1
			last = all.publish(t, n, short, next, next)
			arrives(t, short, last, whole, less, live)
		}
		assert.Empty(t, live.breaks(short))
	})
}

// back returns the position of an earlier event.
func back(at broker.Position, events int) broker.Position {
	at.Offset -= uint64(events)
	return at
}

// lossOfData is a way in which a store loses a channel's log while it continues to run.
type lossOfData struct {
	store string
	lose  func(t testing.TB, s *store)
	// reason is that of clients that resume, and of the pushy:resync if there is one.
	reason string
	resync bool
}

// admin returns a connection to the store's JetStream.
func (s *store) admin(t testing.TB) jetstream.JetStream {
	t.Helper()
	nc, err := natsgo.Connect("nats://" + s.Addresses[0])
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return js
}

// logStream returns the stream of the test's kept events.
func (s *store) logStream(t testing.TB, js jetstream.JetStream) string {
	t.Helper()
	for name := range js.StreamNames(t.Context()).Name() {
		if strings.HasPrefix(name, s.Prefix+"-1-k") {
			return name
		}
	}
	require.Fail(t, "no stream of kept events")
	return ""
}

// The store loses a channel's log, or a part of what it knows of the log. Clients that resume
// get the reason, and never the events of another log. (Acceptance test 12)
func TestStoreLosesALog(t *testing.T) {
	t.Parallel()
	for name, loss := range map[string]lossOfData{
		"flushAll": {
			store:  "redis",
			lose:   func(t testing.TB, s *store) { command(t, s.redis(t), "FLUSHALL") },
			reason: "epoch",
			resync: true,
		},
		"metaDeleted": {
			store: "redis",
			lose: func(t testing.TB, s *store) {
				require.Equal(t, ":1", command(t, s.redis(t), "DEL", "{"+s.Prefix+"}1:e:"+keptNews))
			},
			reason: "epoch",
			resync: true,
		},
		"listDeleted": {
			store: "redis",
			lose: func(t testing.TB, s *store) {
				require.Equal(t, ":1", command(t, s.redis(t), "DEL", "{"+s.Prefix+"}1:k:"+keptNews))
			},
			reason: "expired",
		},
		"streamDeleted": {
			store: "nats",
			lose: func(t testing.TB, s *store) {
				js := s.admin(t)
				require.NoError(t, js.DeleteStream(t.Context(), s.logStream(t, js)))
			},
			reason: "epoch",
			resync: true,
		},
		"streamPurged": {
			store: "nats",
			lose: func(t testing.TB, s *store) {
				js := s.admin(t)
				stream, err := js.Stream(t.Context(), s.logStream(t, js))
				require.NoError(t, err)
				require.NoError(t, stream.Purge(t.Context()))
			},
			reason: "epoch",
			resync: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stores[loss.store](t)
			nodes := s.start(t, 2)
			all := logs{}
			live := all.enter(t, nodes[0], "live", keptNews)
			early := all.enter(t, nodes[0], "early", keptNews)
			at := all.publish(t, nodes[0], keptNews, 1, 3)
			arrives(t, keptNews, at, live, early)
			early.drop()
			at = all.publish(t, nodes[0], keptNews, 4, 6)
			arrives(t, keptNews, at, live)
			loss.lose(t, s)
			// The second node does not have the events. It learns of the loss from the store.
			resume := func(when string, n node) *resumer {
				t.Helper()
				c := newResumer(t, "resumes "+when).follow(all, keptNews)
				place := *early.channels[keptNews].kept.At
				c.channels[keptNews].kept.At = &place
				require.NoError(t, c.connect(n.url))
				return c
			}
			first := resume("at once", nodes[1])
			assert.Equal(t, []string{loss.reason}, first.breaks(keptNews))
			soon(t, patience, "events are kept again", func() bool {
				receipt, err := nodes[1].srv.PublishEvent(t.Context(), pushy.Event{
					Channel: keptNews,
					Name:    "n",
					Data:    7,
				})
				if err == nil {
					at = receipt.Position
					require.NoError(t, all.of(keptNews).Published(at, "7"))
				}
				return err == nil
			})
			if loss.resync {
				require.True(t, live.await(func() bool { return len(live.channels[keptNews].kept.Breaks) > 0 }))
			}
			arrives(t, keptNews, at, live, first)
			for _, n := range append(nodes, s.start(t, 1)...) {
				late := resume("later", n)
				if n == nodes[0] && !loss.resync { // its ring still has everything
					assert.Empty(t, late.breaks(keptNews))
					arrives(t, keptNews, at, late)
				} else {
					assert.Equal(t, []string{loss.reason}, late.breaks(keptNews))
				}
			}
			at = all.publish(t, nodes[0], keptNews, 8, 12)
			arrives(t, keptNews, at, live, first)
			for _, reason := range live.breaks(keptNews) {
				assert.True(t, loss.resync)
				assert.Equal(t, loss.reason, reason)
			}
		})
	}
}
