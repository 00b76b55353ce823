package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
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
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/testlog"
)

const resumedElsewhere = `pushy:subscription-end {"channel":"private-room","reason":"Resumed elsewhere","again":true}`

// A client whose connection is half-open, so that its node does not know that it is lost,
// resumes on another node, and then on a third one. The old connections end, and all lists
// have the member once. Of the hooks, each node calls Subscribe and Unsubscribe, with a mark.
func TestHalfOpenConnectionsAreReplaced(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		var seen [3]events
		var nodes [3]*pushy.Server
		for i := range nodes {
			nodes[i] = startOn(t, cluster.Broker(), pushy.Options{Hooks: seen[i].graceHooks()})
		}
		var others []*roamer
		for i := range nodes {
			other := newRoamer(t, fmt.Sprint("Other", i))
			other.enter(nodes[i])
			others = append(others, other)
		}
		bob := newRoamer(t, "Bob")
		bob.enter(nodes[0])
		id := bob.in.MemberID
		synctest.Wait()
		for i, other := range others {
			for range len(others) - i {
				assert.Equal(t, "pushy:presence-add", other.event())
			}
			seen[i].take()
		}
		first := bob.peer
		for i, srv := range []*pushy.Server{nodes[1], nodes[2], nodes[0], nodes[1]} {
			old := bob.peer
			require.True(t, bob.enter(srv))
			assert.Equal(t, id, bob.in.MemberID)
			old.expect(resumedElsewhere)
			old.quiet()
			synctest.Wait()
			from, to := &seen[[]int{0, 1, 2, 0}[i]], &seen[[]int{1, 2, 0, 1}[i]]
			assert.Equal(t, []string{"unsubscribe* " + old.id}, from.take())
			assert.Equal(t, []string{"connect " + bob.peer.id, "subscribe* " + bob.peer.id}, to.take())
			for j, srv := range nodes {
				assert.Equal(t, []string{"Other0", "Other1", "Other2", "Bob"}, membersOf(t, srv, room))
				others[j].quiet()
			}
		}
		first.Abort() // at last, the first node notices
		time.Sleep(time.Minute)
		for _, other := range others {
			other.quiet()
		}
		bob.drop()
		time.Sleep(16 * time.Second)
		for _, other := range others {
			assert.Equal(t, "pushy:presence-quit", other.event())
			other.quiet()
		}
	})
}

// The connection that another one on the same node replaces receives an end, and the hook
// Resume is called while it is still connected.
func TestHalfOpenConnectionOnTheSameNode(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		var seen events
		srv := startServer(t, pushy.Options{Hooks: seen.graceHooks()})
		ann := newRoamer(t, "Ann")
		ann.enter(srv)
		bob := newRoamer(t, "Bob")
		bob.enter(srv)
		assert.Equal(t, "pushy:presence-add", ann.event())
		old := bob.peer
		synctest.Wait()
		seen.take()
		require.True(t, bob.enter(srv))
		old.expect(resumedElsewhere)
		synctest.Wait()
		assert.Equal(t, []string{"connect " + bob.peer.id, "resume " + bob.peer.id + " of " + old.id}, seen.take())
		require.NoError(t, srv.Publish(t.Context(), room, "said", 1))
		bob.expect("said private-room 1")
		old.quiet()
		old.Abort()
		time.Sleep(time.Minute)
		ann.expect("said private-room 1")
		ann.quiet()
		assert.Equal(t, []string{"Ann", "Bob"}, membersOf(t, srv, room))
	})
}

