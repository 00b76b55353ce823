package pushy_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

// A store accepts an adoption and loses it before it is delivered. The node that adopts learns
// that from what the log has instead, by a Reset or by an entry. The client does not wait until
// its command times out: it has its member, or is a new one if the member has left.
func TestAdoptionIsLostBeforeItIsDelivered(t *testing.T) {
	t.Parallel()
	leaves := func(t *testing.T, spy *memory.Broker, bob broker.Member) {
		_, err := spy.Append(t.Context(), room, broker.Entry{
			Kind:   broker.Leave,
			Member: bob.ID,
			Owner:  bob.Owner,
		})
		require.NoError(t, err)
	}
	moves := func(t *testing.T, spy *memory.Broker, bob broker.Member) {
		_, err := spy.Append(t.Context(), room, broker.Entry{
			Kind:     broker.Adopt,
			Member:   bob.ID,
			OldOwner: bob.Owner,
			Owner:    "another node",
		})
		require.NoError(t, err)
	}
	for name, c := range map[string]struct {
		meanwhile func(t *testing.T, spy *memory.Broker, bob broker.Member) // in the log
		entry     bool                                                      // the node receives that, and no Reset
		resumed   bool
		adopts    int64
	}{
		"the old owner has it":     {nil, false, true, 2},
		"it has left":              {leaves, false, false, 1},
		"another node has it":      {moves, false, true, 2},
		"it has left: entry":       {leaves, true, false, 1},
		"another node has: entry ": {moves, true, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				cluster := newCluster()
				first := startOn(t, cluster.Broker(), pushy.Options{})
				lossy := &altered{Broker: cluster.Broker()}
				var sink broker.Sink
				lossy.open = func(ctx context.Context, o broker.OpenOptions, s broker.Sink) error {
					sink = s
					return lossy.Broker.Open(ctx, o, s)
				}
				var adopts atomic.Int64
				lossy.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
					if e.Kind == broker.Adopt && adopts.Add(1) == 1 {
						return broker.Appended{}, nil
					}
					return lossy.Broker.Append(ctx, channel, e)
				}
				second := startOn(t, lossy, pushy.Options{})
				ann, bob := newRoamer(t, "Ann"), newRoamer(t, "Bob")
				ann.enter(second)
				bob.enter(first)
				assert.Equal(t, "pushy:presence-add", ann.event())
				id := bob.in.MemberID
				bob.drop()

				bob.connect(second)
				bob.send(bob.command())
				synctest.Wait()
				require.EqualValues(t, 1, adopts.Load())
				state, err := lossy.Broker.Follow(t.Context(), room)
				require.NoError(t, err)
				require.Len(t, state.Members, 2)
				if c.meanwhile != nil {
					spy := spy(t, cluster)
					if !c.entry {
						require.NoError(t, lossy.Unfollow(t.Context(), room)) // it misses the entry
					}
					c.meanwhile(t, spy, state.Members[1])
				}
				if !c.entry {
					state, err = lossy.Broker.Follow(t.Context(), room)
					require.NoError(t, err)
					sink.Reset(room, state, broker.ResetRestarted)
				}
				began := time.Now()
				f := bob.next()
				require.Equal(t, "pushy:subscription-success", f.Event, "%s", f)
				assert.Equal(t, c.resumed, bob.admitted(f))
				assert.Less(t, time.Since(began), time.Second)
				assert.Equal(t, c.resumed, id == bob.in.MemberID)
				assert.Equal(t, c.adopts, adopts.Load())
				time.Sleep(time.Minute)
				assert.Equal(t, []string{"Ann", "Bob"}, membersOf(t, second, room))
				for _, event := range ann.settle() {
					if c.resumed {
						assert.NotContains(t, []string{"pushy:presence-add", "pushy:presence-quit"}, event)
					}
				}
			})
		})
	}
}

// Another user has the key of a member on another node, so the member must leave. If it is not
// known whether the store has appended the adoption that comes before the Leave, or if the store
// appends it later, the member leaves all the same.
func TestEvictionThatIsUncertain(t *testing.T) {
	for name, late := range map[string]time.Duration{"appended": 0, "appended later": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			onFaulty(t, pushy.Options{}, func(t *testing.T, cluster *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
				bob := newRoamer(t, "Bob")
				bob.user = "bob"
				bob.enter(whole)
				bob.drop()
				b.do(func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
					if e.Kind != broker.Adopt {
						return b.Broker.Append(ctx, channel, e)
					}
					time.AfterFunc(late, func() {
						_, err := b.Broker.Append(context.Background(), channel, e)
						assert.NoError(t, err)
					})
					time.Sleep(time.Millisecond)
					return broker.Appended{}, errBroker
				})
				cyd := newRoamer(t, "Cyd")
				cyd.user = "cyd"
				cyd.in = bob.in
				assert.False(t, cyd.enter(srv))
				time.Sleep(time.Minute)
				assert.Equal(t, []string{cyd.in.MemberID}, idsIn(t, srv))
				assert.Len(t, stateOf(t, cluster).Members, 1)
			})
		})
	}
}

