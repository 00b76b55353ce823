package nats_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/internal/storetest"
)

// What max_payload can never take is an error that says so, and the largest entry that
// fits arrives. The connection stays.
func TestTooLargeForNATS(t *testing.T) {
	t.Parallel()
	s := configured(t, "max_payload: 4096\n")
	n := open(t, nats.Options{URL: s.URL})
	n.follow("room")
	sized := func(e broker.Entry, size int) broker.Entry {
		e.Data = []byte(`"` + strings.Repeat("x", size) + `"`)
		return e
	}
	for _, e := range []broker.Entry{event(""), kept(""), join("large")} {
		for _, size := range []int{4096, 10_000, 300_000} {
			_, err := n.Append(t.Context(), "room", sized(e, size))
			require.ErrorIs(t, err, broker.ErrTooLarge)
			assert.ErrorContains(t, err, "max_payload of NATS is 4096")
		}
		e.Member += "fits"
		if e.Kind == broker.Event {
			e.Member = ""
		}
		size := 2000
		for ; ; size++ {
			_, err := n.Append(t.Context(), "room", sized(e, size))
			if err != nil {
				require.ErrorIs(t, err, broker.ErrTooLarge)
				break
			}
			got := n.next(func(got news) bool { return got.state == nil && got.entry.Kind == e.Kind }).entry
			assert.Len(t, got.Data, size+2)
			if e.Kind == broker.Join {
				gone := leave(e.Member)
				gone.Owner = e.Owner
				n.append("room", gone)
			}
		}
		assert.Greater(t, size, 3000, "most of max_payload can be used")
	}
	require.NoError(t, n.Away(), "and the connection goes on")
}

// A panic of the sink ends neither the process nor the delivery of the next message, and
// neither does one of the host's log handler.
func TestPanics(t *testing.T) {
	t.Parallel()
	log, logger := newSaid(t)
	n := &panicking{node: &node{t: t, told: make(chan news, 100)}}
	n.Broker = nats.New(nats.Options{URL: shared.URL, Prefix: prefix(t), Logger: logger, Timeout: 20 * time.Second})
	require.NoError(t, n.Open(t.Context(), broker.OpenOptions{Node: "node", Lease: time.Minute}, n))
	t.Cleanup(func() { _ = n.Close(context.Background()) })
	n.follow("room")
	for _, data := range []string{"panic", "1", "panic", "2"} {
		n.append("room", event(data))
		n.append("room", kept(data))
		n.append("room", join(data))
		n.append("room", leave(data))
	}
	for _, want := range []string{"1", "1", "2", "2"} {
		assert.Equal(t, want, string(n.nextEvent().Data))
	}
	assert.Equal(t, 1, log.lines("a message from NATS caused a panic"), "one line a minute")
	assert.Empty(t, n.members("room"))
	require.NoError(t, n.Away())

	host := &panickingHandler{called: make(chan struct{})}
	away := open(t, nats.Options{URL: "nats://127.0.0.1:1", Logger: slog.New(host)})
	select {
	case <-host.called:
	case <-time.After(testPatience):
		t.Fatal("nothing was logged")
	}
	assert.Error(t, away.Away())
	require.NoError(t, away.Close(context.Background()))
}

// panicking is a node whose sink panics.
type panicking struct{ *node }

func (n *panicking) Deliver(channel string, e broker.Entry) {
	if string(e.Data) == "panic" || e.Member == "panic" {
		panic("of the test")
	}
	n.node.Deliver(channel, e)
}

type panickingHandler struct {
	once   sync.Once
	called chan struct{}
}

func (h *panickingHandler) Enabled(context.Context, slog.Level) bool {
	h.once.Do(func() { close(h.called) })
	panic("Enabled")
}
func (*panickingHandler) Handle(context.Context, slog.Record) error { panic("Handle") }
func (*panickingHandler) WithAttrs([]slog.Attr) slog.Handler        { panic("WithAttrs") }
func (*panickingHandler) WithGroup(string) slog.Handler             { panic("WithGroup") }

// Messages that were dropped are noticed under a load that never lets up, too, after all
// that came before them.
func TestDropsUnderSteadyLoad(t *testing.T) {
	t.Parallel()
	in, done := make(chan *natsgo.Msg, 10), make(chan struct{})
	for range cap(in) {
		in <- &natsgo.Msg{}
	}
	taken, noticed := 0, []int(nil)
	nats.Consume(in, done, func(*natsgo.Msg) {
		taken++
		in <- &natsgo.Msg{} // so that it is never empty
		if taken == 35 {
			close(done)
		}
	}, func() { noticed = append(noticed, taken) })
	require.GreaterOrEqual(t, len(noticed), 3)
	assert.Equal(t, []int{10, 20, 30}, noticed[:3])
}

