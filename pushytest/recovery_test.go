package pushytest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/pushytest"
)

// keeping are the options of a Server whose channels keep three events for a minute.
func keeping(b broker.Broker) pushy.Options {
	return pushy.Options{
		Broker: b,
		Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{Keep: broker.Keep{Size: 3, TTL: time.Minute}}
		},
	}
}

func publish(t *testing.T, srv *pushy.Server, channel string, n int) {
	t.Helper()
	require.NoError(t, srv.Publish(t.Context(), channel, "counted", n))
}

func TestBlink(t *testing.T) {
	both(t, func(t *testing.T) {
		srv := start(t, keeping(nil))
		kit := pushytest.New(t, srv)
		ann, bob := kit.Connect(pushytest.Recovering), kit.Connect()
		ann.Subscribe("news")
		first := ann.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Ann"}))
		bob.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Bob"}))
		id := ann.ID()
		next := 1
		for range 3 { // the position of the last event is known each time
			in := ann.Blink(func() {
				publish(t, srv, "news", next)
				publish(t, srv, "news", next+1)
			})
			assert.NotEqual(t, id, ann.ID())
			assert.True(t, in["news"].Recovered)
			assert.Equal(t, 2, in["news"].Replay)
			assert.True(t, in["private-room"].Resumed)
			assert.Equal(t, first.MemberID, in["private-room"].MemberID)
			publish(t, srv, "news", next+2)
			for range 3 {
				var got int
				assert.EqualValues(t, next, ann.ExpectEvent("news", "counted", &got).Offset)
				assert.Equal(t, next, got)
				next++
			}
		}
		ann.ExpectNone("news", "counted")
		for _, event := range []string{"pushy:presence-quit", "pushy:presence-update"} {
			bob.ExpectNone("private-room", event)
		}
		require.NoError(t, ann.Unsubscribe("private-room"))
		bob.ExpectEvent("private-room", "pushy:presence-quit", nil)
		assert.Len(t, ann.Blink(nil), 1, "what the client has left it does not resume")
	})
}

func TestBlinkOfAnOldClient(t *testing.T) {
	t.Parallel()
	srv := start(t, keeping(nil))
	kit := pushytest.New(t, srv)
	ann, bob := kit.Connect(), kit.Connect()
	ann.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Ann"}))
	bob.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Bob"}))
	in := ann.Blink(func() {
		bob.ExpectEvent("private-room", "pushy:presence-quit", nil)
		publish(t, srv, "private-room", 1)
	})
	assert.False(t, in["private-room"].Resumed)
	assert.False(t, in["private-room"].Recovered)
	ann.ExpectNone("private-room", "counted")
	bob.ExpectEvent("private-room", "pushy:presence-add", nil)
}

// An excluded connection is excluded from the replay, too.
func TestBlinkKeepsExcept(t *testing.T) {
	t.Parallel()
	srv := start(t, keeping(nil))
	ann := pushytest.New(t, srv).Connect(pushytest.Recovering)
	ann.Subscribe("news")
	own := ann.ID()
	in := ann.Blink(func() {
		_, err := srv.PublishEvent(t.Context(), pushy.Event{Channel: "news", Name: "counted", Data: 1, Except: []string{own}})
		require.NoError(t, err)
		publish(t, srv, "news", 2)
	})
	assert.True(t, in["news"].Recovered)
	var got int
	ann.ExpectEvent("news", "counted", &got)
	assert.Equal(t, 2, got)
	ann.ExpectNone("news", "counted")
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := start(t, keeping(nil))
		kit := pushytest.New(t, srv)
		ann, bob := kit.Connect(pushytest.Recovering), kit.Connect()
		ann.Subscribe("news")
		ann.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Ann"}))
		bob.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Bob"}))
		ann.Drop()
		publish(t, srv, "news", 1)
		time.Sleep(14 * time.Second)
		bob.ExpectNone("private-room", "pushy:presence-quit")
		time.Sleep(2 * time.Second) // over Options.Grace
		bob.ExpectEvent("private-room", "pushy:presence-quit", nil)
		time.Sleep(time.Minute)
		in := ann.Resume()
		assert.False(t, in["news"].Recovered)
		assert.Equal(t, "expired", in["news"].Reason)
		assert.False(t, in["private-room"].Resumed)

		in = ann.Blink(func() {
			for n := range 4 {
				publish(t, srv, "news", n)
			}
		})
		assert.Equal(t, "trimmed", in["news"].Reason)
		in = ann.Blink(func() { require.NoError(t, srv.Forget(t.Context(), "news")) })
		assert.Equal(t, "epoch", in["news"].Reason)
	})
}

func TestDrain(t *testing.T) {
	both(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		one, two := start(t, keeping(cluster.Broker())), start(t, keeping(cluster.Broker()))
		old, young := pushytest.New(t, one), pushytest.New(t, two)
		ann, bob := old.Connect(pushytest.Recovering), young.Connect()
		first := ann.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Ann"}))
		bob.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Bob"}))
		old.Drain()
		ann.ExpectEvent("", "pushy:drain", nil)
		code, _ := ann.ExpectClose()
		assert.Equal(t, pushy.CloseShutdown, code)
		publish(t, two, "private-room", 1)
		in := ann.MoveTo(young)["private-room"]
		assert.True(t, in.Resumed)
		assert.Equal(t, first.MemberID, in.MemberID)
		assert.True(t, in.Recovered)
		ann.ExpectEvent("private-room", "counted", nil)
		bob.ExpectEvent("private-room", "counted", nil)
		bob.ExpectNone("private-room", "pushy:presence-quit")
		bob.ExpectNone("private-room", "pushy:presence-add")
	})
}

func TestResumeNeedsALostConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		said := record(func(t pushytest.TB) {
			pushytest.New(t, start(t, pushy.Options{})).Connect().Resume()
		})
		require.Len(t, said, 1)
		assert.Contains(t, said[0], "it is still connected: call Drop, Close or Kit.Drain first")
	})
}
