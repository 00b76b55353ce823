package webhook_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/webhook"
)

// cluster is a cluster whose nodes send to one receiver.
type cluster struct {
	*memory.Cluster
	t  *testing.T
	rc *receiver
	o  webhook.Options
}

// via counts the requests of a node.
type via struct {
	rc    *receiver
	count *int
}

func (v via) RoundTrip(r *http.Request) (*http.Response, error) {
	v.rc.mu.Lock()
	*v.count++
	v.rc.mu.Unlock()
	return v.rc.RoundTrip(r)
}

// member is a Server of a cluster, with its Sender.
type member struct {
	*pushy.Server
	broker *memory.Broker
	sender *webhook.Sender
	kit    *pushytest.Kit
	sent   *int // the number of its requests, under rc.mu
}

// onCluster runs a test in its own time, on a cluster without nodes.
func onCluster(t *testing.T, o webhook.Options, run func(t *testing.T, c *cluster)) {
	t.Helper()
	t.Parallel()
	inTime(t, func(t *testing.T) {
		run(t, &cluster{
			Cluster: memory.NewCluster(memory.Options{Logger: slog.New(slog.DiscardHandler)}),
			t:       t,
			rc:      newReceiver(t),
			o:       o,
		})
	})
}

// start adds a node.
func (c *cluster) start() *member {
	c.t.Helper()
	m := &member{
		broker: c.Broker(),
		sent:   new(int),
	}
	m.Server = newServer(c.t, pushy.Options{Broker: m.broker})
	o := c.o
	o.URL = "https://app.example.com/hooks"
	o.Secret = secret
	o.Transport = via{c.rc, m.sent}
	s, err := webhook.New(m.Server, o)
	require.NoError(c.t, err)
	m.sender = s
	c.t.Cleanup(func() { m.stop() })
	m.kit = pushytest.New(c.t, m.Server)
	m.kit.Allow("webhook.")
	synctest.Wait()
	return m
}

// stop shuts a node down, as a deploy does.
func (m *member) stop() {
	_ = m.Shutdown(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour) // a test may have left the receiver down
	defer cancel()
	_ = m.sender.Close(ctx)
}

// kill ends a node as kill -9 does: the others notice it when its lease expires.
func (m *member) kill() {
	m.broker.Kill()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = m.Close()
	_ = m.sender.Close(ctx)
}

func (c *cluster) requests(m *member) int {
	c.rc.mu.Lock()
	defer c.rc.mu.Unlock()
	return *m.sent
}

func TestClusterIsReportedOnce(t *testing.T) {
	onCluster(t, webhook.Options{}, func(t *testing.T, c *cluster) {
		a, b := c.start(), c.start()
		ann := a.kit.Connect(as("1"))
		bob := b.kit.Connect(as("2"))
		ann.Subscribe("private-room", pushytest.Member(nil))
		synctest.Wait() // the order of two nodes is that of the log
		bob.Subscribe("private-room", pushytest.Member(nil))
		time.Sleep(time.Second)
		assert.Equal(t, []string{
			"channel.occupied private-room",
			"member.joined private-room user=1",
			"member.joined private-room user=2",
		}, c.rc.take())
		ann.Drop()
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{"member.left private-room user=1 closed"}, c.rc.take())
		bob.Drop()
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{"member.left private-room user=2 closed", "channel.vacated private-room"}, c.rc.take())
		assert.Zero(t, c.requests(b), "the oldest node sends")
		c.rc.once()
	})
}

// Two nodes empty a channel at the same moment: one event. So do two that fill it.
func TestTwoNodesEmptyAChannelAtOnce(t *testing.T) {
	onCluster(t, webhook.Options{Events: []string{webhook.ChannelOccupied, webhook.ChannelVacated}},
		func(t *testing.T, c *cluster) {
			nodes := []*member{c.start(), c.start(), c.start()}
			for i := range 20 {
				channel := fmt.Sprint("room-", i)
				var clients []*pushytest.Client
				for _, n := range nodes {
					clients = append(clients, n.kit.Connect())
				}
				for _, ann := range clients {
					ann.Send("subscribe", map[string]string{"channel": channel})
				}
				time.Sleep(time.Second)
				assert.Equal(t, []string{"channel.occupied " + channel}, c.rc.take())
				for _, ann := range clients {
					require.NoError(t, ann.Conn().Close(4000, ""))
				}
				time.Sleep(10 * time.Second)
				assert.Equal(t, []string{"channel.vacated " + channel}, c.rc.take())
			}
			c.rc.once()
		})
}

// kill -9 of the last node of a channel: its members have left, and the channel is vacated, once
// and when the lease has expired. It does not matter whether that node was the one that sends.
func TestKilledNodeIsReportedOnce(t *testing.T) {
	for _, which := range []string{"sender", "other"} {
		t.Run(which, func(t *testing.T) {
			onCluster(t, webhook.Options{}, func(t *testing.T, c *cluster) {
				nodes := []*member{c.start(), c.start(), c.start()}
				victim := nodes[0]
				if which == "other" {
					victim = nodes[1]
				}
				nodes[2].kit.Connect(as("9")).Subscribe("private-other", pushytest.Member(nil))
				for i := range 3 {
					victim.kit.Connect(as(fmt.Sprint(i))).Subscribe("private-room", pushytest.Member(nil))
				}
				time.Sleep(time.Second)
				assert.Len(t, c.rc.take(), 6)
				victim.kill()
				time.Sleep(14 * time.Second)
				assert.Empty(t, c.rc.take(), "the lease has not expired")
				time.Sleep(20 * time.Second)
				assert.ElementsMatch(t, []string{
					"member.left private-room user=0 lost",
					"member.left private-room user=1 lost",
					"member.left private-room user=2 lost",
					"channel.vacated private-room",
				}, c.rc.take())
				c.rc.once()
			})
		})
	}
}

