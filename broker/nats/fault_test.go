package nats_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/internal/natstest"
	"github.com/gopushy/pushy/internal/testproc"
)

// natsCluster is three servers with JetStream.
func natsCluster(t testing.TB) (servers []*natstest.Server, url string) {
	t.Helper()
	servers, err := natstest.Cluster(3)
	require.NoError(t, err)
	for _, s := range servers {
		t.Cleanup(s.Close)
	}
	return servers, natstest.URLs(servers)
}

// A URL with several servers connects, and goes on when one of them is killed that leads
// a stream: no member leaves, no kept event is lost or comes twice, and no position is
// used again.
func TestClusterLosesItsLeader(t *testing.T) {
	t.Parallel()
	servers, url := natsCluster(t)
	o := nats.Options{URL: url, Replicas: 3, Timeout: 10 * time.Second}
	a, b := open(t, o), open(t, o)
	for _, n := range []*node{a, b} {
		// The servers elect a leader first.
		eventually(t, "the node is connected", func() bool { return n.Away() == nil })
	}
	b.follow("room")
	a.append("room", join("1"))
	assert.Equal(t, "1", b.nextMember().Member)
	last := broker.Position{}
	for i := range 20 {
		last = a.append("room", kept(strconv.Itoa(i))).At
		assert.Equal(t, last, b.nextEvent().At)
	}
	_, js := admin(t, servers[0].URL+","+servers[1].URL+","+servers[2].URL)
	leader := map[string]int{} // by stream
	for _, name := range []string{"members", "k64h48"} {
		eventually(t, "the stream has a leader", func() bool {
			s, err := js.Stream(t.Context(), prefix(t)+"-1-"+name)
			if err != nil || s.CachedInfo().Cluster == nil {
				return false
			}
			assert.Equal(t, 3, s.CachedInfo().Config.Replicas)
			i, err := strconv.Atoi(strings.TrimPrefix(s.CachedInfo().Cluster.Leader, "n"))
			leader[name] = i
			return err == nil
		})
	}
	servers[leader["members"]].Stop()

	// Appends fail or succeed until then; those that succeed are in the log.
	var acknowledged []broker.Position
	for i := 20; len(acknowledged) < 20; i++ {
		got, err := a.Append(t.Context(), "room", kept(strconv.Itoa(i)))
		if err == nil {
			acknowledged = append(acknowledged, got.At)
		} else {
			<-time.After(50 * time.Millisecond)
		}
		require.Less(t, i, 2000)
	}
	eventually(t, "both nodes are back", func() bool { return a.Away() == nil && b.Away() == nil })
	p, err := b.Read(t.Context(), "room", broker.Range{Epoch: last.Epoch, After: last.Offset, Limit: 1000})
	require.NoError(t, err)
	for _, at := range acknowledged {
		assert.True(t, slices.ContainsFunc(p.Entries, func(e broker.Entry) bool { return e.At == at }), "%v", at)
	}
	eventually(t, "a member joins again", func() bool {
		_, err := a.Append(t.Context(), "room", join("2"))
		return err == nil
	})
	eventually(t, "the other node has both members", func() bool {
		state, err := b.Follow(t.Context(), "room") // on a busy machine it may be away once more
		return err == nil && len(state.Members) == 2
	})
	assert.Equal(t, []string{"1", "2"}, b.members("room"))
	for got := range drained(b) {
		if got.state != nil {
			last = got.state.At
			continue
		}
		assert.NotEqual(t, broker.Leave, got.entry.Kind)
		if got.entry.Kind == broker.Event {
			assert.Equal(t, broker.Position{Epoch: last.Epoch, Offset: last.Offset + 1}, got.entry.At)
			last = got.entry.At
		}
	}
}

// drained are the calls of a sink so far.
func drained(n *node) func(yield func(news) bool) {
	return func(yield func(news) bool) {
		for {
			select {
			case got := <-n.told:
				if !yield(got) {
					return
				}
			default:
				return
			}
		}
	}
}

