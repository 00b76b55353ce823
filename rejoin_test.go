package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
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
	"github.com/gopushy/pushy/internal/testlog"
)

// faulty is a broker whose Append is what the test makes of it.
type faulty struct {
	*memory.Broker
	instead atomic.Pointer[func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error)]
}

func (f *faulty) do(instead func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error)) {
	f.instead.Store(&instead)
}

func (f *faulty) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if instead := f.instead.Load(); instead != nil {
		return (*instead)(ctx, channel, e)
	}
	return f.Broker.Append(ctx, channel, e)
}

// onFaulty runs a test in its own time, on two nodes of which the second is faulty.
func onFaulty(t *testing.T, o pushy.Options,
	run func(t *testing.T, cluster *memory.Cluster, whole, srv *pushy.Server, b *faulty),
) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{Logger: slog.New(slog.DiscardHandler)})
		b := &faulty{Broker: cluster.Broker()}
		whole := startOn(t, cluster.Broker(), pushy.Options{})
		run(t, cluster, whole, startOn(t, b, o), b)
	})
}

func stateOf(t *testing.T, cluster *memory.Cluster) broker.State {
	t.Helper()
	s, err := spy(t, cluster).Follow(t.Context(), "private-room")
	require.NoError(t, err)
	return s
}

// inLog returns the names of the members that the log has, in order.
func inLog(t *testing.T, cluster *memory.Cluster) []string {
	t.Helper()
	s := stateOf(t, cluster)
	var list []json.RawMessage
	for _, m := range s.Members {
		list = append(list, m.Data)
	}
	return names(t, list)
}

// A member that joined while the broker was away, and leaves before the log has its
// join, is shown to nobody any more.
func TestLeaveBeforeTheJoinIsLogged(t *testing.T) {
	onFaulty(t, pushy.Options{}, func(t *testing.T, cluster *memory.Cluster, _, srv *pushy.Server, b *faulty) {
		ann, _ := enter(t, srv, "Ann")
		mend := b.Cut()
		bob, _ := enter(t, srv, "Bob")
		assert.Equal(t, "pushy:presence-add", ann.event())
		b.do(func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			if e.Kind == broker.Join {
				return broker.Appended{}, errors.New("not now")
			}
			return b.Broker.Append(ctx, channel, e)
		})
		mend()
		synctest.Wait()
		bob.Abort()
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"Ann"}, membersOf(t, srv, "private-room"))
		assert.Equal(t, []string{"Ann"}, inLog(t, cluster))
		assert.Equal(t, []string{"Ann", "Bob"}, ann.next().names(t))
		ann.expect("pushy:resync private-room {}")
		assert.Equal(t, "pushy:presence-quit", ann.event())
		ann.quiet()
	})
}

// A Join of which the broker could not say whether it was appended may be appended
// after the Leave that was to undo it. No member is left behind.
func TestJoinIsAppendedAfterItsLeave(t *testing.T) {
	for name, c := range map[string]struct {
		cut   bool // the member joins while the broker is away
		late  int  // how many of its Joins come late
		stays int  // how many of its Leaves fail
	}{
		"joining":        {false, math.MaxInt, 0},
		"leaveFails":     {false, math.MaxInt, 1},
		"joiningAgain":   {true, math.MaxInt, 0},
		"triedOnceAgain": {true, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			onFaulty(t, pushy.Options{}, func(t *testing.T, cluster *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
				ann, _ := enter(t, whole, "Ann")
				mend := func() {}
				if c.cut {
					mend = b.Cut()
				}
				p := connectPeer(t, srv)
				if c.cut {
					p.subscribe("private-room", `{"name":"Bob"}`)
					time.Sleep(2 * memberLease) // that the first Join comes late is out of the question
				}
				var late, stays atomic.Int64
				b.do(func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
					if e.Kind == broker.Leave && stays.Add(1) <= int64(c.stays) {
						return broker.Appended{}, errors.New("not now")
					}
					if e.Kind != broker.Join || late.Add(1) > int64(c.late) {
						return b.Broker.Append(ctx, channel, e)
					}
					time.AfterFunc(5*time.Second, func() { _, _ = b.Broker.Append(context.Background(), channel, e) })
					return broker.Appended{}, context.DeadlineExceeded
				})
				mend()
				if !c.cut {
					p.send(subscribeText(t, p.id, "private-room", `{"name":"Bob"}`))
					p.expect(`pushy:subscription-failed {"channel":"private-room","reason":"Temporarily unavailable"}`)
				}
				synctest.Wait()
				if c.late < math.MaxInt {
					time.Sleep(time.Second)
					assert.Equal(t, []string{"Ann", "Bob"}, inLog(t, cluster))
					assert.Equal(t, "pushy:presence-add", ann.event())
				}
				p.Abort()
				if c.late < math.MaxInt {
					assert.Equal(t, "pushy:presence-quit", ann.event())
				}
				time.Sleep(time.Minute)
				assert.Equal(t, []string{"Ann"}, inLog(t, cluster))
				assert.Equal(t, []string{"Ann"}, membersOf(t, whole, "private-room"))
				assert.Equal(t, "pushy:presence-add", ann.event())
				assert.Equal(t, "pushy:presence-quit", ann.event())
				ann.quiet()
			})
		})
	}
}