// The other nodes remove dead nodes from their replicas and from the stream, so that a large
// number of short-lived nodes needs no memory. The same applies to members that have left.
func TestDeadNodesAreForgotten(t *testing.T) {
	t.Parallel()
	one := func() *node {
		n, err := try(t, nats.Options{URL: shared.URL, Timeout: 20 * time.Second}, shortLease, nil)
		require.NoError(t, err)
		return n
	}
	a := one()
	_, js := admin(t, shared.URL)
	name, base := prefix(t)+"-1-members", prefix(t)+".1.m."
	signs := func() int { return stored(t, js, name, base+"n.*") - stored(t, js, name, base+"n."+a.id) }
	var all []*node
	for i := range 5 {
		dead := one()
		dead.append("room", join(fmt.Sprint("m", i)))
		all = append(all, dead)
	}
	eventually(t, "each has given several signs of life", func() bool { return signs() > 15 })
	for _, dead := range all {
		require.NoError(t, dead.Close(context.Background()))
	}
	eventually(t, "only the node that is there is known", func() bool {
		ids, err := a.Nodes(t.Context())
		return err == nil && len(ids) == 1
	})
	eventually(t, "no sign of life of the others is left", func() bool { return signs() == 0 })
	eventually(t, "nothing of the members is left", func() bool { return stored(t, js, name, base+"c.>") == 0 })
	nodes, channels := a.Known()
	assert.Equal(t, []int{1, 0}, []int{nodes, channels}, "in the node's memory")
}

// A node that reads all members over a slow network for longer than its lease is not treated
// as dead.
func TestLoadingOutlastsTheLease(t *testing.T) {
	t.Parallel()
	const lease, members = 6 * time.Second, 8000
	s := ownNATS(t)
	p := newProxy(t, s)
	other, err := try(t, nats.Options{URL: s.URL, Timeout: 20 * time.Second}, lease, nil)
	require.NoError(t, err)
	n, err := try(t, nats.Options{URL: p.url, Timeout: 20 * time.Second}, lease, nil)
	require.NoError(t, err)
	n.append("room", join("its-own"))
	other.joinMany("room", members)
	n.follow("room")
	other.follow("room")
	mend := p.Cut()
	eventually(t, "the node is away", func() bool { return n.Away() != nil })
	p.Limit(200_000)
	mend()
	began := time.Now()
	got := n.nextReset("room")
	assert.Greater(t, time.Since(began), lease, "this test is to last longer than the lease")
	assert.Equal(t, broker.ResetGap, got.reason)
	assert.Len(t, got.state.Members, members+1)
	p.Limit(0)
	eventually(t, "it is back", func() bool { return n.Away() == nil })
	assert.Len(t, other.follow("room").Members, members+1, "members of a node that was there all the time")
}

// When NATS is back, each channel is reset once, also if opening all of them takes so long that the node looks
// meanwhile for channels that could not be opened.
func TestSlowReopeningResetsOnce(t *testing.T) {
	t.Parallel()
	const channels = 300
	s := ownNATS(t)
	p := newProxy(t, s)
	n := open(t, nats.Options{URL: p.url})
	for i := range channels {
		n.follow(fmt.Sprint("room-", i))
	}
	mend := p.Cut()
	eventually(t, "the node is away", func() bool { return n.Away() != nil })
	p.Limit(10_000)
	mend()
	began := time.Now()
	resets := map[string]int{}
	for len(resets) < channels {
		got := n.next(func(got news) bool { return got.state != nil })
		resets[got.channel]++
	}
	assert.Greater(t, time.Since(began), 7*time.Second, "this test is to last longer than the node waits before it looks")
	p.Limit(0)
	for i := range channels {
		n.append(fmt.Sprint("room-", i), event("last"))
	}
	for range channels {
		n.next(func(got news) bool {
			if got.state != nil {
				resets[got.channel]++
			}
			return got.state == nil
		})
	}
	for channel, times := range resets {
		require.Equal(t, 1, times, channel)
	}
}