// A duplicated tab has the key of the other one. One of them keeps the member, and the other
// becomes a new member, after one exchange; on one node and on two.
func TestDuplicateTab(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			onCluster(t, nodes, func(t *testing.T, _ *memory.Cluster, all []node) {
				tab := newRoamer(t, "Bob")
				tab.enter(all[0].Server)
				duplicate := newRoamer(t, "Bob")
				duplicate.in = tab.in
				require.True(t, duplicate.enter(all[nodes-1].Server))
				tab.expect(resumedElsewhere)
				tab.in = admission{} // it must not use the key again
				tab.subscribeAgain()
				assert.NotEqual(t, duplicate.in.MemberID, tab.in.MemberID)
				assert.Equal(t, "pushy:presence-add", duplicate.event())
				time.Sleep(time.Hour)
				tab.quiet()
				duplicate.quiet()
				assert.Equal(t, []string{"Bob", "Bob"}, membersOf(t, all[0].Server, room))
				duplicate.drop()
				require.True(t, duplicate.enter(all[0].Server))
				tab.quiet()
			})
		})
	}
}

// Recovery 22: a node with 1,000 members (100 without PUSHY_SOAK) is killed, and 900 of them
// return to other nodes within 10 s. Nobody hears of these; the other 100 leave after 15 s.
func TestKilledNodeOfThousandMembers(t *testing.T) {
	onCluster(t, 3, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		channels, each, lost := 2, 50, 5
		if soak {
			channels, each, lost = 10, 100, 10
		}
		r := rand.New(rand.NewPCG(1, 22))
		var watchers, clients []*roamer
		for i := range channels {
			watcher := newRoamer(t, "Watcher")
			watcher.channel = fmt.Sprint("private-room-", i)
			watcher.enter(nodes[0].Server)
			watchers = append(watchers, watcher)
			for j := range each {
				c := newRoamer(t, fmt.Sprint(i, "-", j))
				c.channel = watcher.channel
				c.enter(nodes[1].Server)
				assert.Equal(t, "pushy:presence-add", watcher.event())
				clients = append(clients, c)
			}
		}
		nodes[1].Kill()
		var all sync.WaitGroup
		for i, c := range clients {
			c.Abort()
			if i%each < lost {
				continue
			}
			id := c.in.MemberID
			delay := time.Duration(r.IntN(10_000)) * time.Millisecond
			to := nodes[i%2*2].Server
			all.Go(func() {
				time.Sleep(delay)
				assert.True(t, c.enter(to))
				assert.Equal(t, id, c.in.MemberID)
			})
		}
		time.Sleep(memberLease - time.Millisecond)
		all.Wait()
		for _, watcher := range watchers {
			watcher.quiet()
		}
		time.Sleep(2 * time.Millisecond)
		for _, watcher := range watchers {
			for range lost {
				assert.Equal(t, "pushy:presence-quit", watcher.event())
			}
			watcher.quiet()
			assert.Len(t, membersOf(t, nodes[0].Server, watcher.channel), each-lost+1)
		}
	})
}

// soak makes the tests of crowds as large as recovery.md demands.
var soak = os.Getenv("PUSHY_SOAK") != ""

// settle reads what has arrived, and returns the names of the events.
func (r *roamer) settle() (events []string) {
	r.t.Helper()
	r.send(`{"command":"settle","id":"settle"}`)
	for {
		f := r.next()
		if f.Event == "pushy:error" {
			return events
		}
		events = append(events, f.Event)
		if r.diffs && f.Event == "pushy:presence-diff" {
			require.NoError(r.t, json.Unmarshal(f.Data, &r.in.Members))
		}
	}
}

// last reads to the end of the connection, and returns the names of the events.
func (r *roamer) last() (events []string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	for {
		text, err := r.Receive(ctx)
		var end *session.CloseError
		if errors.As(err, &end) {
			return events
		}
		require.NoError(r.t, err)
		f, err := parseFrame(text)
		require.NoError(r.t, err)
		events = append(events, f.Event)
	}
}

