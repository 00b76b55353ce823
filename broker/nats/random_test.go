package nats_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
)

// checker is a sink that checks the contract: kept events have consecutive offsets, member
// entries change members that exist, and a Reset replaces the state.
type checker struct {
	mu    sync.Mutex
	rooms map[string]*checked
	wrong []string
}

type checked struct {
	begun    bool
	at       broker.Position
	revision broker.Position
	members  map[string]string // owners by id
	early    []broker.Entry
}

func (c *checker) room(channel string) *checked {
	if c.rooms[channel] == nil {
		c.rooms[channel] = &checked{}
	}
	return c.rooms[channel]
}

func (c *checker) begin(channel string, s broker.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.room(channel)
	r.take(s)
	for _, e := range r.early {
		c.apply(channel, r, e)
	}
	r.early = nil
}

func (r *checked) take(s broker.State) {
	*r = checked{begun: true, at: s.At, revision: s.Revision, members: map[string]string{}, early: r.early}
	for _, m := range s.Members {
		r.members[m.ID] = m.Owner
	}
}

func (c *checker) Reset(channel string, s broker.State, _ string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.room(channel).take(s)
}

func (c *checker) Deliver(channel string, e broker.Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.room(channel)
	if !r.begun {
		r.early = append(r.early, e)
		return
	}
	c.apply(channel, r, e)
}

func (c *checker) apply(channel string, r *checked, e broker.Entry) {
	bad := func(format string, args ...any) {
		c.wrong = append(c.wrong, channel+": "+fmt.Sprintf(format, args...))
	}
	owner, in := r.members[e.Member]
	switch e.Kind {
	case broker.Event:
		if e.Keep.Size == 0 {
			return
		}
		if e.At != (broker.Position{Epoch: r.at.Epoch, Offset: r.at.Offset + 1}) {
			bad("event %v after %v", e.At, r.at)
		}
		r.at = e.At
		return
	case broker.Join:
		if in {
			bad("%s joins twice", e.Member)
		}
		r.members[e.Member] = e.Owner
	case broker.Leave:
		if !in || owner != e.Owner {
			bad("%s leaves %q, who has %q", e.Member, e.Owner, owner)
		}
		delete(r.members, e.Member)
	case broker.Adopt:
		if owner != e.OldOwner {
			bad("%s is taken from %q, who has %q", e.Member, e.OldOwner, owner)
		}
		r.members[e.Member] = e.Owner
	case broker.Update:
		if owner != e.Owner {
			bad("%s is updated by %q, who has %q", e.Member, e.Owner, owner)
		}
	}
	if e.At.Epoch != r.revision.Epoch || e.At.Offset <= r.revision.Offset {
		bad("revision %v after %v", e.At, r.revision)
	}
	r.revision = e.At
}

// Nodes are cut off at random times, while all of them append. The deliveries to each sink are
// consistent, and at the end all sinks have the same state.
func TestRandomCuts(t *testing.T) {
	t.Parallel()
	const channels = 4
	s := ownNATS(t)
	var nodes []*nats.Broker
	var sinks []*checker
	var proxies []*proxy
	for i := range 3 {
		p, sink := newProxy(t, s), &checker{rooms: map[string]*checked{}}
		b := nats.New(nats.Options{URL: p.url, Prefix: prefix(t), Timeout: 20 * time.Second, Logger: testLogger(t)})
		require.NoError(t, b.Open(t.Context(), broker.OpenOptions{Node: fmt.Sprint("n", i), Lease: 20 * time.Second}, sink))
		t.Cleanup(func() { _ = b.Close(context.Background()) })
		nodes, sinks, proxies = append(nodes, b), append(sinks, sink), append(proxies, p)
		for c := range channels {
			state, err := b.Follow(t.Context(), fmt.Sprint("room-", c))
			require.NoError(t, err)
			sink.begin(fmt.Sprint("room-", c), state)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), 8*time.Second)
	defer stop()
	var tasks sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string][]broker.Position{}
	for worker := range 9 {
		b := nodes[worker%3]
		tasks.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				channel := fmt.Sprint("room-", rand.IntN(channels))
				id := fmt.Sprintf("m%d-%d", worker, i/2)
				e := kept(fmt.Sprint(i))
				switch rand.IntN(3) {
				case 0:
					e = join(id)
				case 1:
					e = leave(id)
				}
				if rand.IntN(20) == 0 {
					e = broker.Entry{Kind: broker.Adopt, Member: id, OldOwner: "owner-" + id, Owner: "other-" + id}
				}
				a, err := b.Append(t.Context(), channel, e)
				if err == nil && e.Kind == broker.Event {
					mu.Lock()
					acknowledged[channel] = append(acknowledged[channel], a.At)
					mu.Unlock()
				}
				if err != nil {
					<-time.After(time.Millisecond)
				}
			}
		})
	}
	tasks.Go(func() {
		for ctx.Err() == nil {
			mend := proxies[rand.IntN(3)].Cut()
			<-time.After(time.Duration(rand.IntN(300)) * time.Millisecond)
			mend()
			<-time.After(time.Duration(rand.IntN(500)) * time.Millisecond)
		}
	})
	tasks.Wait()
	for i, b := range nodes {
		eventually(t, "the node is back", func() bool {
			_, err := b.Append(t.Context(), fmt.Sprint("room-", i), event("last"))
			return err == nil && b.Away() == nil
		})
	}
	for c := range channels {
		channel := fmt.Sprint("room-", c)
		words := func(node int) string {
			sink := sinks[node]
			sink.mu.Lock()
			defer sink.mu.Unlock()
			r := sink.rooms[channel]
			var ids []string
			for id, owner := range r.members {
				ids = append(ids, id+"="+owner)
			}
			slices.Sort(ids)
			return r.at.String() + " " + strings.Join(ids, " ")
		}
		stored := func() string {
			fresh, err := nodes[0].Follow(t.Context(), channel)
			require.NoError(t, err)
			tops, err := nodes[0].Tops(t.Context(), []string{channel})
			require.NoError(t, err)
			var ids []string
			for _, m := range fresh.Members {
				ids = append(ids, m.ID+"="+m.Owner)
			}
			slices.Sort(ids)
			return tops[0].String() + " " + strings.Join(ids, " ")
		}
		eventually(t, "all nodes have the same", func() bool {
			want := stored()
			return words(0) == want && words(1) == want && words(2) == want
		})
		list := acknowledged[channel]
		slices.SortFunc(list, func(x, y broker.Position) int { return int(x.Offset) - int(y.Offset) })
		assert.Equal(t, list, slices.Compact(slices.Clone(list)), "no position is used twice")
		t.Logf("%s: %d events, at %s", channel, len(list), words(0)[:12])
	}
	for _, sink := range sinks {
		sink.mu.Lock()
		assert.Empty(t, sink.wrong)
		sink.mu.Unlock()
	}
}