// A Follow that is cancelled, whenever that is, leaves no subscription behind once the
// channel is not followed any more.
func TestCancelledFollow(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	n := open(t, nats.Options{URL: s.URL})
	var tasks sync.WaitGroup
	for i := range 16 {
		tasks.Go(func() {
			channel := fmt.Sprint("room-", i)
			for j := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(j)*5*time.Microsecond)
				_, _ = n.Follow(ctx, channel) // it may fail
				assert.NoError(t, n.Unfollow(t.Context(), channel))
				cancel()
			}
		})
	}
	tasks.Wait()
	subjects := prefix(t) + ".1.c.room-"
	eventually(t, "no subscription is left", func() bool {
		var v struct {
			Connections []struct {
				List []string `json:"subscriptions_list"`
			}
		}
		monitored(t, s, "/connz?subs=1", &v)
		for _, c := range v.Connections {
			if strings.Contains(strings.Join(c.List, " "), subjects) {
				return false
			}
		}
		return len(v.Connections) > 0
	})
	n.follow("room-0")
	n.append("room-0", event("1"))
	assert.Equal(t, "1", string(n.nextEvent().Data))
}

// No password, token or seed is ever in a log line or an error, whatever goes wrong.
func TestNoSecretIsLogged(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-hunter2"
	s := configured(t, "authorization { user: ann, password: other }\n")
	log, logger := newSaid(t)
	address := strings.TrimPrefix(s.URL, "nats://")
	for _, o := range []nats.Options{
		{URL: s.URL, User: "ann", Password: secret},
		{URL: s.URL, Token: secret},
		{URL: "nats://ann:" + secret + "@" + address},
		{URL: "nats://" + secret + "@" + address},
		{URL: "tls://ann:" + secret + "@" + address},
		{URL: "nats://ann:" + secret + "@127.0.0.1:1"},
		{URL: "nats://ann:" + url.QueryEscape(secret+" %") + "@" + address + ", nats://127.0.0.1:1"},
		{URL: "nats://ann:" + secret + "@no host"},
		{URL: "nats://127.0.0.1:1", User: "ann", Password: secret},
	} {
		for _, required := range []bool{true, false} {
			o.RequireAtStart, o.Logger = required, logger
			n, err := try(t, o, time.Minute, nil)
			if err == nil {
				err = n.Away()
			}
			if err != nil {
				assert.NotContains(t, err.Error(), secret)
			}
		}
	}
	assert.Zero(t, log.lines(secret))
	assert.NotZero(t, log.lines("NATS"), "something was logged")
}

// NATS 2.9 removes a request for messages without notice if a message arrives just after the
// request has expired, and then delivers nothing. So the request of a node must not expire.
func TestMembersAreRequestedForever(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	nc, _ := admin(t, s.URL)
	requests, err := nc.SubscribeSync("$JS.API.CONSUMER.MSG.NEXT.*.*")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	open(t, nats.Options{URL: s.URL})
	msg, err := requests.NextMsg(testPatience)
	require.NoError(t, err)
	var request struct {
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}
	require.NoError(t, json.Unmarshal(msg.Data, &request))
	assert.Greater(t, request.Expires, 30*24*time.Hour)
	assert.NotZero(t, request.Heartbeat, "a node must detect that NATS has removed its request")
}

// When the stream of the members is deleted, NATS notifies a consumer only if it sends the
// notification before it has ended the stream. A node that receives none detects that it
// follows a stream which does not exist any more when it uses the new one.
func TestNodeIsNotNotifiedOfADeletedStream(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(t *testing.T, n *node) error{
		"append": func(t *testing.T, n *node) error {
			_, err := n.Append(t.Context(), "room", join("new"))
			require.ErrorIs(t, err, broker.ErrUncertain)
			return err
		},
		"follow": func(t *testing.T, n *node) error {
			_, err := n.Follow(t.Context(), "other")
			return err
		},
		"nodes": func(t *testing.T, n *node) error {
			_, err := n.Nodes(t.Context())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := ownNATS(t)
			p, err := storetest.NewProxy(s.Addr)
			require.NoError(t, err)
			t.Cleanup(p.Close)
			p.Replace("409 Consumer Deleted", "100 Consumer Deleted") // 100 is the status of a heartbeat
			n := open(t, nats.Options{URL: "nats://" + p.Addr})
			before := n.follow("room").Revision
			n.append("room", join("old"))
			_, js := admin(t, s.URL)
			stream, err := js.Stream(t.Context(), prefix(t)+"-1-members")
			require.NoError(t, err)
			require.NoError(t, js.DeleteStream(t.Context(), prefix(t)+"-1-members"))
			_, err = js.CreateStream(t.Context(), stream.CachedInfo().Config)
			require.NoError(t, err)
			require.NoError(t, n.Away(), "it was not notified")
			err = use(t, n)
			require.ErrorIs(t, err, broker.ErrAway)
			require.ErrorContains(t, err, "created again")
			got := n.nextReset("room")
			assert.Equal(t, broker.ResetEpoch, got.reason)
			assert.NotEqual(t, before.Epoch, got.state.Revision.Epoch)
			eventually(t, "it is back", func() bool { return n.Away() == nil })
			eventually(t, "the member joins again", func() bool {
				_, err := n.Append(t.Context(), "room", join("old"))
				return err == nil
			})
			assert.Contains(t, n.members("room"), "old")
		})
	}
}

