package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/webhook"
)

var momentary = []string{webhook.ClientEvent, webhook.ChannelMiss}

// talk sends client events whose data are numbers.
func talk(c *pushytest.Client, channel string, from, to int) {
	for i := from; i < to; i++ {
		c.SendEvent(channel, "client-move", i)
		time.Sleep(100 * time.Millisecond) // Limits.ClientEventRate
	}
	synctest.Wait()
}

// moves returns what the receiver receives for events of talk.
func moves(channel, user string, from, to int) (list []string) {
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprintf("client.event %s client-move=%d user=%s", channel, i, user))
	}
	return list
}

func TestClientEvents(t *testing.T) {
	onServer(t, webhook.Options{Events: momentary}, func(t *testing.T, srv *pushy.Server, kit *pushytest.Kit, rc *receiver) {
		ann, bob := kit.Connect(as("42")), kit.Connect(as("43"))
		in := ann.Subscribe("private-talk", pushytest.Member(nil))
		bob.Subscribe("private-talk", pushytest.Member(nil))
		at := time.Now().UnixMilli()
		ann.SendEvent("private-talk", "client-typing", map[string]any{"to": "<all>", "n": 1.50})
		var got json.RawMessage
		bob.ExpectEvent("private-talk", "client-typing", &got)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, rc.events, 1)
		e := rc.events[0]
		rc.take()
		assert.Equal(t, "client.event", e.Event)
		assert.Equal(t, "private-talk", e.Channel)
		assert.Equal(t, "client-typing", e.Name)
		assert.JSONEq(t, `{"n":1.5,"to":"<all>"}`, string(e.Data))
		assert.Equal(t, in.MemberID, e.MemberID)
		assert.Equal(t, ann.ID(), e.Connection)
		assert.Equal(t, "42", e.User)
		assert.Equal(t, at, e.At)
		assert.NotZero(t, e.Revision)
		assert.NotEmpty(t, e.ID)

		// What nobody receives is not reported: an event of a client that is not a member, in a channel that
		// does not allow them, or that the host keeps back, and an event of the host.
		require.NoError(t, bob.Unsubscribe("private-talk"))
		bob.Subscribe("private-quiet", pushytest.Member(nil))
		bob.SendEvent("private-talk", "client-typing", 1)
		bob.SendEvent("private-quiet", "client-typing", 1)
		ann.SendEvent("private-talk", "client-typing", "secret")
		require.NoError(t, srv.Publish(context.Background(), "private-talk", "client-typing", 1))
		time.Sleep(time.Second)
		assert.Empty(t, rc.take())
		rc.once()
	})
}

// Client events are off by default, and Options.Channels chooses.
func TestClientEventsAreOptional(t *testing.T) {
	for name, o := range map[string]webhook.Options{
		"default": {},
		"channels": {
			Events:   momentary,
			Channels: func(name string) bool { return !strings.Contains(name, "talk") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			onServer(t, o, func(t *testing.T, _ *pushy.Server, kit *pushytest.Kit, rc *receiver) {
				ann := kit.Connect(as("42"))
				ann.Subscribe("private-talk", pushytest.Member(nil))
				time.Sleep(time.Second)
				rc.take()
				talk(ann, "private-talk", 0, 1)
				time.Sleep(time.Second)
				assert.Empty(t, rc.take())
			})
		})
	}
}

func openOptions(node string) broker.OpenOptions {
	return broker.OpenOptions{
		Node:  node,
		Lease: time.Minute,
	}
}

// discard is a Sink.
type discard struct{}

func (discard) Deliver(string, broker.Entry)       {}
func (discard) Reset(string, broker.State, string) {}

// subscribe subscribes with keys for the past of a channel.
func subscribe(c *pushytest.Client, channel, past string) {
	c.SendText(fmt.Sprintf(`{"command":"subscribe","data":{"channel":%q%s}}`, channel, past))
	c.ExpectEvent("", "pushy:subscription-success", nil)
}

