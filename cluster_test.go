package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/testlog"
)

// The lease of a Server's members.
const memberLease = 15 * time.Second

// node is a Server of a memory cluster.
type node struct {
	*pushy.Server
	*memory.Broker
}

// onCluster runs a test in its own time, on nodes that act as one.
func onCluster(t *testing.T, nodes int, run func(t *testing.T, cluster *memory.Cluster, nodes []node)) {
	t.Helper()
	onNodes(t, nodes, pushy.Options{}, run)
}

// onNodes is onCluster with options.
func onNodes(t *testing.T, nodes int, o pushy.Options, run func(t *testing.T, c *memory.Cluster, nodes []node)) {
	t.Helper()
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		var all []node
		for range nodes {
			b := cluster.Broker()
			all = append(all, node{startOn(t, b, o), b})
		}
		run(t, cluster, all)
	})
}

// names returns the members' names that a message lists, or those of a channel.
func names(t *testing.T, list []json.RawMessage) (names []string) {
	t.Helper()
	for _, text := range list {
		var m struct{ Name string }
		require.NoError(t, json.Unmarshal(text, &m))
		names = append(names, m.Name)
	}
	return names
}

func (f frame) names(t *testing.T) []string {
	t.Helper()
	var data struct{ Presence []json.RawMessage }
	require.NoError(t, json.Unmarshal(f.Data, &data))
	return names(t, data.Presence)
}

func membersOf(t *testing.T, srv *pushy.Server, channel string) []string {
	t.Helper()
	ch, ok := srv.Channels().Lookup(channel)
	require.True(t, ok)
	all, _ := ch.Presence()
	var list []json.RawMessage
	for _, m := range all {
		list = append(list, m.JSON)
	}
	return names(t, list)
}

// enter subscribes a client to private-room under a name.
func enter(t *testing.T, srv *pushy.Server, name string) (*peer, frame) {
	t.Helper()
	p := connectPeer(t, srv)
	return p, p.subscribe("private-room", `{"name":"`+name+`"}`)
}

func (p *peer) event() string { return p.next().Event }

// Nodes that act as one have one list of members, and events reach all of them.
func TestNodesActAsOne(t *testing.T) {
	onCluster(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		ann, _ := enter(t, nodes[0].Server, "Ann")
		bob, in := enter(t, nodes[1].Server, "Bob")
		assert.Equal(t, []string{"Ann", "Bob"}, in.names(t))
		assert.Equal(t, "pushy:presence-add", ann.event())
		require.NoError(t, nodes[1].Publish(t.Context(), "private-room", "said", 1))
		ann.expect("said private-room 1")
		bob.expect("said private-room 1")
		receipt, err := nodes[0].PublishEvent(t.Context(), pushy.Event{Channel: "elsewhere", Name: "said"})
		require.NoError(t, err)
		assert.Equal(t, broker.None, receipt.Receivers)
		p := connectPeer(t, nodes[1].Server)
		p.subscribe("elsewhere", "")
		receipt, err = nodes[0].PublishEvent(t.Context(), pushy.Event{Channel: "elsewhere", Name: "said", ID: "1"})
		require.NoError(t, err)
		assert.Equal(t, broker.Some, receipt.Receivers)
		receipt, err = nodes[1].PublishEvent(t.Context(), pushy.Event{Channel: "elsewhere", Name: "said", ID: "1"})
		require.NoError(t, err)
		assert.True(t, receipt.Duplicate, "also on another node")
		p.expect("said elsewhere null")
		p.quiet()
		bob.Abort()
		assert.Equal(t, "pushy:presence-quit", ann.event())
		ann.quiet()
	})
}