// A Join that is being appended again while the member leaves is undone at once.
func TestLeaveOvertakesTheJoin(t *testing.T) {
	onFaulty(t, pushy.Options{}, func(t *testing.T, cluster *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
		ann, _ := enter(t, whole, "Ann")
		mend := b.Cut()
		bob, _ := enter(t, srv, "Bob")
		appending := make(chan struct{})
		b.do(func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			if e.Kind == broker.Join {
				<-appending
			}
			return b.Broker.Append(ctx, channel, e)
		})
		mend()
		synctest.Wait()
		bob.Abort()
		synctest.Wait()
		close(appending)
		time.Sleep(time.Second)
		assert.Equal(t, []string{"Ann"}, inLog(t, cluster))
		assert.Equal(t, "pushy:presence-add", ann.event())
		assert.Equal(t, "pushy:presence-quit", ann.event())
		time.Sleep(time.Minute)
		ann.quiet()
	})
}

// A Join that is appended late is not shown on its own node, where its client may
// have joined anew.
func TestLateJoinIsNotShownToItsClient(t *testing.T) {
	onFaulty(t, pushy.Options{}, func(t *testing.T, _ *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
		ann, _ := enter(t, whole, "Ann")
		var joins atomic.Int64
		b.do(func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			if e.Kind != broker.Join || joins.Add(1) > 1 {
				return b.Broker.Append(ctx, channel, e)
			}
			time.AfterFunc(5*time.Second, func() { _, _ = b.Broker.Append(context.Background(), channel, e) })
			return broker.Appended{}, context.DeadlineExceeded
		})
		bob := connectPeer(t, srv)
		bob.send(subscribeText(t, bob.id, "private-room", `{"name":"Bob"}`))
		bob.expect(`pushy:subscription-failed {"channel":"private-room","reason":"Temporarily unavailable"}`)
		in := bob.subscribe("private-room", `{"name":"Bob"}`)
		assert.Equal(t, []string{"Ann", "Bob"}, in.names(t))
		time.Sleep(time.Minute)
		bob.quiet()
		for _, event := range []string{"pushy:presence-add", "pushy:presence-add", "pushy:presence-quit"} {
			assert.Equal(t, event, ann.event())
		}
		ann.quiet()
		for _, n := range []*pushy.Server{whole, srv} {
			assert.Equal(t, []string{"Ann", "Bob"}, membersOf(t, n, "private-room"))
		}
	})
}

// Crowds keep the rules of the order, and leave nobody behind, while the broker fails
// to append members, appends them and says that it failed, or appends them late.
func TestOrderWhenAppendsAreUncertain(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		for name, cuts := range map[string]bool{"whole": false, "cut": true} {
			t.Run(name+strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { runUncertainly(t, seed, cuts) })
			})
		}
	}
}

func runUncertainly(t *testing.T, seed uint64, cuts bool) {
	var mu sync.Mutex
	dice := rand.New(rand.NewPCG(seed, 7))
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return dice.IntN(n)
	}
	runMemoryCluster(t, seed, cuts, func(ctx context.Context, b *memory.Broker) broker.Broker {
		f := &faulty{Broker: b}
		f.do(func(during context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			if e.Kind == broker.Event || ctx.Err() != nil {
				return b.Append(during, channel, e)
			}
			switch roll(10) {
			case 0:
				return broker.Appended{}, errors.New("not now")
			case 1:
				_, _ = b.Append(during, channel, e)
				return broker.Appended{}, context.DeadlineExceeded
			case 2:
				after := time.Duration(roll(10_000)) * time.Millisecond
				time.AfterFunc(after, func() { _, _ = b.Append(context.Background(), channel, e) })
				return broker.Appended{}, context.DeadlineExceeded
			}
			return b.Append(during, channel, e)
		})
		return f
	})
}