// A subscription that asks for past events is a miss if the channel keeps events and has none.
func TestChannelMiss(t *testing.T) {
	const rewind = `,"rewind":1`
	publish := func(ctx context.Context, srv *pushy.Server, channel string) error {
		return srv.Publish(ctx, channel, "price", 1)
	}
	onServer(t, webhook.Options{}, func(t *testing.T, srv *pushy.Server, kit *pushytest.Kit, rc *receiver) {
		ctx := context.Background()
		ann := kit.Connect()
		miss := func(channel, past string) []string {
			t.Helper()
			subscribe(ann, channel, past)
			time.Sleep(time.Second)
			missed := []string{}
			for _, s := range rc.take() {
				if strings.HasPrefix(s, "channel.miss") {
					missed = append(missed, s)
				}
			}
			require.NoError(t, ann.Unsubscribe(channel))
			return missed
		}
		for range 3 {
			assert.Equal(t, []string{"channel.miss kept"}, miss("kept", rewind), "one event for each miss")
		}
		assert.Empty(t, miss("kept", ""), "it does not want past events")
		assert.Empty(t, miss("kept", `,"rewind":0`))
		assert.Empty(t, miss("news", rewind), "the channel keeps no events")

		require.NoError(t, publish(ctx, srv, "kept"))
		assert.Empty(t, miss("kept", rewind))
		assert.Empty(t, miss("kept", `,"rewind":{"events":1,"seconds":1}`), "an event is kept, but older")
		place, err := srv.Position(ctx, "kept")
		require.NoError(t, err)
		since := fmt.Sprintf(`,"since":{"epoch":%q,"offset":%d}`, place.Epoch, place.Offset)
		time.Sleep(2 * time.Minute)
		assert.Equal(t, []string{"channel.miss kept"}, miss("kept", rewind), "it has expired")
		assert.Empty(t, miss("kept", since), "nothing was missed")

		require.NoError(t, publish(ctx, srv, "kept"))
		require.NoError(t, srv.Forget(ctx, "kept"))
		assert.Equal(t, []string{"channel.miss kept"}, miss("kept", rewind), "it was removed")
		assert.Equal(t, []string{"channel.miss kept"}, miss("kept", `,"since":{"epoch":"other","offset":7}`), "another log")
		rc.once()
	})
}

// On a cluster each miss and each client event is sent once, in the order of its node, by the node
// that sends.
func TestMomentaryEventsOfACluster(t *testing.T) {
	onCluster(t, webhook.Options{Events: momentary}, func(t *testing.T, c *cluster) {
		a, b := c.start(), c.start()
		ann, bob := a.kit.Connect(as("1")), b.kit.Connect(as("2"))
		ann.Subscribe("private-talk", pushytest.Member(nil))
		bob.Subscribe("private-talk", pushytest.Member(nil))
		talk(bob, "private-talk", 0, 20)
		time.Sleep(time.Second)
		assert.Equal(t, moves("private-talk", "2", 0, 20), c.rc.take())
		talk(ann, "private-talk", 0, 5)
		subscribe(ann, "kept", `,"rewind":1`)
		require.NoError(t, b.Publish(context.Background(), "kept-2", "price", 1))
		subscribe(bob, "kept-2", `,"rewind":1`)
		time.Sleep(2 * time.Minute)
		subscribe(bob, "kept", `,"rewind":1`)
		time.Sleep(time.Second)
		assert.Equal(t, append(moves("private-talk", "1", 0, 5), "channel.miss kept", "channel.miss kept"), c.rc.take())
		assert.Zero(t, c.requests(b), "the oldest node sends")
		c.rc.once()

		// The node that sends is killed while the receiver is down: the next one sends all.
		c.rc.reply(http.StatusServiceUnavailable, "")
		talk(bob, "private-talk", 20, 40)
		talk(ann, "private-talk", 5, 10)
		time.Sleep(time.Second)
		a.kill()
		c.rc.reply(http.StatusNoContent, "")
		time.Sleep(time.Minute)
		assert.Equal(t, append(moves("private-talk", "2", 20, 40), moves("private-talk", "1", 5, 10)...), c.rc.take())

		// A node that is cut off for less than its lease finds what has happened meanwhile.
		d := c.start()
		dan := d.kit.Connect(as("4"))
		dan.Subscribe("private-talk", pushytest.Member(nil))
		reconnect := b.broker.Cut()
		talk(dan, "private-talk", 0, 50)
		time.Sleep(5 * time.Second)
		assert.Empty(t, c.rc.take())
		reconnect()
		time.Sleep(time.Second)
		assert.Equal(t, moves("private-talk", "4", 0, 50), c.rc.take())

		// A node that is cut off writes what has happened there when it is back.
		reconnect = d.broker.Cut()
		talk(dan, "private-talk", 50, 60)
		time.Sleep(time.Hour)
		assert.Empty(t, c.rc.take())
		reconnect()
		time.Sleep(10 * time.Second)
		assert.Equal(t, moves("private-talk", "4", 50, 60), c.rc.take())

		// What happens until the last connection is closed is sent.
		talk(dan, "private-talk", 60, 61)
		dan.SendEvent("private-talk", "client-move", 61)
		synctest.Wait()
		d.stop()
		time.Sleep(10 * time.Second)
		assert.Equal(t, moves("private-talk", "4", 60, 62), c.rc.take())
		c.rc.once()
	})
}