// While a node is cut off it serves its own clients. When it is back each channel
// gets one list and one notice that events may be lost, and the lists are equal.
func TestNodeIsCutOff(t *testing.T) {
	for name, away := range map[string]time.Duration{
		"shortly":          5 * time.Second,
		"longerThanALease": 2 * memberLease,
	} {
		t.Run(name, func(t *testing.T) {
			onCluster(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
				ann, _ := enter(t, nodes[0].Server, "Ann")
				bob, _ := enter(t, nodes[1].Server, "Bob")
				leaver, _ := enter(t, nodes[1].Server, "Leaver")
				plain := connectPeer(t, nodes[1].Server)
				plain.subscribe("news", "")
				for range 2 {
					assert.Equal(t, "pushy:presence-add", ann.event())
				}
				assert.Equal(t, "pushy:presence-add", bob.event())
				require.NoError(t, nodes[1].Stats().Away)

				mend := nodes[1].Cut()
				require.ErrorIs(t, nodes[1].Stats().Away, broker.ErrAway)
				cyd, in := enter(t, nodes[1].Server, "Cyd")
				assert.Equal(t, []string{"Ann", "Bob", "Leaver", "Cyd"}, in.names(t), "alone, with what was known")
				assert.Equal(t, "pushy:presence-add", bob.event())
				leaver.Abort()
				synctest.Wait()
				assert.Equal(t, "pushy:presence-quit", bob.event())
				assert.Equal(t, "pushy:presence-quit", cyd.event())
				require.NoError(t, nodes[1].Publish(t.Context(), "private-room", "said", 1))
				bob.expect("said private-room 1")
				cyd.expect("said private-room 1")
				dan, _ := enter(t, nodes[0].Server, "Dan")
				assert.Equal(t, "pushy:presence-add", ann.event())
				time.Sleep(away)
				if away > memberLease {
					for _, p := range []*peer{ann, dan} {
						assert.Equal(t, "pushy:presence-quit", p.event(), "Bob")
						assert.Equal(t, "pushy:presence-quit", p.event(), "Leaver")
					}
				}

				mend()
				time.Sleep(time.Minute)
				require.NoError(t, nodes[1].Stats().Away)
				for _, p := range []*peer{bob, cyd} {
					assert.Contains(t, p.next().names(t), "Dan")
					p.expect("pushy:resync private-room {}")
					p.quiet()
				}
				plain.expect("pushy:resync news {}")
				plain.quiet()
				want := []string{"Ann", "Bob", "Cyd", "Dan"}
				for _, n := range nodes {
					got := membersOf(t, n.Server, "private-room")
					slices.Sort(got)
					assert.Equal(t, want, got)
				}
				var last []string
				for _, p := range []*peer{ann, dan} {
					var events []string
					p.send(`{"command":"is-anything-there"}`)
					for e := p.event(); e != "pushy:error"; e = p.event() {
						events = append(events, strings.TrimPrefix(e, "pushy:presence-"))
					}
					last = events
				}
				slices.Sort(last)
				if away > memberLease {
					assert.Equal(t, []string{"add", "add", "pushy:resync"}, last, "Bob and Cyd join again")
				} else {
					assert.Equal(t, []string{"add", "pushy:resync", "quit"}, last, "Cyd joins, Leaver leaves")
				}
			})
		})
	}
}

// A node that starts while the broker is away serves its own clients, and joins the
// others when it is back.
func TestChannelIsOpenedWhileAway(t *testing.T) {
	onCluster(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		_, _ = enter(t, nodes[0].Server, "Ann")
		mend := nodes[1].Cut()
		bob, in := enter(t, nodes[1].Server, "Bob")
		assert.Equal(t, []string{"Bob"}, in.names(t))
		mend()
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"Ann", "Bob"}, bob.next().names(t))
		bob.expect("pushy:resync private-room {}")
		bob.quiet()
		assert.Equal(t, []string{"Ann", "Bob"}, membersOf(t, nodes[0].Server, "private-room"))
	})
}

// While the broker is away, nobody can tell whether an event with an ID has been published,
// so none is: the publisher tries again.
func TestEventWithAnIDWhileAway(t *testing.T) {
	onCluster(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		p := connectPeer(t, nodes[0].Server)
		p.subscribe("news", "")
		e := pushy.Event{
			Channel: "news",
			Name:    "said",
			Data:    1,
			ID:      "request",
		}
		_, err := nodes[1].PublishEvent(t.Context(), e)
		require.NoError(t, err)
		p.expect("said news 1")
		mend := nodes[0].Cut()
		_, err = nodes[0].PublishEvent(t.Context(), e)
		require.ErrorIs(t, err, broker.ErrAway)
		p.quiet()
		mend()
		p.expect("pushy:resync news {}")
		receipt, err := nodes[0].PublishEvent(t.Context(), e)
		require.NoError(t, err)
		assert.True(t, receipt.Duplicate)
		p.quiet()
	})
}

// A node that is killed leaves its members for a lease, and no longer: each leaves once,
// and nothing of it comes up afterwards.
func TestNodeIsKilled(t *testing.T) {
	onCluster(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		const dead = 20
		ann, _ := enter(t, nodes[0].Server, "Ann")
		for range dead {
			_, _ = enter(t, nodes[1].Server, "Bob")
			assert.Equal(t, "pushy:presence-add", ann.event())
		}
		nodes[1].Kill()
		time.Sleep(memberLease - time.Second)
		ann.quiet()
		time.Sleep(2 * time.Second)
		for range dead {
			assert.Equal(t, "pushy:presence-quit", ann.event())
		}
		for range 60 {
			ann.quiet()
			assert.Equal(t, []string{"Ann"}, membersOf(t, nodes[0].Server, "private-room"))
			time.Sleep(time.Minute)
		}
	})
}