// A member whose Leave another node has appended, because it took this one for dead,
// joins again: also if that happens while it is joining again.
func TestMemberThatOthersRemoveJoinsAgain(t *testing.T) {
	onFaulty(t, pushy.Options{}, func(t *testing.T, cluster *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
		ann, _ := enter(t, whole, "Ann")
		bob, _ := enter(t, srv, "Bob")
		assert.Equal(t, "pushy:presence-add", ann.event())
		s, err := b.Follow(t.Context(), "private-room")
		require.NoError(t, err)
		remove := func() {
			m := s.Members[1]
			_, err := spy(t, cluster).Append(t.Context(), "private-room", broker.Entry{
				Kind:   broker.Leave,
				Member: m.ID,
				Owner:  m.Owner,
			})
			require.NoError(t, err)
		}
		var joins atomic.Int64
		b.do(func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			a, err := b.Broker.Append(ctx, channel, e)
			if e.Kind == broker.Join && joins.Add(1) == 1 {
				remove() // before the node knows that the Join was appended
			}
			return a, err
		})
		remove()
		time.Sleep(time.Minute)
		assert.EqualValues(t, 2, joins.Load())
		assert.Equal(t, []string{"Ann", "Bob"}, inLog(t, cluster))
		for range 2 {
			assert.Equal(t, "pushy:presence-quit", ann.event())
			assert.Equal(t, "pushy:presence-add", ann.event())
		}
		ann.quiet()
		bob.quiet()
		for _, n := range []*pushy.Server{whole, srv} {
			assert.Equal(t, []string{"Ann", "Bob"}, membersOf(t, n, "private-room"))
		}
	})
}

// Members that the log has lost keep their order, and the data of their last Update.
func TestMembersThatTheLogHasLost(t *testing.T) {
	onFaulty(t, pushy.Options{}, func(t *testing.T, cluster *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
		want := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		var last *peer
		for _, name := range want {
			last, _ = enter(t, srv, name)
			time.Sleep(time.Millisecond)
		}
		s, err := b.Follow(t.Context(), "private-room")
		require.NoError(t, err)
		_, err = spy(t, cluster).Append(t.Context(), "private-room", broker.Entry{
			Kind:   broker.Update,
			Member: s.Members[0].ID,
			Owner:  s.Members[0].Owner,
			Data:   json.RawMessage(`{"name":"A"}`),
		})
		require.NoError(t, err)
		want[0] = "A"
		assert.Equal(t, "pushy:presence-update", last.event())
		assert.Equal(t, want, membersOf(t, srv, "private-room"))
		mend := b.Cut()
		time.Sleep(2 * memberLease)
		assert.Empty(t, inLog(t, cluster))
		mend()
		time.Sleep(time.Minute)
		assert.Equal(t, want, membersOf(t, srv, "private-room"))
		assert.Equal(t, want, last.next().names(t))
		_, in := enter(t, whole, "z")
		assert.ElementsMatch(t, append(want, "z"), in.names(t))
	})
}

// come returns what has come so far.
func (p *peer) come(t *testing.T) (all []frame) {
	t.Helper()
	p.send(`{"command":"is-anything-there"}`)
	for {
		f := p.next()
		if f.Event == "pushy:error" {
			return all
		}
		all = append(all, f)
	}
}

