package pushy_test

import (
	"context"
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