// A client that returns to a node that has its channel receives the changes since its
// revision: usually none.
func TestReturningClientReceivesADiff(t *testing.T) {
	onCluster(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		type members struct {
			Revision string
			Since    string
			Add      []json.RawMessage
			Quit     []string
		}
		enter := func(c *roamer, srv *pushy.Server, since string) members {
			c.connect(srv)
			mode := `,"presence":{"mode":"diff"}}}`
			if since != "" {
				mode = fmt.Sprintf(`,"presence":{"mode":"diff","since":%q}}}`, since)
			}
			c.send(strings.TrimSuffix(c.command(), "}}") + mode)
			f := c.next()
			require.Equal(t, "pushy:subscription-success", f.Event, "%s", f)
			c.admitted(f)
			var data struct{ Members members }
			require.NoError(t, json.Unmarshal(f.Data, &data))
			return data.Members
		}
		ann, bob, cyd := newRoamer(t, "Ann"), newRoamer(t, "Bob"), newRoamer(t, "Cyd")
		enter(ann, nodes[1].Server, "")
		enter(cyd, nodes[0].Server, "") // so that both nodes have the channel
		first := enter(bob, nodes[0].Server, "")
		for i := range 4 {
			bob.drop()
			time.Sleep(time.Second)
			next := enter(bob, nodes[i%2].Server, first.Revision)
			require.NotNil(t, bob.in.Resumed)
			assert.True(t, *bob.in.Resumed)
			assert.Equal(t, first.Revision, next.Since, i)
			assert.Empty(t, next.Add)
			assert.Empty(t, next.Quit)
		}
	})
}

// revoking is an Authorizer that refuses the users in it.
type revoking struct {
	mu    sync.Mutex
	users map[string]error
}

func (r *revoking) refuse(user string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users = map[string]error{user: err}
}

func (r *revoking) Authorize(_ context.Context, q pushy.AuthRequest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.users[q.Conn.UserID()]
}

// The access of a client is revoked while it is away. Although its key is good, it is
// refused, and its member leaves at once; also if its old connection is half-open, and if it
// was on another node. The member stays if another user asks, or nobody can decide.
func TestAccessIsRevokedMeanwhile(t *testing.T) {
	t.Parallel()
	denied := &pushy.Error{Message: "You were removed"}
	for name, c := range map[string]struct {
		to     int // the node that refuses
		open   bool
		user   string
		err    error
		leaves bool
	}{
		"same node":         {0, false, "bob", pushy.ErrDenied, true},
		"another node":      {1, false, "bob", pushy.ErrDenied, true},
		"own error":         {1, false, "bob", denied, true},
		"half-open":         {0, true, "bob", pushy.ErrDenied, true},
		"half-open, other":  {1, true, "bob", pushy.ErrDenied, true},
		"another user":      {0, false, "eve", pushy.ErrDenied, false},
		"cannot be decided": {1, false, "bob", errors.New("no database"), false},
		"needs a login":     {1, false, "bob", pushy.ErrNeedAuth, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				cluster := newCluster()
				rule := &revoking{}
				var nodes [2]*pushy.Server
				for i := range nodes {
					nodes[i] = startOn(t, cluster.Broker(), pushy.Options{Authorizer: rule})
				}
				ann := newRoamer(t, "Ann")
				ann.enter(nodes[0])
				bob := newRoamer(t, "Bob")
				bob.user = "bob"
				bob.enter(nodes[0])
				assert.Equal(t, "pushy:presence-add", ann.event())
				old := bob.peer
				if !c.open {
					bob.drop()
				}
				rule.refuse(c.user, c.err)
				bob.user = c.user
				bob.connect(nodes[c.to])
				bob.send(bob.command())
				assert.Contains(t, []string{"pushy:subscription-failed", "pushy:subscription-needauth"}, bob.event())
				synctest.Wait()
				if !c.leaves {
					ann.quiet()
					return
				}
				assert.Equal(t, "pushy:presence-quit", ann.event())
				ann.quiet()
				if c.open {
					for f := old.next(); f.Event != "pushy:subscription-end"; f = old.next() {
						continue
					}
				}
				time.Sleep(time.Minute)
				ann.quiet()
				assert.Equal(t, []string{"Ann"}, membersOf(t, nodes[0], room))
			})
		})
	}
}