// What the store loses ends the epoch on all nodes, which are reset and can join their
// members again; no position from before fits.
func TestLostStreams(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(js jetstream.JetStream, s *natstest.Server, prefix string) error{
		"membersDeleted": func(js jetstream.JetStream, _ *natstest.Server, prefix string) error {
			return js.DeleteStream(context.Background(), prefix+"-1-members")
		},
		"membersPurged": func(js jetstream.JetStream, _ *natstest.Server, prefix string) error {
			s, err := js.Stream(context.Background(), prefix+"-1-members")
			if err != nil {
				return err
			}
			return s.Purge(context.Background())
		},
		"allDeleted": func(js jetstream.JetStream, _ *natstest.Server, prefix string) error {
			for name := range js.StreamNames(context.Background()).Name() {
				if err := js.DeleteStream(context.Background(), name); err != nil {
					return err
				}
			}
			return nil
		},
		"serverRestarted": func(_ jetstream.JetStream, s *natstest.Server, _ string) error {
			s.Stop()
			return s.Restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := ownNATS(t)
			o := nats.Options{URL: s.URL, Timeout: 20 * time.Second}
			var nodes []*node
			for range 2 {
				n, err := try(t, o, shortLease, nil)
				require.NoError(t, err)
				n.follow("room")
				nodes = append(nodes, n)
			}
			a, b := nodes[0], nodes[1]
			a.append("room", join("1"))
			at := a.append("room", kept("1")).At
			before := b.follow("room").Revision
			_, js := admin(t, s.URL)
			require.NoError(t, lose(js, s, prefix(t)))
			for _, n := range nodes {
				// A node that reads before the epoch is stored is reset once more.
				got := n.next(func(got news) bool { return got.state != nil && got.state.Revision.Epoch != before.Epoch })
				assert.Equal(t, broker.ResetEpoch, got.reason)
				assert.Empty(t, got.state.Members)
			}
			eventually(t, "both are back", func() bool { return a.Away() == nil && b.Away() == nil })
			eventually(t, "the member can join again", func() bool {
				got, err := a.Append(t.Context(), "room", join("1"))
				return err == nil && !got.Duplicate
			})
			assert.Equal(t, []string{"1"}, b.members("room"))
			_, err := a.Read(t.Context(), "room", broker.Range{Epoch: at.Epoch, After: at.Offset, Limit: 10})
			require.ErrorIs(t, err, broker.ErrEpoch)
			again := a.append("room", kept("2")).At
			assert.NotEqual(t, at, again)
			if again.Epoch == at.Epoch {
				assert.Greater(t, again.Offset, at.Offset, "the log has survived")
			}
		})
	}
}

// A stream of kept events that loses its messages, all or those of a channel, is not
// continued with numbers that were used.
func TestLostEvents(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]jetstream.StreamPurgeOpt{
		"all":     nil,
		"channel": {jetstream.WithPurgeSubject("PREFIX.1.k.k64h48.room")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := ownNATS(t)
			o := nats.Options{URL: s.URL, Prefix: "PREFIX"}
			a, b := open(t, o), open(t, o)
			b.follow("room")
			var at broker.Position
			for range 3 {
				at = a.append("room", kept("1")).At
			}
			b.next(func(got news) bool { return got.entry.At == at })
			_, js := admin(t, s.URL)
			stream, err := js.Stream(t.Context(), "PREFIX-1-k64h48")
			require.NoError(t, err)
			require.NoError(t, stream.Purge(t.Context(), options...))
			var again broker.Position
			eventually(t, "events are kept again", func() bool {
				got, err := a.Append(t.Context(), "room", kept("2"))
				again = got.At
				return err == nil
			})
			assert.NotEqual(t, at.Epoch, again.Epoch)
			eventually(t, "the other node is back", func() bool { return b.Away() == nil })
			got := b.nextReset("room")
			assert.Equal(t, broker.ResetEpoch, got.reason)
		})
	}
}