// A store that was restored from a copy may have members of this node that have left
// long ago. They are not shown, and leave for good.
func TestMembersThatAStoreBringsBackLeave(t *testing.T) {
	onCluster(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		ann, _ := enter(t, nodes[0].Server, "Ann")
		bob, _ := enter(t, nodes[1].Server, "Bob")
		assert.Equal(t, "pushy:presence-add", ann.event())
		_, err := nodes[1].Append(t.Context(), "private-room", broker.Entry{
			Kind:   broker.Join,
			Member: "ghost",
			Owner:  "ghost",
			Data:   json.RawMessage(`{"name":"Ghost"}`),
		})
		require.NoError(t, err)
		for _, p := range []*peer{ann, bob} {
			assert.Equal(t, "pushy:presence-add", p.event())
		}
		nodes[1].Cut()()
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"Ann", "Bob"}, bob.next().names(t))
		bob.expect("pushy:resync private-room {}")
		bob.quiet()
		assert.Equal(t, "pushy:presence-quit", ann.event())
		for _, n := range nodes {
			assert.Equal(t, []string{"Ann", "Bob"}, membersOf(t, n.Server, "private-room"))
		}
	})
}

// takeOver adopts the member of a name, as a node does to which the client has moved.
func takeOver(t *testing.T, b broker.Broker, name string) broker.Member {
	t.Helper()
	s, err := b.Follow(t.Context(), "private-room")
	require.NoError(t, err)
	for _, m := range s.Members {
		if !strings.Contains(string(m.Data), `"`+name+`"`) {
			continue
		}
		_, err := b.Append(t.Context(), "private-room", broker.Entry{
			Kind:     broker.Adopt,
			Member:   m.ID,
			OldOwner: m.Owner,
			Owner:    "the spy",
		})
		require.NoError(t, err)
		return m
	}
	t.Fatal("there is no " + name)
	return broker.Member{}
}

// A membership that another node has adopted ends here, and its late leave does not
// remove the member.
func TestAdoptedMembershipEnds(t *testing.T) {
	onCluster(t, 1, func(t *testing.T, cluster *memory.Cluster, nodes []node) {
		ann, _ := enter(t, nodes[0].Server, "Ann")
		bob, _ := enter(t, nodes[0].Server, "Bob")
		assert.Equal(t, "pushy:presence-add", ann.event())
		takeOver(t, spy(t, cluster), "Bob")
		bob.expect(`pushy:subscription-end {"channel":"private-room"}`)
		bob.Abort()
		time.Sleep(time.Hour)
		ann.quiet()
		assert.Equal(t, []string{"Ann", "Bob"}, membersOf(t, nodes[0].Server, "private-room"))
	})
}

// A node that was stopped for longer than its lease does not bring back what another
// node has adopted meanwhile, and joins the rest again.
func TestStoppedNodeDoesNotTakeBack(t *testing.T) {
	onCluster(t, 2, func(t *testing.T, cluster *memory.Cluster, nodes []node) {
		ann, _ := enter(t, nodes[0].Server, "Ann")
		bob, _ := enter(t, nodes[1].Server, "Bob")
		cyd, _ := enter(t, nodes[1].Server, "Cyd")
		for range 2 {
			assert.Equal(t, "pushy:presence-add", ann.event())
		}
		assert.Equal(t, "pushy:presence-add", bob.event())
		mend := nodes[1].Cut()
		takeOver(t, spy(t, cluster), "Bob")
		time.Sleep(2 * memberLease)
		assert.Equal(t, "pushy:presence-quit", ann.event(), "Cyd")
		ann.quiet()
		mend()
		time.Sleep(time.Minute)
		assert.Equal(t, "pushy:presence-add", ann.event(), "Cyd")
		ann.quiet()
		var last frame
		for last = bob.next(); last.Event != "pushy:subscription-end"; last = bob.next() {
			continue
		}
		bob.quiet()
		want := []string{"Ann", "Bob", "Cyd"}
		for _, n := range nodes {
			got := membersOf(t, n.Server, "private-room")
			slices.Sort(got)
			assert.Equal(t, want, got)
		}
		assert.Equal(t, "pushy:presence-sync", cyd.event())
	})
}