// Members that join again have another place in the log, behind those that have joined
// meanwhile elsewhere. When the last is back, the clients of their node have the same list as
// all others.
func TestMembersThatJoinAgainAreInTheOrderOfTheLog(t *testing.T) {
	onFaulty(t, pushy.Options{}, func(t *testing.T, cluster *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
		ann, _ := enter(t, whole, "Ann")
		bob, _ := enter(t, srv, "Bob")
		cat, _ := enter(t, whole, "Cat")
		time.Sleep(time.Millisecond) // Bob is before Dan
		dan, _ := enter(t, srv, "Dan")
		mend := b.Cut()
		time.Sleep(2 * memberLease)
		refuse := atomic.Bool{}
		refuse.Store(true)
		b.do(func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			if refuse.Load() {
				return broker.Appended{}, errors.New("not yet")
			}
			return b.Broker.Append(ctx, channel, e)
		})
		mend()
		time.Sleep(time.Second)
		eve, _ := enter(t, whole, "Eve")
		refuse.Store(false)
		time.Sleep(time.Minute)
		want := []string{"Ann", "Cat", "Eve", "Bob", "Dan"}
		assert.Equal(t, want, inLog(t, cluster))
		for _, n := range []*pushy.Server{whole, srv} {
			assert.Equal(t, want, membersOf(t, n, "private-room"))
		}
		var lists [][]string
		for _, p := range []*peer{bob, dan} {
			for _, got := range p.come(t) {
				if got.Event == "pushy:presence-sync" {
					lists = append(lists, got.names(t))
				}
			}
		}
		once := []string{"Ann", "Cat", "Bob", "Dan"}
		assert.Equal(t, [][]string{once, want, once, want}, lists)
		for _, p := range []*peer{ann, cat, eve} {
			for _, got := range p.come(t) {
				assert.NotEqual(t, "pushy:presence-sync", got.Event)
			}
		}
	})
}

// A node that is alone delivers events to its own clients. When it is back the clients of
// other nodes are notified that they have missed some, in the channels that had some.
func TestOtherNodesAreNotifiedOfEventsOfANodeThatWasAlone(t *testing.T) {
	onFaulty(t, pushy.Options{}, func(t *testing.T, _ *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
		far, near := connectPeer(t, whole), connectPeer(t, srv)
		for _, p := range []*peer{far, near} {
			p.subscribe("news", "")
			p.subscribe("other", "")
		}
		mend := b.Cut()
		for range 3 {
			require.NoError(t, srv.Publish(t.Context(), "news", "said", 1))
			near.expect("said news 1")
		}
		require.NoError(t, srv.Publish(t.Context(), "elsewhere", "said", 1))
		time.Sleep(time.Second)
		far.quiet()
		mend()
		time.Sleep(time.Minute)
		assert.Equal(t, "pushy:resync news {}", far.next().String())
		far.quiet()
		resyncs := map[string]int{}
		for _, got := range near.come(t) {
			assert.Equal(t, "pushy:resync", got.Event)
			resyncs[got.Channel]++
		}
		assert.Equal(t, map[string]int{"news": 1, "other": 1}, resyncs)
	})
}

// A node that is alone remembers a limited number of channels that have had events. In
// others it refuses to publish.
func TestManyChannelsHaveEventsOnANodeThatIsAlone(t *testing.T) {
	onFaulty(t, pushy.Options{}, func(t *testing.T, _ *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
		far := connectPeer(t, whole)
		far.subscribe("9999", "")
		mend := b.Cut()
		for i := range 10_000 {
			require.NoError(t, srv.Publish(t.Context(), strconv.Itoa(i), "said", 1))
		}
		err := srv.Publish(t.Context(), "10000", "said", 1)
		require.ErrorIs(t, err, broker.ErrAway)
		require.ErrorContains(t, err, "10000 channels have already had events")
		require.NoError(t, srv.Publish(t.Context(), "9999", "said", 1))
		mend()
		time.Sleep(time.Minute)
		assert.Equal(t, "pushy:resync 9999 {}", far.next().String())
		far.quiet()
		require.NoError(t, srv.Publish(t.Context(), "10000", "said", 1))
		mend = b.Cut()
		require.NoError(t, srv.Publish(t.Context(), "10000", "said", 1), "there is room again")
		mend()
	})
}

// What a channel is, a node decides for its own clients: others may say something else,
// as they do while a new version is being installed.
func TestPolicyOfOtherNodes(t *testing.T) {
	for name, o := range map[string]pushy.ChannelOptions{
		"public":     {Access: pushy.AccessPublic},
		"noPresence": {Presence: pushy.PresenceOptions{Off: true}},
	} {
		t.Run(name, func(t *testing.T) {
			options := pushy.Options{Channel: func(string) pushy.ChannelOptions { return o }}
			onFaulty(t, options, func(t *testing.T, cluster *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
				_, _ = enter(t, whole, "Ann")
				p, in := enter(t, srv, "Bob")
				assert.NotContains(t, string(in.Data), "presence")
				_, _ = enter(t, whole, "Cyd")
				ann := stateOf(t, cluster).Members[0]
				_, err := spy(t, cluster).Append(t.Context(), "private-room", broker.Entry{
					Kind:   broker.Update,
					Member: ann.ID,
					Owner:  ann.Owner,
					Data:   json.RawMessage(`{"name":"Eve"}`),
				})
				require.NoError(t, err)
				p.quiet()
				ch, ok := srv.Channels().Lookup("private-room")
				require.True(t, ok)
				hidden := func() {
					members, on := ch.Presence()
					assert.False(t, on)
					for _, m := range members {
						assert.False(t, m.HasData)
					}
				}
				hidden()
				b.Cut()()
				time.Sleep(time.Minute)
				p.expect("pushy:resync private-room {}")
				p.quiet()
				hidden()
			})
		})
	}
}