// A log whose end is lost, as after a power failure, begins a new epoch when a node
// knows more.
func TestLostEndOfLog(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	p := newProxy(t, s)
	a, b := open(t, nats.Options{URL: s.URL}), open(t, nats.Options{URL: p.url})
	b.follow("room")
	var at broker.Position
	for range 5 {
		at = a.append("room", kept("1")).At
	}
	b.next(func(got news) bool { return got.entry.At == at })
	mend := p.Cut()
	eventually(t, "it is away", func() bool { return b.Away() != nil })
	_, js := admin(t, s.URL)
	stream, err := js.Stream(t.Context(), prefix(t)+"-1-k64h48")
	require.NoError(t, err)
	subject := prefix(t) + ".1.k.k64h48.room"
	last, err := stream.GetLastMsgForSubject(t.Context(), subject)
	require.NoError(t, err)
	third, err := stream.GetMsg(t.Context(), last.Sequence-2)
	require.NoError(t, err)
	require.NoError(t, stream.Purge(t.Context(), jetstream.WithPurgeSubject(subject)))
	_, err = js.Publish(t.Context(), subject, third.Data)
	require.NoError(t, err)
	mend()
	got := b.nextReset("room")
	assert.Equal(t, broker.ResetRestarted, got.reason)
	assert.NotEqual(t, at.Epoch, got.state.At.Epoch)
	assert.Equal(t, broker.Position{Epoch: got.state.At.Epoch, Offset: 1}, a.append("room", kept("2")).At)
}

// A server that answers nothing, and a network that carries nothing: calls end with their
// context, and then fail at once, and the node is back in the end.
func TestSilence(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"server", "network"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := ownNATS(t)
			p := newProxy(t, s)
			n, err := try(t, nats.Options{URL: p.url}, time.Minute, nil)
			require.NoError(t, err)
			n.follow("room")
			n.append("room", join("1"))
			mend := func() { require.NoError(t, s.Resume()) }
			if how == "server" {
				require.NoError(t, s.Pause())
			} else {
				mend = p.silence()
			}
			// A process can answer once more after the signal to stop.
			eventually(t, "an append ends with its context", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				_, err := n.Append(ctx, "room", event("1"))
				return errors.Is(err, context.DeadlineExceeded)
			})
			eventually(t, "the node says that NATS is away", func() bool { return n.Away() != nil })
			for _, e := range []broker.Entry{event("1"), kept("1"), join("2")} {
				_, err := n.Append(t.Context(), "room", e)
				require.ErrorIs(t, err, broker.ErrAway)
			}
			mend()
			assert.Len(t, n.nextReset("room").state.Members, 1)
			eventually(t, "it is back", func() bool {
				_, err := n.Append(t.Context(), "room", event("2"))
				return err == nil && n.Away() == nil
			})
		})
	}
}

// When JetStream accepts no messages because it is full, the node is away. No node is treated
// as dead before JetStream works again.
func TestFull(t *testing.T) {
	t.Parallel()
	s := configured(t, "jetstream { max_file_store: 64KB, max_memory_store: 64KB }\n")
	o := nats.Options{URL: s.URL}
	n, err := try(t, o, 3*time.Second, nil)
	require.NoError(t, err)
	n.follow("room")
	n.append("room", join("1"))
	_, js := admin(t, s.URL)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "others", Subjects: []string{"others"}, Storage: jetstream.MemoryStorage})
	require.NoError(t, err)
	for err == nil {
		_, err = js.Publish(t.Context(), "others", make([]byte, 4<<10))
	}
	eventually(t, "the node says so", func() bool { return n.Away() != nil })
	require.ErrorContains(t, n.Away(), "insufficient resources")
	count := func() int {
		var v struct {
			In int `json:"in_msgs"`
		}
		monitored(t, s, "/varz", &v)
		return v.In
	}
	before := count()
	<-time.After(time.Second)
	assert.Less(t, count()-before, 300, "it does not try again all the time")
	require.NoError(t, js.DeleteStream(t.Context(), "others"))
	n.nextReset("room")
	eventually(t, "all is well", func() bool { return n.Away() == nil })
	eventually(t, "the member is in, or joins again", func() bool {
		_, err := n.Append(t.Context(), "room", join("1"))
		return err == nil
	})
	assert.Equal(t, []string{"1"}, n.members("room"))
}