// Only the same user takes a member over: on a shared computer, the next user must not become
// the last one. The member of the other user leaves, and the client becomes a new member.
func TestAnotherUserDoesNotTakeOver(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		user, data           string
		nextUser, nextData   string
		ownAuthorizer, again bool
	}{
		"the same id":             {"1", `{"name":"Bob"}`, "1", `{"name":"Bob"}`, false, true},
		"another id":              {"1", `{"name":"Bob"}`, "2", `{"name":"Bob"}`, false, false},
		"no id any more":          {"1", `{"name":"Bob"}`, "", `{"name":"Bob"}`, false, false},
		"an id now":               {"", `{"name":"Bob"}`, "1", `{"name":"Bob"}`, false, false},
		"the same signed user":    {"", `{"name":"Bob","user":7}`, "", `{"name":"Bob","user":7}`, false, true},
		"another signed user":     {"", `{"name":"Bob","user":7}`, "", `{"name":"Bob","user":8}`, false, false},
		"user that is not signed": {"", `{"name":"Bob","user":7}`, "", `{"name":"Bob","user":8}`, true, true},
		"no user at all":          {"", `{"name":"Bob"}`, "", `{"name":"Bob"}`, false, true},
	} {
		for to := range 2 {
			t.Run(fmt.Sprint(name, " ", to), func(t *testing.T) {
				t.Parallel()
				fakeTime(t, func(t *testing.T) {
					o := pushy.Options{}
					if c.ownAuthorizer {
						o.Authorizer = allowAll{}
					}
					cluster := newCluster()
					var nodes [2]*pushy.Server
					for i := range nodes {
						nodes[i] = startOn(t, cluster.Broker(), o)
					}
					ann := newRoamer(t, "Ann")
					ann.enter(nodes[0])
					bob := newRoamer(t, "")
					bob.user = c.user
					bob.data = c.data
					bob.enter(nodes[0])
					assert.Equal(t, "pushy:presence-add", ann.event())
					bob.drop()
					bob.user = c.nextUser
					bob.data = c.nextData
					assert.Equal(t, c.again, bob.enter(nodes[to]))
					if !c.again {
						assert.Equal(t, "pushy:presence-quit", ann.event())
						assert.Equal(t, "pushy:presence-add", ann.event())
					} else if c.data != c.nextData {
						assert.Equal(t, "pushy:presence-update", ann.event())
					}
					ann.quiet()
					assert.Equal(t, []string{"Ann", "Bob"}, membersOf(t, nodes[0], room))
				})
			})
		}
	}
}

// If a client returns with other data, the others receive an update, not a leave and a join.
func TestReturningWithOtherData(t *testing.T) {
	onCluster(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		ann := newRoamer(t, "Ann")
		ann.enter(nodes[0].Server)
		bob := newRoamer(t, "Bob")
		bob.enter(nodes[0].Server)
		assert.Equal(t, "pushy:presence-add", ann.event())
		for i, name := range []string{"Bobby", "Robert", "Rob"} {
			bob.drop()
			bob.data = `{"name":"` + name + `"}`
			assert.True(t, bob.enter(nodes[i%2].Server))
			assert.Equal(t, "pushy:presence-update", ann.event())
			ann.quiet()
			for _, n := range nodes {
				if _, open := n.Channels().Lookup(room); open {
					assert.Equal(t, []string{"Ann", name}, membersOf(t, n.Server, room))
				}
			}
		}
	})
}

// slowSink is a node to which the broker delivers late.
type slowSink struct {
	*memory.Broker
	late time.Duration
}

func (s *slowSink) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	return s.Broker.Open(ctx, o, &heldBackSink{sink: sink, late: s.late})
}

// heldBackSink passes on what is delivered in order, late.
type heldBackSink struct {
	sink  broker.Sink
	late  time.Duration
	mu    sync.Mutex
	queue []func()
}

func (l *heldBackSink) add(call func()) {
	l.mu.Lock()
	l.queue = append(l.queue, call)
	l.mu.Unlock()
	time.AfterFunc(l.late, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		next := l.queue[0]
		l.queue = l.queue[1:]
		next()
	})
}