// A broker that is away for long: a node keeps 10,000 events, and events.lost has the number of
// the others.
func TestMomentaryEventsOverflow(t *testing.T) {
	onCluster(t, webhook.Options{Events: momentary}, func(t *testing.T, c *cluster) {
		a := c.start()
		other := newServer(t, pushy.Options{Broker: c.Broker()}) // keeps the store
		defer other.Close()
		ann := a.kit.Connect(as("1"))
		ann.Subscribe("private-talk", pushytest.Member(nil))
		talk(ann, "private-talk", 0, 1)
		time.Sleep(time.Second)
		c.rc.take()
		reconnect := a.broker.Cut()
		talk(ann, "private-talk", 1, 12_001)
		reconnect()
		time.Sleep(time.Minute)
		got := c.rc.take()
		require.NotEmpty(t, got)
		sent := len(got) - 1
		assert.Equal(t, fmt.Sprint("events.lost overflow ", 12_000-sent), got[sent])
		assert.InDelta(t, 10_000, sent, 200)
		assert.Equal(t, moves("private-talk", "1", 1, 1+sent), got[:sent])
		talk(ann, "private-talk", 0, 1)
		time.Sleep(time.Second)
		assert.Equal(t, moves("private-talk", "1", 0, 1), c.rc.take())
		c.rc.once()
	})
}

// The receiver is down, too, when the broker is back: the queue has no room for all events, nor for the events.lost
// of the node. The events.lost of the queue has the number of all.
func TestMomentaryEventsOverflowTwice(t *testing.T) {
	onCluster(t, webhook.Options{Events: momentary}, func(t *testing.T, c *cluster) {
		a := c.start()
		other := newServer(t, pushy.Options{Broker: c.Broker()}) // keeps the store
		defer other.Close()
		ann := a.kit.Connect(as("1"))
		ann.Subscribe("private-talk", pushytest.Member(nil))
		talk(ann, "private-talk", 0, 1)
		time.Sleep(time.Second)
		c.rc.take()
		reconnect := a.broker.Cut()
		talk(ann, "private-talk", 1, 12_001)
		c.rc.reply(http.StatusServiceUnavailable, "")
		reconnect()
		time.Sleep(time.Minute)
		c.rc.take()
		c.rc.reply(http.StatusNoContent, "")
		time.Sleep(5 * time.Minute)
		got := c.rc.take()
		require.NotEmpty(t, got)
		sent := len(got) - 1
		assert.Equal(t, fmt.Sprint("events.lost overflow ", 12_000-sent), got[sent])
		assert.Equal(t, moves("private-talk", "1", 1, 1+sent), got[:sent])
	})
}

// The records of momentary events leave the log, so that it does not grow.
func TestMomentaryEventsLeaveTheLog(t *testing.T) {
	onCluster(t, webhook.Options{Events: momentary}, func(t *testing.T, c *cluster) {
		a := c.start()
		ann := a.kit.Connect(as("1"))
		ann.Subscribe("private-talk", pushytest.Member(nil))
		probe := c.Broker()
		require.NoError(t, probe.Open(context.Background(), openOptions("probe"), discard{}))
		defer probe.Close(context.Background())
		records := func() int {
			state, err := probe.Follow(context.Background(), ":webhook:")
			require.NoError(t, err)
			return len(state.Members)
		}
		before := records()
		talk(ann, "private-talk", 0, 1000)
		assert.Greater(t, records(), before)
		assert.Less(t, records(), before+400, "of 30 s")
		time.Sleep(time.Minute)
		assert.Equal(t, before, records())
		assert.Len(t, c.rc.take(), 1000)
	})
}

// A member whose JSON is as large as is allowed is reported on a cluster, whatever its characters.
// What the broker does not accept is counted.
func TestLargeMembersAreReported(t *testing.T) {
	onCluster(t, webhook.Options{Events: []string{webhook.MemberJoined}}, func(t *testing.T, c *cluster) {
		a, _ := c.start(), c.start()
		ann := a.kit.Connect(as("1"))
		text := strings.Repeat("<", 65_000)
		require.NoError(t, a.Channels().Join(ann.Conn(), "private-room", json.RawMessage(`{"text":"`+text+`"}`)))
		time.Sleep(time.Second)
		assert.Equal(t, []string{"member.joined private-room user=1"}, c.rc.take())
	})
}