// childMain is a node in a separate process: it joins, and prints what its sink receives.
func childMain() {
	how := os.Getenv("PUSHY_NATS_CHILD")
	if how == "" {
		return
	}
	url, prefix, _ := strings.Cut(how, " ")
	b := nats.New(nats.Options{URL: url, Prefix: prefix, Timeout: 20 * time.Second})
	out := json.NewEncoder(os.Stdout)
	sink := childSink{out}
	ctx := context.Background()
	err := b.Open(ctx, broker.OpenOptions{Node: "child", Lease: childLease}, sink)
	if err == nil {
		_, err = b.Follow(ctx, "room")
	}
	for _, id := range []string{"1", "2", "3"} {
		if err == nil {
			_, err = b.Append(ctx, "room", join(id))
		}
	}
	_ = out.Encode(childNews{Reason: fmt.Sprint("joined ", err)})
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		_, err := b.Append(ctx, "room", join(in.Text()))
		text := "ok"
		if err != nil {
			text = err.Error()
		}
		_ = out.Encode(childNews{Reason: "append", Said: text})
	}
	os.Exit(0)
}

const childLease = shortLease

type childNews struct {
	Reason  string
	Said    string
	Members []string
}

type childSink struct{ out *json.Encoder }

func (s childSink) Deliver(string, broker.Entry) {}
func (s childSink) Reset(_ string, state broker.State, reason string) {
	n := childNews{Reason: reason, Members: []string{}}
	for _, m := range state.Members {
		n.Members = append(n.Members, m.ID)
	}
	_ = s.out.Encode(n)
}

// A process that is stopped for longer than its lease loses its members and receives Resets.
// It cannot join members again that were adopted.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	n := open(t, nats.Options{URL: shared.URL}) // its adoptions are remembered for two of its leases
	n.follow("room")
	self, err := os.Executable()
	require.NoError(t, err)
	child := exec.Command(self)
	child.Env = append(os.Environ(), "PUSHY_NATS_CHILD="+shared.URL+" "+prefix(t))
	child.Stderr = t.Output()
	testproc.DieWithParent(child)
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	lines := json.NewDecoder(out)
	says := func(reason string) childNews {
		t.Helper()
		for {
			var got childNews
			require.NoError(t, lines.Decode(&got))
			if got.Reason == reason {
				return got
			}
		}
	}
	says("joined <nil>")
	eventually(t, "all have joined", func() bool { return len(n.members("room")) == 3 })
	require.NoError(t, testproc.Pause(child.Process))
	n.append("room", broker.Entry{Kind: broker.Adopt, Member: "2", OldOwner: "owner-2", Owner: "here"})
	n.append("room", broker.Entry{Kind: broker.Adopt, Member: "3", OldOwner: "owner-3", Owner: "here"})
	n.append("room", broker.Entry{Kind: broker.Leave, Member: "3", Owner: "here"})
	n.next(func(got news) bool { return got.entry.Kind == broker.Leave && got.entry.Member == "1" })
	require.NoError(t, testproc.Resume(child.Process))
	assert.Equal(t, []string{"2"}, says(broker.ResetLease).Members)
	for _, c := range []struct{ id, says string }{
		{"1", "ok"},
		{"2", broker.ErrMemberExists.Error()},
		{"3", broker.ErrNotOwner.Error()},
	} {
		_, err := io.WriteString(in, c.id+"\n")
		require.NoError(t, err)
		assert.Contains(t, says("append").Said, c.says)
	}
	assert.Equal(t, []string{"2", "1"}, n.members("room"))
	<-time.After(childLease + 2*time.Second)
	assert.Equal(t, []string{"2", "1"}, n.members("room"), "nobody removes it once more")
}