// failing is a broker whose Append of member entries fails while it is told to.
type failing struct {
	*memory.Broker
	fails atomic.Pointer[error]
	done  atomic.Bool // the entry is appended all the same
	tries atomic.Int64
}

func (f *failing) fail(err error) { f.fails.Store(&err) }

func (f *failing) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if e.Kind == broker.Leave {
		f.tries.Add(1)
	}
	err := f.fails.Load()
	if e.Kind == broker.Event || err == nil || *err == nil {
		return f.Broker.Append(ctx, channel, e)
	}
	if f.done.Load() {
		_, _ = f.Broker.Append(ctx, channel, e)
	}
	return broker.Appended{}, *err
}

// What cannot be logged when a member leaves is tried until it is: no member stays
// behind, and the members here are notified at once.
func TestLeaveThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		b := &failing{Broker: cluster.Broker()}
		log := &testlog.Log{}
		srv := startOn(t, b, pushy.Options{Logger: log.Logger()})
		other := startOn(t, cluster.Broker(), pushy.Options{})
		far, _ := enter(t, other, "Far")
		ann, _ := enter(t, srv, "Ann")
		bob, _ := enter(t, srv, "Bob")
		for range 2 {
			assert.Equal(t, "pushy:presence-add", far.event())
		}
		assert.Equal(t, "pushy:presence-add", ann.event())
		b.fail(errors.New("not now"))
		bob.Abort()
		synctest.Wait()
		assert.Equal(t, "pushy:presence-quit", ann.event())
		far.quiet()
		time.Sleep(10 * time.Minute)
		assert.LessOrEqual(t, b.tries.Load(), int64(140), "with pauses")
		assert.Len(t, log.With("cannot append the leave of a member"), 1)
		far.quiet()
		b.fail(nil)
		time.Sleep(10 * time.Second)
		assert.Equal(t, "pushy:presence-quit", far.event())
		far.quiet()
		ann.quiet()
	})
}

// An error of which nobody knows whether the entry was appended changes nothing twice.
func TestUncertainAppends(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		b := &failing{Broker: cluster.Broker()}
		srv := startOn(t, b, pushy.Options{})
		ann, _ := enter(t, srv, "Ann")
		b.done.Store(true)
		b.fail(context.DeadlineExceeded)
		bob, in := enter(t, srv, "Bob")
		assert.Equal(t, []string{"Ann", "Bob"}, in.names(t), "it came through")
		assert.Equal(t, "pushy:presence-add", ann.event())
		bob.Abort()
		synctest.Wait()
		assert.Equal(t, "pushy:presence-quit", ann.event())
		b.fail(nil)
		time.Sleep(time.Minute)
		ann.quiet()
		assert.Equal(t, []string{"Ann"}, membersOf(t, srv, "private-room"))
	})
}

// A Join that the broker refuses for good leaves nothing, and its size has its answer.
func TestRefusedJoinsLeaveNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    error
		reason string
	}{
		"tooLarge": {fmt.Errorf("%w: 9 of 8 bytes", broker.ErrTooLarge), "Presence data too large"},
		"other":    {errors.New("no"), "Temporarily unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				b := &failing{Broker: memory.New()}
				srv := startOn(t, b, pushy.Options{})
				b.fail(c.err)
				p := connectPeer(t, srv)
				p.send(subscribeText(t, p.id, "private-room", `{"name":"Ann"}`))
				p.expect(`pushy:subscription-failed {"channel":"private-room","reason":"` + c.reason + `"}`)
				b.fail(nil)
				time.Sleep(time.Minute)
				p.subscribe("private-room", `{"name":"Ann"}`)
				assert.Equal(t, []string{"Ann"}, membersOf(t, srv, "private-room"))
			})
		})
	}
}

// A Server shuts down although the broker never takes what it has to log.
func TestShutdownWithABacklog(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		b := &failing{Broker: memory.New()}
		srv := startOn(t, b, pushy.Options{})
		bob, _ := enter(t, srv, "Bob")
		b.fail(errors.New("never"))
		bob.Abort()
		time.Sleep(time.Minute)
		before := time.Now()
		require.NoError(t, srv.Shutdown(deadline(t)))
		assert.Less(t, time.Since(before), time.Minute)
		assert.Zero(t, srv.Entries())
	})
}

