package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/hub"
)

func (w *watcher) page(t *testing.T) (p memberPage) {
	t.Helper()
	require.NoError(t, json.Unmarshal(w.answer, &p))
	return p
}

// A client returns to a node that has not followed its channel. The node does not know what has
// happened since, but finds out whether the client has its members, and who has joined.
func TestReturnToANodeThatDidNotFollow(t *testing.T) {
	t.Parallel()
	user := func(name string) string { return fmt.Sprintf(`{"name":%q,"user":%q}`, name, name) }
	for name, c := range map[string]struct {
		meanwhile func(t *testing.T, srv *pushy.Server, cyd *watcher)
		list      bool // the answer is a list
		add       int  // members in add
		perUser   bool
	}{
		"nothing": {func(*testing.T, *pushy.Server, *watcher) {}, false, 0, false},
		"others return": {func(t *testing.T, srv *pushy.Server, cyd *watcher) {
			for range 3 {
				cyd.Abort()
				<-cyd.done
				cyd = cyd.again(srv, user("cyd"))
			}
		}, false, 0, false},
		"members join": {func(t *testing.T, srv *pushy.Server, _ *watcher) {
			hold(t, srv, user("dan"))
			hold(t, srv, user("eve"))
		}, false, 2, false},
		"a member joins and leaves": {func(t *testing.T, srv *pushy.Server, _ *watcher) {
			hold(t, srv, user("dan")).Close(1000, "")
		}, false, 0, false},
		"a member leaves": {func(_ *testing.T, _ *pushy.Server, cyd *watcher) { cyd.Close(1000, "") }, true, 0, false},
		"one leaves, one joins": {func(t *testing.T, srv *pushy.Server, cyd *watcher) {
			cyd.Close(1000, "")
			hold(t, srv, user("cyd"))
		}, true, 0, false},
		"a state changes": {func(_ *testing.T, _ *pushy.Server, cyd *watcher) {
			cyd.send(command("pushy:update", `"state":{"typing":true}`))
		}, true, 0, false},
		"a state changes back": {func(_ *testing.T, _ *pushy.Server, cyd *watcher) {
			cyd.send(command("pushy:update", `"state":{"typing":true}`))
			cyd.send(command("pushy:update", `"state":null`))
		}, false, 0, false},
		"a user becomes idle": {func(_ *testing.T, _ *pushy.Server, cyd *watcher) {
			cyd.send(`{"command":"pushy:idle","data":{"idle":true}}`)
		}, true, 0, false},
		"users: nothing": {func(*testing.T, *pushy.Server, *watcher) {}, false, 0, true},
		"users: a new one": {func(t *testing.T, srv *pushy.Server, _ *watcher) {
			hold(t, srv, user("dan"))
			hold(t, srv, user("dan"))
		}, false, 1, true},
		"users: another tab": {func(t *testing.T, srv *pushy.Server, _ *watcher) { hold(t, srv, user("cyd")) }, true, 0, true},
		"users: another tab, closed": {func(t *testing.T, srv *pushy.Server, _ *watcher) {
			hold(t, srv, user("cyd")).Close(1000, "")
		}, false, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			onNodes(t, 2, presence(pushy.PresenceOptions{ClientState: true, PerUser: c.perUser}),
				func(t *testing.T, _ *memory.Cluster, nodes []node) {
					hold(t, nodes[0].Server, user("ann"))
					cyd := hold(t, nodes[0].Server, user("cyd"))
					bob := hold(t, nodes[0].Server, user("bob"))
					time.Sleep(time.Second)
					since := bob.at()
					bob.Abort()
					<-bob.done
					c.meanwhile(t, nodes[0].Server, cyd)
					time.Sleep(5 * time.Second)
					bob = bob.again(nodes[1].Server, user("bob"))
					p := bob.page(t)
					if c.list {
						assert.Empty(t, p.Since)
						assert.NotNil(t, p.List)
					} else {
						assert.Equal(t, since, p.Since)
						assert.Len(t, p.Add, c.add)
						assert.Empty(t, p.Quit)
						assert.Empty(t, p.Update)
					}
					time.Sleep(time.Second)
					assert.Equal(t, serverSees(t, nodes[0].Server), bob.seen())
					assert.Equal(t, serverSees(t, nodes[1].Server), bob.seen())
				})
		})
	}
}