func (l *heldBackSink) Deliver(channel string, e broker.Entry) {
	l.add(func() { l.sink.Deliver(channel, e) })
}

func (l *heldBackSink) Reset(channel string, s broker.State, reason string) {
	l.add(func() { l.sink.Reset(channel, s, reason) })
}

// Recovery 28: a client moves between nodes faster than the broker delivers, which is 500 ms
// late. It has its member in the end, and nobody notices. The moves are those of a client that
// is lost before the answer, of one whose nodes do not notice that, and of both.
func TestMovesFasterThanTheBrokerDelivers(t *testing.T) {
	t.Parallel()
	const late = 500 * time.Millisecond
	for name, c := range map[string]struct {
		asking, pause time.Duration // for the answer, and until the next move
		random        bool          // at most so long
		open          bool          // connections are half-open
		answered      bool          // every fourth time, the client waits for the answer
	}{
		"as clients do":            {100 * time.Millisecond, 400 * time.Millisecond, false, false, true},
		"half-open":                {100 * time.Millisecond, 400 * time.Millisecond, false, true, true},
		"faster":                   {50 * time.Millisecond, 50 * time.Millisecond, false, false, false},
		"faster, half-open":        {50 * time.Millisecond, 50 * time.Millisecond, false, true, false},
		"at once":                  {10 * time.Millisecond, 0, false, false, false},
		"at once, half-open":       {10 * time.Millisecond, 0, false, true, false},
		"random":                   {700 * time.Millisecond, 300 * time.Millisecond, true, false, true},
		"random, half-open":        {700 * time.Millisecond, 300 * time.Millisecond, true, true, true},
		"random, fast":             {90 * time.Millisecond, 20 * time.Millisecond, true, false, true},
		"random, fast, half-open":  {90 * time.Millisecond, 20 * time.Millisecond, true, true, true},
		"slow":                     {600 * time.Millisecond, 600 * time.Millisecond, false, false, true},
		"the delay exactly":        {late, 0, false, false, true},
		"half the delay, halfopen": {late / 2, 0, false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seeds := 3
			if soak {
				seeds = 50
			}
			for seed := range seeds {
				fakeTime(t, func(t *testing.T) {
					r := rand.New(rand.NewPCG(28, uint64(seed)))
					wait := func(d time.Duration) {
						if c.random {
							d = time.Duration(r.Int64N(int64(d) + 1))
						}
						time.Sleep(d)
					}
					cluster := newCluster()
					var nodes [3]*pushy.Server
					for i := range nodes {
						nodes[i] = startOn(t, &slowSink{Broker: cluster.Broker(), late: late}, pushy.Options{})
						newRoamer(t, fmt.Sprint("Other", i)).enter(nodes[i])
					}
					bob := newRoamer(t, "Bob")
					bob.enter(nodes[0])
					time.Sleep(10 * time.Second)
					ann := newRoamer(t, "Ann")
					ann.enter(nodes[1])
					time.Sleep(10 * time.Second)
					in := bob.in
					if !c.open {
						bob.drop()
					}
					for i := range 12 {
						to := nodes[(i+1)%3]
						if c.random {
							to = nodes[r.IntN(3)]
						}
						if c.answered && i%4 == 3 {
							assert.True(t, bob.enter(to), "move %d", i)
							assert.Equal(t, in.MemberID, bob.in.MemberID)
						} else {
							bob.connect(to)
							bob.send(bob.command())
							wait(c.asking)
							bob.in = in
						}
						if !c.open {
							bob.Abort()
						}
						wait(c.pause)
					}
					time.Sleep(time.Millisecond) // claims of the same moment have no order
					require.True(t, bob.enter(nodes[2]))
					assert.Equal(t, in.MemberID, bob.in.MemberID)
					time.Sleep(time.Minute)
					assert.Empty(t, ann.settle())
					assert.Empty(t, bob.settle())
					for _, srv := range nodes {
						assert.Equal(t, []string{"Other0", "Other1", "Other2", "Bob", "Ann"}, membersOf(t, srv, room))
					}
				})
			}
		})
	}
}