func idsIn(t *testing.T, srv *pushy.Server) []string {
	t.Helper()
	ch, open := srv.Channels().Lookup(room)
	if !open {
		return nil
	}
	return idsOf(t, ch)
}

// pausingSink delivers what follows an adoption, and the adoption, after a pause.
type pausingSink struct {
	broker.Sink
	pause time.Duration

	mu      sync.Mutex
	waiting []broker.Entry
}

func (s *pausingSink) Deliver(channel string, e broker.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if channel != room || e.Kind != broker.Adopt && len(s.waiting) == 0 {
		s.Sink.Deliver(channel, e)
		return
	}
	s.waiting = append(s.waiting, e)
	if len(s.waiting) > 1 {
		return
	}
	time.AfterFunc(s.pause, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.waiting {
			s.Sink.Deliver(room, e)
		}
		s.waiting = nil
	})
}

// A node gives an adoption up, because a Reset says that the store has lost it, and the store
// delivers it after all. Then nobody has the member that was adopted, and it leaves.
func TestAdoptionThatWasGivenUpIsDelivered(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		first := startOn(t, cluster.Broker(), pushy.Options{})
		b := &altered{Broker: cluster.Broker()}
		var sink broker.Sink
		b.open = func(ctx context.Context, o broker.OpenOptions, s broker.Sink) error {
			sink = s
			return b.Broker.Open(ctx, o, &pausingSink{Sink: s, pause: 6 * time.Second})
		}
		second := startOn(t, b, pushy.Options{})
		ann, bob := newRoamer(t, "Ann"), newRoamer(t, "Bob")
		ann.enter(second)
		bob.enter(first)
		assert.Equal(t, "pushy:presence-add", ann.event())
		bob.drop()
		before := stateOf(t, cluster)
		bob.connect(second)
		bob.send(bob.command())
		synctest.Wait()
		sink.Reset(room, before, "")
		f := bob.next()
		for f.Event != "pushy:subscription-success" {
			f = bob.next()
		}
		assert.False(t, bob.admitted(f))
		time.Sleep(time.Minute)
		assert.ElementsMatch(t, []string{ann.in.MemberID, bob.in.MemberID}, idsIn(t, second))
		assert.Len(t, stateOf(t, cluster).Members, 2)
	})
}

// A broker that appends an adoption twice, because it has not received the answer to the first
// attempt, says that the member has another owner. The client has its member all the same.
func TestAdoptionThatTheBrokerRepeats(t *testing.T) {
	onFaulty(t, pushy.Options{}, func(t *testing.T, _ *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
		bob := newRoamer(t, "Bob")
		bob.enter(whole)
		bob.drop()
		b.do(func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			if e.Kind == broker.Adopt {
				_, err := b.Broker.Append(ctx, channel, e)
				assert.NoError(t, err)
			}
			return b.Broker.Append(ctx, channel, e)
		})
		began := time.Now()
		assert.True(t, bob.enter(srv))
		assert.Less(t, time.Since(began), time.Second)
		require.NoError(t, whole.Publish(t.Context(), room, "said", 1))
		bob.expect("said private-room 1")
		bob.Close(1000, "")
		bob.away()
		assert.Empty(t, idsIn(t, srv))
	})
}

// The state of a member changes on its old node while another node adopts it. The new node has
// the new state, and does not append the old one with its next change.
func TestStateChangesDuringAnAdoption(t *testing.T) {
	onFaulty(t, pushy.Options{}, func(t *testing.T, cluster *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
		ann := newRoamer(t, "Ann")
		ann.enter(srv)
		bob := newRoamer(t, "Bob")
		bob.enter(whole)
		assert.Equal(t, "pushy:presence-add", ann.event())
		old := bob.conn(whole)
		b.do(func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			if e.Kind == broker.Adopt {
				ch, ok := whole.Channels().Lookup(room)
				assert.True(t, ok)
				assert.NoError(t, ch.Update(old, map[string]int{"n": 2}))
			}
			return b.Broker.Append(ctx, channel, e)
		})
		require.True(t, bob.enter(srv))
		assert.Contains(t, ann.next().String(), `"state":{"n":2}`)
		bob.send(`{"command":"pushy:idle","data":{"idle":true},"id":1}`)
		assert.Equal(t, "pushy:reply", bob.event())
		f := ann.next()
		assert.Contains(t, f.String(), `"idle":true`)
		assert.NotContains(t, f.String(), "state")
		assert.Contains(t, string(stateOf(t, cluster).Members[1].State), `{"n":2}`)
	})
}