// A node that is slower than the others receives all entries, although another node removes
// the heartbeats of a dead node in the meantime.
func TestSlowNodeWhileADeadNodeIsForgotten(t *testing.T) {
	t.Parallel()
	const members = 2500 // more than the node requests from NATS at once
	s := ownNATS(t)
	newNode := func(id string, lease time.Duration) *node {
		n := &node{
			Broker: nats.New(nats.Options{URL: s.URL, Prefix: prefix(t), Timeout: 20 * time.Second, Logger: testLogger(t)}),
			t:      t,
			id:     id,
			told:   make(chan news, 2*members),
		}
		require.NoError(t, n.Open(t.Context(), broker.OpenOptions{Node: id, Lease: lease}, n))
		t.Cleanup(func() { _ = n.Close(context.Background()) })
		return n
	}
	a := newNode("a", shortLease) // the node with the lowest id removes the others
	slow := newNode("b", time.Minute)
	dead := newNode("c", shortLease)
	slow.follow("room")
	hold := make(chan struct{})
	slow.hold.Store(&hold)
	require.NoError(t, dead.Close(t.Context()))
	a.joinMany("room", members)
	_, js := admin(t, s.URL)
	name := prefix(t) + "-1-members"
	eventually(t, "the dead node is forgotten", func() bool {
		return stored(t, js, name, prefix(t)+".1.m.n.c") == 0
	})
	a.append("room", join("last"))
	slow.hold.Store(nil)
	close(hold)
	got := 0
	slow.next(func(n news) bool {
		got++
		return n.entry.Member == "last"
	})
	assert.Equal(t, members+1, got)
	assert.Equal(t, members+1, len(slow.members("room")))
	require.NoError(t, slow.Away())
}

// joinMany appends the joins of members, several at a time.
func (n *node) joinMany(channel string, members int) {
	const workers = 50
	var joins sync.WaitGroup
	for i := range workers {
		joins.Go(func() {
			for j := i; j < members; j += workers {
				_, err := n.Append(n.t.Context(), channel, join(fmt.Sprint("m", j)))
				assert.NoError(n.t, err)
			}
		})
	}
	joins.Wait()
}

// A node whose lease has expired is reset once, also if the Resets take longer than the
// interval of its heartbeats.
func TestSlowResetsAfterTheLease(t *testing.T) {
	t.Parallel()
	const lease = 6 * time.Second // it sends a heartbeat every two seconds
	s := ownNATS(t)
	log, logger := newSaid(t)
	n := &slowToReset{
		node: &node{
			Broker: nats.New(nats.Options{URL: s.URL, Prefix: prefix(t), Timeout: 20 * time.Second, Logger: logger}),
			t:      t,
			told:   make(chan news, 100),
		},
		takes: lease / 2,
	}
	require.NoError(t, n.Open(t.Context(), broker.OpenOptions{Node: "node", Lease: lease}, n))
	t.Cleanup(func() { _ = n.Close(context.Background()) })
	n.follow("room")
	_, js := admin(t, s.URL)
	require.NoError(t, js.DeleteStream(t.Context(), prefix(t)+"-1-members"))
	assert.Equal(t, broker.ResetEpoch, n.nextReset("room").reason)
	eventually(t, "the node is back", func() bool { return n.Away() == nil })
	<-time.After(lease)
	require.NoError(t, n.Away())
	assert.Empty(t, n.told, "a second Reset")
	assert.Equal(t, 1, log.lines("NATS is away"))
}

// slowToReset is a node whose sink takes long for a Reset.
type slowToReset struct {
	*node
	takes time.Duration
}

func (n *slowToReset) Reset(channel string, s broker.State, reason string) {
	<-time.After(n.takes)
	n.node.Reset(channel, s, reason)
}