// Recovery 23: all of three nodes are replaced, one after the other, while 3,000 clients are
// connected (300 without PUSHY_SOAK). Nobody joins and nobody leaves, and the answer to each
// client that returns says that nothing has changed, also on a node that has just started.
func TestRollingRestartIsInvisible(t *testing.T) {
	onCluster(t, 3, func(t *testing.T, cluster *memory.Cluster, nodes []node) {
		channels, each := 10, 30
		if soak {
			channels = 100
		}
		var clients []*roamer
		at := map[*roamer]int{} // the index of the client's node
		for i := range channels {
			for j := range each {
				c := newRoamer(t, fmt.Sprint(j))
				c.channel = fmt.Sprint("private-room-", i)
				c.diffs = true
				at[c] = (i + j) % 3
				c.enter(nodes[at[c]].Server)
				clients = append(clients, c)
			}
		}
		time.Sleep(time.Second)
		for _, c := range clients {
			c.settle()
		}
		for i := range nodes {
			down := make(chan error, 1)
			go func() { down <- nodes[i].Shutdown(context.Background()) }()
			returned := make(chan struct{})
			moving := 0
			for n, c := range clients {
				if at[c] != i {
					continue
				}
				moving++
				in := c.in
				to := (i + 1 + n%2) % 3
				at[c] = to
				go func() {
					assert.Equal(t, []string{"pushy:drain"}, c.last())
					assert.True(t, c.enter(nodes[to].Server))
					assert.Equal(t, in.MemberID, c.in.MemberID)
					members := c.in.Members
					assert.Equal(t, in.Members.Revision, members.Since)
					assert.Equal(t, each, members.Count)
					assert.Empty(t, members.Add)
					assert.Empty(t, members.Quit)
					assert.Empty(t, members.Update)
					returned <- struct{}{}
				}()
			}
			assert.Positive(t, moving)
			for range moving {
				<-returned
			}
			require.NoError(t, <-down)
			b := cluster.Broker()
			nodes[i] = node{startOn(t, b, pushy.Options{}), b}
			time.Sleep(time.Minute)
		}
		for _, c := range clients {
			assert.Empty(t, c.settle())
		}
	})
}

// Clients lose their connections and return to nodes that were restarted a moment ago, while
// others come and go. Each client has the members of its node in the end, whatever the answer
// to its return was.
func TestReturnsWhileMembersComeAndGo(t *testing.T) {
	t.Parallel()
	for _, perUser := range []bool{false, true} {
		t.Run(fmt.Sprint("users ", perUser), func(t *testing.T) {
			o := presence(pushy.PresenceOptions{ClientState: true, PerUser: perUser})
			onNodes(t, 3, o, func(t *testing.T, c *memory.Cluster, nodes []node) {
				r := rand.New(rand.NewPCG(23, 3))
				data := func() string { return fmt.Sprintf(`{"user":"u%d"}`, r.IntN(4)) }
				g := newGuest(t, c)
				var guests []string
				for i := range 5 {
					guests = append(guests, fmt.Sprint("m", i))
					g.join(guests[i], `{}`)
				}
				diffs, lists := 0, 0
				for step := range 150 {
					from, to := r.IntN(3), r.IntN(3)
					d := data()
					bob := hold(t, nodes[from].Server, d)
					time.Sleep(time.Duration(r.IntN(600)) * time.Millisecond)
					bob.Abort()
					<-bob.done
					if r.IntN(2) == 0 { // the node has no channel after that
						require.NoError(t, nodes[to].Server.Close())
						b := c.Broker()
						nodes[to] = node{startOn(t, b, o), b}
					}
					for range r.IntN(3) {
						other := hold(t, nodes[(to+1+r.IntN(2))%3].Server, data())
						switch r.IntN(4) {
						case 0: // it stays
						case 1:
							other.send(command("pushy:update", `"state":{"n":%d}`, r.IntN(3)))
						case 2:
							other.Close(1000, "")
						default:
							other.Close(1000, "")
							g.leave(guests[0])
							guests = append(guests[1:], fmt.Sprintf("n%d-%d", step, r.IntN(1e6)))
							g.join(guests[4], `{}`)
						}
						time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
					}
					back := bob.again(nodes[to].Server, d)
					if back.page(t).Since != "" {
						diffs++
					} else {
						lists++
					}
					for range 4 { // the lease of a node can end just now, and a batch is 250 ms late
						time.Sleep(1500 * time.Millisecond)
						synctest.Wait()
						if maps.Equal(serverSees(t, nodes[to].Server), back.seen()) {
							break
						}
					}
					require.Equal(t, serverSees(t, nodes[to].Server), back.seen(), "step %d", step)
					back.Close(1000, "")
					time.Sleep(time.Second)
				}
				assert.Greater(t, diffs, 20)
				assert.Greater(t, lists, 10)
			})
		})
	}
}