// A client that connects again and again cannot fill a channel with members that are held:
// those that its address may have connected are the most.
func TestHeldMembersCountForTheirAddress(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		log := &testlog.Log{}
		srv := startServer(t, pushy.Options{
			Logger: log.Logger(),
			Limits: pushy.Limits{PerAddress: 3},
		})
		for i := range 10 {
			c := newRoamer(t, fmt.Sprint(i))
			c.address = "192.0.2.1:1"
			c.enter(srv)
			c.drop()
		}
		assert.Len(t, membersOf(t, srv, room), 3)
		assert.Len(t, log.With("members leave at once"), 1)
		other := newRoamer(t, "Other")
		other.address = "192.0.2.2:1"
		other.enter(srv)
		other.drop()
		assert.Len(t, membersOf(t, srv, room), 4)
		time.Sleep(16 * time.Second)
		assert.Zero(t, srv.Entries())
		c := newRoamer(t, "again")
		c.address = "192.0.2.1:1"
		for range 10 {
			c.enter(srv)
			c.drop()
		}
		assert.Len(t, membersOf(t, srv, room), 1)
	})
}

// A Server that shuts down ends the members that are not held, and leaves the others to its
// lease. The hooks of both are called.
func TestShutdownLeavesHeldMembersToTheLease(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		var seen events
		other := startOn(t, cluster.Broker(), pushy.Options{})
		srv := startOn(t, cluster.Broker(), pushy.Options{Hooks: seen.graceHooks()})
		ann := newRoamer(t, "Ann")
		ann.enter(other)
		bob, cyd := newRoamer(t, "Bob"), newRoamer(t, "Cyd")
		bob.enter(srv)
		cyd.enter(srv)
		dan := connectPeer(t, srv)
		dan.subscribe(room, `{"name":"Dan"}`)
		for range 3 {
			assert.Equal(t, "pushy:presence-add", ann.event())
		}
		cyd.drop()
		synctest.Wait()
		seen.take()
		go bob.last()
		go dan.ended()
		require.NoError(t, srv.Shutdown(t.Context()))
		words := strings.Join(seen.take(), "\n")
		assert.Equal(t, 3, strings.Count(words, "unsubscribe "), words)
		assert.True(t, strings.HasSuffix(words, "vacated"), words)
		assert.Equal(t, "pushy:presence-quit", ann.event(), "Dan")
		ann.quiet()
		time.Sleep(14 * time.Second)
		ann.quiet()
		require.True(t, bob.enter(other))
		time.Sleep(2 * time.Second)
		assert.Equal(t, "pushy:presence-quit", ann.event(), "Cyd")
		ann.quiet()
		assert.Equal(t, []string{"Ann", "Bob"}, membersOf(t, other, room))
	})
}

// A Server that is alone says for how long after its start its lists can lack members.
func TestSettling(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{})
		time.Sleep(3 * time.Second)
		bob := newRoamer(t, "Bob")
		bob.enter(srv)
		assert.Equal(t, 12_000, bob.in.Settling)
		time.Sleep(12 * time.Second)
		ann := newRoamer(t, "Ann")
		ann.enter(srv)
		assert.Zero(t, ann.in.Settling)
		old := connectPeer(t, startServer(t, pushy.Options{}))
		assert.NotContains(t, string(old.subscribe(room, `{"name":"Old"}`).Data), "settling")
	})
}