// A member that was adopted and has left elsewhere cannot join again. Its hook that
// does not return holds up neither the other members nor a Shutdown.
func TestHookOfAMemberThatCannotJoinAgainHangs(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer func() {
			close(hang)
			synctest.Wait()
		}()
		cluster := memory.NewCluster(memory.Options{Logger: slog.New(slog.DiscardHandler)})
		b := &faulty{Broker: cluster.Broker()}
		srv := startOn(t, b, pushy.Options{Hooks: pushy.Hooks{
			Unsubscribe: func(*pushy.Conn, *pushy.Channel) { <-hang },
		}})
		bob, _ := enter(t, srv, "Bob")
		_, _ = enter(t, srv, "Cyd")
		assert.Equal(t, "pushy:presence-add", bob.event())
		mend := b.Cut()
		other := spy(t, cluster)
		adopted := takeOver(t, other, "Bob")
		_, err := other.Append(t.Context(), "private-room", broker.Entry{
			Kind:   broker.Leave,
			Member: adopted.ID,
			Owner:  "the spy",
		})
		require.NoError(t, err)
		time.Sleep(memberLease + time.Second)
		assert.Empty(t, inLog(t, cluster))
		var joins atomic.Int64
		b.do(func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			if e.Kind == broker.Join && strings.Contains(string(e.Data), "Cyd") && joins.Add(1) == 1 {
				return broker.Appended{}, errors.New("not now")
			}
			return b.Broker.Append(ctx, channel, e)
		})
		mend()
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"Cyd"}, inLog(t, cluster))
		assert.Equal(t, []string{"Cyd"}, membersOf(t, srv, "private-room"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		before := time.Now()
		require.ErrorIs(t, srv.Shutdown(ctx), context.DeadlineExceeded)
		assert.Less(t, time.Since(before), time.Minute)
	})
}

// Whoever joins while another opens the channel under another policy is refused:
// what was decided for it was decided under its own.
func TestChannelWithTwoPolicies(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		log := &testlog.Log{}
		var asked atomic.Int64
		deciding, decide := make(chan struct{}), make(chan struct{})
		srv := startOn(t, memory.New(), pushy.Options{
			Logger: log.Logger(),
			Channel: func(string) pushy.ChannelOptions {
				return pushy.ChannelOptions{Presence: pushy.PresenceOptions{Off: asked.Add(1) > 1}}
			},
			Authorizer: authorizerFunc(func(_ context.Context, r pushy.AuthRequest) error {
				if r.Auth == "slow" {
					close(deciding)
					<-decide
				}
				return nil
			}),
		})
		ann, bob := connectPeer(t, srv), connectPeer(t, srv)
		ann.send(`{"command":"subscribe","data":{"channel":"private-room","auth":"slow","data":{}}}`)
		<-deciding
		bob.send(`{"command":"subscribe","data":{"channel":"private-room","auth":"x"}}`)
		assert.Equal(t, "pushy:subscription-success", bob.event())
		close(decide)
		ann.expect(`pushy:subscription-failed {"channel":"private-room","reason":"Temporarily unavailable"}`)
		assert.Len(t, log.With("different results"), 1)
		bob.quiet()
	})
}

// What a caller does with its slice after PublishEvent concerns nobody.
func TestExceptIsNotKept(t *testing.T) {
	onFaulty(t, pushy.Options{}, func(t *testing.T, _ *memory.Cluster, _, srv *pushy.Server, b *faulty) {
		var kept broker.Entry
		b.do(func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			kept = e
			return b.Broker.Append(ctx, channel, e)
		})
		except := []string{"one", "one", "two"}
		_, err := srv.PublishEvent(t.Context(), pushy.Event{
			Channel: "news",
			Name:    "said",
			Except:  except,
		})
		require.NoError(t, err)
		except[0] = "other"
		assert.Equal(t, []string{"one", "one", "two"}, kept.Except)
	})
}