// Whatever a broker delivers, clients receive what the protocol allows.
func TestBrokenEntriesAreSkipped(t *testing.T) {
	onCluster(t, 1, func(t *testing.T, cluster *memory.Cluster, nodes []node) {
		ann, _ := enter(t, nodes[0].Server, "Ann")
		s := spy(t, cluster)
		for i, e := range []broker.Entry{
			{Kind: broker.Event, Event: "pushy:resync", Data: json.RawMessage(`{}`)},
			{Kind: broker.Event, Event: "", Data: json.RawMessage(`{}`)},
			{Kind: broker.Event, Event: "a\nb", Data: json.RawMessage(`{}`)},
			{Kind: broker.Event, Event: "said"},
			{Kind: broker.Event, Event: "said", Data: json.RawMessage(`{"a":`)},
			{Kind: broker.Event, Event: "said", Data: json.RawMessage("\"\xff\"")},
			{Kind: broker.Event, Event: "said", Data: json.RawMessage(`{}{}`)},
			{Kind: broker.Join, Member: "", Owner: "o"},
			{Kind: broker.Join, Member: "a b", Owner: "o"},
			{Kind: broker.Join, Member: strings.Repeat("m", 65), Owner: "o"},
			{Kind: broker.Join, Member: "m1", Owner: strings.Repeat("o", 129)},
			{Kind: broker.Join, Member: "m2", Owner: "o", Data: json.RawMessage(`[]`)},
			{Kind: broker.Join, Member: "m3", Owner: "o", Data: json.RawMessage(`{"a":`)},
			{Kind: broker.Join, Member: "m4", Owner: "o", Data: json.RawMessage(`{"a":"` + strings.Repeat("x", 300<<10) + `"}`)},
		} {
			_, err := s.Append(t.Context(), "private-room", e)
			require.NoError(t, err, "%d", i)
		}
		ann.quiet()
		assert.Equal(t, []string{"Ann"}, membersOf(t, nodes[0].Server, "private-room"))
		_, err := s.Append(t.Context(), "private-room", broker.Entry{
			Kind:  broker.Event,
			Event: "said",
			Data:  json.RawMessage(` { "a" : 1 } `),
		})
		require.NoError(t, err)
		ann.expect(`said private-room {"a":1}`)

		// A newcomer's State has what was skipped, and is checked, too.
		bob, in := enter(t, nodes[0].Server, "Bob")
		assert.Equal(t, []string{"Ann", "Bob"}, in.names(t))
		bob.quiet()
	})
}

// Crowds on clusters whose nodes are cut off at random keep every rule of the order.
func TestOrderOnMemoryClusters(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		for _, cuts := range []bool{false, true} {
			name := "whole"
			if cuts {
				name = "cut"
			}
			t.Run(name+strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { runMemoryCluster(t, seed, cuts, nil) })
			})
		}
	}
}

// runMemoryCluster runs a crowd on nodes that are cut off if cuts is set. wrap, if not
// nil, makes of each node's broker the one that its Server has; its faults end with ctx.
func runMemoryCluster(
	t *testing.T, seed uint64, cuts bool, wrap func(ctx context.Context, b *memory.Broker) broker.Broker,
) {
	rough := cuts || wrap != nil
	c := newCrowd(t, func(r *rand.Rand) { time.Sleep(time.Duration(r.Int64N(int64(300 * time.Millisecond)))) })
	c.log.cluster, c.log.restated, c.log.isolated, c.patience = true, rough, rough, time.Hour
	cluster := newCluster()
	ctx, cancel := context.WithCancel(t.Context())
	var brokers []*memory.Broker
	for range 3 {
		b := cluster.Broker()
		brokers = append(brokers, b)
		var served broker.Broker = b
		if wrap != nil {
			served = wrap(ctx, b)
		}
		c.start = func(o pushy.Options) *pushy.Server { return startOn(t, served, o) }
		c.addServer(pushy.Options{})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := rand.New(rand.NewPCG(seed, 99))
		for cuts && ctx.Err() == nil {
			mend := brokers[r.IntN(len(brokers))].Cut()
			time.Sleep(time.Duration(r.Int64N(int64(3 * time.Second))))
			mend()
			time.Sleep(time.Duration(r.Int64N(int64(3 * time.Second))))
		}
	}()
	rested := false
	c.run(seed, func() {
		if !rested {
			cancel()
			<-done
			rested = true
		}
		time.Sleep(time.Minute)
		synctest.Wait()
	})
	synctest.Wait()
	watcher := spy(t, cluster)
	for _, channel := range crowdChannels {
		s, err := watcher.Follow(t.Context(), channel)
		require.NoError(t, err)
		assert.Empty(t, s.Members, "members left behind in %s", channel)
	}
}