// A client that returns to a Server that was restarted without a broker keeps its memberId,
// since the others keep the members that have not returned yet.
func TestARestartedServerKeepsTheMemberIDs(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		first := startServer(t, pushy.Options{})
		ann := newRoamer(t, "Ann")
		bob := newRoamer(t, "Bob")
		cyd := newRoamer(t, "Cyd")
		for _, one := range []*roamer{ann, bob, cyd} {
			one.enter(first)
		}
		id := ann.in.MemberID
		key := ann.in
		require.NoError(t, first.Close())

		var seen events
		second := startServer(t, pushy.Options{Hooks: seen.graceHooks()})
		assert.True(t, bob.enter(second))
		assert.True(t, ann.enter(second))
		assert.Equal(t, id, ann.in.MemberID)
		assert.Equal(t, "pushy:presence-add", bob.event())

		twin := newRoamer(t, "Ann")
		twin.in = key
		assert.True(t, twin.enter(second))
		assert.Equal(t, id, twin.in.MemberID)
		assert.Equal(t, "pushy:subscription-end", ann.event())
		bob.quiet()
		assert.Len(t, membersOf(t, second, room), 2)

		stranger := newRoamer(t, "Mallory")
		stranger.in = key
		stranger.in.Key = strings.Repeat("A", 22)
		assert.False(t, stranger.enter(second))
		assert.NotEqual(t, id, stranger.in.MemberID)

		gone := newRoamer(t, "Gone")
		gone.enter(second)
		gone.send(`{"command":"unsubscribe","data":{"channel":"` + room + `"}}`)
		assert.Equal(t, "pushy:subscription-end", gone.event())
		left := gone.in
		gone.drop()
		gone.in = left
		assert.False(t, gone.enter(second), "it has left this process")

		time.Sleep(16 * time.Second)
		assert.False(t, cyd.enter(second), "all clients have returned")
	})
}