// The node that sends is killed while the receiver is down: the next one sends what it has not.
func TestNextNodeContinues(t *testing.T) {
	onCluster(t, webhook.Options{}, func(t *testing.T, c *cluster) {
		a, b := c.start(), c.start()
		ann := b.kit.Connect(as("1"))
		ann.Subscribe("before")
		time.Sleep(time.Second)
		assert.Equal(t, []string{"channel.occupied before"}, c.rc.take())
		c.rc.reply(http.StatusServiceUnavailable, "")
		var want []string
		for i := range 300 {
			channel := fmt.Sprint("room-", i)
			if i%150 == 149 {
				ann = b.kit.Connect(as("1"))
			}
			ann.Subscribe(channel)
			want = append(want, "channel.occupied "+channel)
			time.Sleep(100 * time.Millisecond)
		}
		a.kill()
		c.rc.reply(http.StatusNoContent, "")
		assert.Zero(t, c.requests(b))
		time.Sleep(30 * time.Second)
		assert.Equal(t, want, c.rc.take())
		c.rc.once()
	})
}

// A node that does not send keeps the events until it is told that they were sent. More of them than
// it can keep happen in a short time: it loses none of those that the next node has to send.
func TestNextNodeContinuesAfterManyEvents(t *testing.T) {
	onCluster(t, webhook.Options{Events: []string{webhook.ChannelOccupied}}, func(t *testing.T, c *cluster) {
		a, b := c.start(), c.start()
		ann := b.kit.Connect(as("1"))
		const n = 12_000
		for i := range n {
			require.NoError(t, b.Channels().Join(ann.Conn(), fmt.Sprint("room-", i), nil))
			if i%1000 == 999 {
				time.Sleep(300 * time.Millisecond)
			}
		}
		assert.Len(t, c.rc.take(), n)
		c.rc.reply(http.StatusServiceUnavailable, "")
		ann.Subscribe("late-1")
		ann.Subscribe("late-2")
		time.Sleep(100 * time.Millisecond)
		a.kill()
		c.rc.reply(http.StatusNoContent, "")
		time.Sleep(30 * time.Second)
		assert.Equal(t, []string{"channel.occupied late-1", "channel.occupied late-2"}, c.rc.take())
		c.rc.once()
	})
}

// A rolling restart of all nodes, whose clients move to another one, causes no event.
func TestRollingRestartIsSilent(t *testing.T) {
	onCluster(t, webhook.Options{}, func(t *testing.T, c *cluster) {
		nodes := []*member{c.start(), c.start(), c.start()}
		var clients [3]*pushytest.Client
		where := [3]int{0, 1, 2}
		for i := range clients {
			clients[i] = nodes[i].kit.Connect(pushytest.Recovering, as(fmt.Sprint(i)))
			clients[i].Subscribe("private-room", pushytest.Member(nil))
		}
		time.Sleep(time.Second)
		assert.Len(t, c.rc.take(), 4)
		for i := range nodes {
			next := nodes[(i+1)%3]
			nodes[i].stop()
			time.Sleep(5 * time.Second)
			for k, ann := range clients {
				if where[k] == i {
					in := ann.MoveTo(next.kit)
					assert.True(t, in["private-room"].Resumed)
					where[k] = (i + 1) % 3
				}
			}
			nodes[i] = c.start()
			time.Sleep(time.Minute)
			assert.Empty(t, c.rc.take(), "node %d", i)
		}
		ann := clients[0]
		ann.Close(1000)
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{"member.left private-room user=0 closed"}, c.rc.take())
		c.rc.once()
	})
}

// A node that is cut off from the broker for longer than its lease: the others report that its
// members have left, and it reports that they are there when it is back.
func TestNodeIsCutOff(t *testing.T) {
	onCluster(t, webhook.Options{}, func(t *testing.T, c *cluster) {
		a, b := c.start(), c.start()
		b.kit.Connect(as("2")).Subscribe("private-room", pushytest.Member(nil))
		a.kit.Connect(as("1")).Subscribe("private-room", pushytest.Member(nil))
		time.Sleep(time.Second)
		assert.Len(t, c.rc.take(), 3)
		reconnect := a.broker.Cut()
		time.Sleep(30 * time.Second)
		assert.Equal(t, []string{"member.left private-room user=1 lost"}, c.rc.take())
		reconnect()
		time.Sleep(30 * time.Second)
		assert.Equal(t, []string{"member.joined private-room user=1"}, c.rc.take())
		b.kit.Connect(as("3")).Subscribe("private-room", pushytest.Member(nil))
		time.Sleep(time.Second)
		assert.Equal(t, []string{"member.joined private-room user=3"}, c.rc.take())
		c.rc.once()
	})
}

// All nodes were down, and something happened that nobody has reported: events.lost says so.
func TestAllNodesWereDown(t *testing.T) {
	onCluster(t, webhook.Options{}, func(t *testing.T, c *cluster) {
		store := newServer(t, pushy.Options{Broker: c.Broker()}) // without it the store is empty
		defer store.Close()
		a := c.start()
		a.kit.Connect(as("1")).Subscribe("private-room", pushytest.Member(nil))
		time.Sleep(time.Second)
		assert.Len(t, c.rc.take(), 2)
		a.kill()
		time.Sleep(time.Minute)
		b := c.start()
		b.kit.Connect(as("2")).Subscribe("news")
		time.Sleep(30 * time.Second)
		got := c.rc.take()
		require.NotEmpty(t, got)
		assert.Equal(t, "events.lost handover", got[0])
		assert.Contains(t, got, "channel.occupied news")
	})
}