func TestRevisionsAreParsed(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"e.5":                    true,
		"e.5.0":                  true,
		"e.5.3w5e11264sgsf":      true, // the largest
		"":                       true,
		"e.5.3w5e11264sgsg":      false,
		"e.5.":                   false,
		"e.5.00":                 false,
		"e.5.A":                  false,
		"e.5.-1":                 false,
		"e.5.1.2":                false,
		"e..1":                   false,
		".5.1":                   false,
		"e.9007199254740992.1":   false,
		"e.05.1":                 false,
		"e.5.+1":                 false,
		"e.5.1_0":                false,
		"e.5. 1":                 false,
		"e.5.zzzzzzzzzzzzzzzzzz": false,
	} {
		r, err := hub.ParseRevision(text)
		assert.Equal(t, ok, err == nil, text)
		if ok {
			assert.Equal(t, text, r.String())
		}
	}
}

// A state that is too large for the broker is refused. The one before it, which the broker could
// not append yet, is still appended when it can.
func TestStateThatIsRefusedKeepsTheOneBefore(t *testing.T) {
	o := pushy.Options{Channel: func(string) pushy.ChannelOptions {
		return pushy.ChannelOptions{Presence: pushy.PresenceOptions{ClientState: true}}
	}}
	onFaulty(t, o, func(t *testing.T, _ *memory.Cluster, whole, srv *pushy.Server, b *faulty) {
		ann := connectPeer(t, whole)
		ann.subscribe(room, `{"name":"Ann"}`)
		bob := connectPeer(t, srv)
		bob.subscribe(room, `{"name":"Bob"}`)
		assert.Equal(t, "pushy:presence-add", ann.next().Event)
		fails := func(update error) {
			b.do(func(_ context.Context, _ string, e broker.Entry) (broker.Appended, error) {
				if e.Kind == broker.Update {
					return broker.Appended{}, update
				}
				return broker.Appended{}, broker.ErrAway
			})
		}
		fails(broker.ErrAway)
		const update = `{"command":"pushy:update","data":{"channel":"private-room","state":{"n":%d}},"id":%d}`
		assert.Equal(t, "pushy:reply", bob.ask(fmt.Sprintf(update, 1, 1)).Event)
		fails(broker.ErrTooLarge)
		assert.Equal(t, "pushy:error", bob.ask(fmt.Sprintf(update, 2, 2)).Event)
		b.do(b.Broker.Append)
		time.Sleep(10 * time.Second)
		f := ann.next()
		assert.Equal(t, "pushy:presence-update", f.Event)
		assert.Contains(t, string(f.Data), `"state":{"n":1}`)
		ann.quiet()
	})
}