// On a shared computer, the next user has the key of the last one. A Server that was restarted
// without a broker does not know who the last one was, but the key is of no use to another user.
func TestARestartedServerGivesAMemberIDOnlyToItsUser(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		user, data         string
		nextUser, nextData string
		again              bool
	}{
		"the same id":          {"1", `{"name":"Bob"}`, "1", `{"name":"Bob"}`, true},
		"another id":           {"1", `{"name":"Bob"}`, "2", `{"name":"Bob"}`, false},
		"no id any more":       {"1", `{"name":"Bob"}`, "", `{"name":"Bob"}`, false},
		"an id now":            {"", `{"name":"Bob"}`, "1", `{"name":"Bob"}`, false},
		"the same signed user": {"", `{"user":7}`, "", `{"user":7,"name":"Bob"}`, true},
		"another signed user":  {"", `{"user":7}`, "", `{"user":8}`, false},
		"no user at all":       {"", `{"name":"Bob"}`, "", `{"name":"Bob"}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				first := startServer(t, pushy.Options{})
				bob := newRoamer(t, "")
				bob.user = c.user
				bob.data = c.data
				bob.enter(first)
				id := bob.in.MemberID
				had := bob.in
				require.NoError(t, first.Close())

				second := startServer(t, pushy.Options{})
				next := newRoamer(t, "")
				next.user = c.nextUser
				next.data = c.nextData
				next.in = had
				assert.Equal(t, c.again, next.enter(second))
				assert.Equal(t, c.again, id == next.in.MemberID)
				if c.again {
					return
				}
				next.drop()
				assert.True(t, next.enter(second), "the key that it has received is its own")
				bob.in = had
				assert.True(t, bob.enter(second), "the id is still that of its user")
				assert.Equal(t, id, bob.in.MemberID)
			})
		})
	}
}

// balance counts the hooks of a cluster.
type balance struct {
	members, conns, channels atomic.Int64
}

func (b *balance) hooks() pushy.Hooks {
	return pushy.Hooks{
		Connect:         func(*pushy.Conn) { b.conns.Add(1) },
		Disconnect:      func(*pushy.Conn, int, string) { b.conns.Add(-1) },
		Subscribe:       func(*pushy.Conn, *pushy.Channel) { b.members.Add(1) },
		Unsubscribe:     func(*pushy.Conn, *pushy.Channel) { b.members.Add(-1) },
		ChannelOccupied: func(*pushy.Channel) { b.channels.Add(1) },
		ChannelVacated:  func(*pushy.Channel) { b.channels.Add(-1) },
	}
}

// 200 clients (60 without PUSHY_SOAK) on three nodes lose their connections, move, reload and
// duplicate their tabs.
// At the end each member is in all lists once or nowhere, and the hooks balance.
func TestCrowdOfReturningClients(t *testing.T) {
	for _, late := range []time.Duration{0, 50 * time.Millisecond} {
		t.Run(late.String(), func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				cluster := newCluster()
				var hooks [3]balance
				var nodes [3]*pushy.Server
				for i := range nodes {
					b := &slowSink{Broker: cluster.Broker(), late: late}
					nodes[i] = startOn(t, b, pushy.Options{Hooks: hooks[i].hooks()})
				}
				const channels = 4
				clients := 60
				if soak {
					clients = 200
				}
				var all sync.WaitGroup
				present := make([]*roamer, clients)
				for i := range clients {
					r := rand.New(rand.NewPCG(uint64(i), 5))
					c := newRoamer(t, fmt.Sprint(i))
					c.channel = fmt.Sprint("private-room-", i%channels)
					all.Go(func() { present[i] = flap(c, r, nodes[:]) })
				}
				all.Wait()
				time.Sleep(time.Minute)
				for i := range channels {
					channel := fmt.Sprint("private-room-", i)
					var want []string
					for _, c := range present {
						if c != nil && c.channel == channel {
							want = append(want, c.in.MemberID)
						}
					}
					for _, srv := range nodes {
						if ch, open := srv.Channels().Lookup(channel); open {
							assert.ElementsMatch(t, want, idsOf(t, ch))
						}
					}
				}
				for _, c := range present {
					if c != nil {
						c.Close(1000, "")
					}
				}
				time.Sleep(time.Hour)
				for i, srv := range nodes {
					assert.Zero(t, srv.Entries())
					assert.Zero(t, hooks[i].members.Load())
					assert.Zero(t, hooks[i].conns.Load())
					assert.Zero(t, hooks[i].channels.Load())
				}
			})
		})
	}
}

func idsOf(t *testing.T, ch *pushy.Channel) (ids []string) {
	all, _ := ch.Presence()
	for _, m := range all {
		var fields struct{ MemberID string }
		require.NoError(t, json.Unmarshal(m.JSON, &fields))
		ids = append(ids, fields.MemberID)
	}
	return ids
}

// flap makes a client come and go. It returns the client if it is a member at the end.
func flap(c *roamer, r *rand.Rand, nodes []*pushy.Server) *roamer {
	c.enter(nodes[r.IntN(3)])
	c.pump()
	for range 8 {
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
		to := nodes[r.IntN(3)]
		switch r.IntN(6) {
		case 0: // it reloads
			c.Close(1001, "")
		case 1: // it loses the connection
			c.Abort()
		case 2: // it asks, and is lost before the answer
			c.Abort()
			c.connect(to)
			c.send(c.command())
			time.Sleep(time.Duration(r.IntN(80)) * time.Millisecond)
			c.Abort()
		case 3: // its connection is half-open for a moment
			old := c.peer
			time.AfterFunc(time.Duration(r.IntN(3000))*time.Millisecond, func() { old.Abort() })
		case 4: // its tab is duplicated, and the duplicate is closed soon
			duplicate := newRoamer(c.t, "duplicate")
			duplicate.channel = c.channel
			duplicate.data = c.data
			duplicate.in = c.in
			duplicate.enter(to)
			duplicate.pump()
			old := c.peer
			c.in = admission{}
			time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
			duplicate.Close(1000, "")
			old.Abort()
		case 5: // it stays away for too long
			c.Abort()
			time.Sleep(time.Duration(r.IntN(20)) * time.Second)
		}
		time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
		c.enter(nodes[r.IntN(3)])
		c.pump()
	}
	if r.IntN(2) == 0 {
		c.Close(1000, "")
		return nil
	}
	return c
}

// pump reads whatever comes, so that the connection is never slow.
func (r *roamer) pump() {
	p := r.peer
	go func() {
		for {
			if _, err := p.Receive(context.Background()); err != nil {
				return
			}
		}
	}()
}
