package webhook_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/webhook"
)

func TestEventsOfMembersAndChannels(t *testing.T) {
	onServer(t, webhook.Options{}, func(t *testing.T, _ *pushy.Server, kit *pushytest.Kit, rc *receiver) {
		ann := kit.Connect(as("42"))
		began := time.Now().UnixMilli()
		in := ann.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Ann"}))
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, rc.events, 2)
		joined := rc.events[1]
		assert.Equal(t, []string{"channel.occupied private-room", "member.joined private-room user=42"}, rc.take())
		assert.Equal(t, in.MemberID, joined.MemberID)
		assert.JSONEq(t, string(in.Presence[0]), string(joined.Member))
		assert.Equal(t, began, joined.At)

		left := time.Now().UnixMilli()
		require.NoError(t, ann.Unsubscribe("private-room"))
		time.Sleep(2900 * time.Millisecond)
		assert.Empty(t, rc.take())
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		require.Len(t, rc.events, 2)
		gone := rc.events[0]
		assert.Equal(t, []string{"member.left private-room user=42 left", "channel.vacated private-room"}, rc.take())
		assert.Equal(t, joined.MemberID, gone.MemberID)
		assert.Equal(t, joined.ID+"-left", gone.ID)
		assert.Equal(t, left, gone.At, "when it happened, not when it was sent")
		assert.Greater(t, gone.Revision, joined.Revision)

		ann.Subscribe("private-room", pushytest.Member(nil))
		ann.Subscribe("news")
		time.Sleep(time.Second)
		ann.Drop()
		time.Sleep(5 * time.Second)
		assert.ElementsMatch(t, []string{
			"channel.occupied private-room",
			"member.joined private-room user=42",
			"channel.occupied news",
			"member.left private-room user=42 closed",
			"channel.vacated private-room",
			"channel.vacated news",
		}, rc.take())
		rc.once()
	})
}

// A page that is reloaded within the delay causes no event, also if its client does not keep its
// member. The member.left that comes later names the member of the member.joined.
func TestReloadCausesNoEvent(t *testing.T) {
	onServer(t, webhook.Options{}, func(t *testing.T, _ *pushy.Server, kit *pushytest.Kit, rc *receiver) {
		ann := kit.Connect(as("42"))
		first := ann.Subscribe("private-room", pushytest.Member(nil))
		time.Sleep(time.Second)
		rc.take()
		for range 3 {
			ann.Close(1001)
			time.Sleep(2 * time.Second)
			ann = kit.Connect(as("42"))
			in := ann.Subscribe("private-room", pushytest.Member(nil))
			assert.NotEqual(t, first.MemberID, in.MemberID)
			time.Sleep(10 * time.Second)
			assert.Empty(t, rc.take())
		}
		ann.Close(1000)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		require.Len(t, rc.events, 2)
		assert.Equal(t, first.MemberID, rc.events[0].MemberID)

		// Without a user, nobody knows that the next client is the same.
		rc.take()
		guest := kit.Connect()
		guest.Subscribe("private-room", pushytest.Member(nil))
		time.Sleep(time.Second)
		guest.Drop()
		guest = kit.Connect()
		guest.Subscribe("private-room", pushytest.Member(nil))
		time.Sleep(5 * time.Second)
		assert.Equal(t, []string{
			"channel.occupied private-room",
			"member.joined private-room",
			"member.joined private-room",
			"member.left private-room closed",
		}, rc.take())
	})
}

func TestEventsOfConnections(t *testing.T) {
	events := []string{webhook.ConnectionOpened, webhook.ConnectionClosed}
	onServer(t, webhook.Options{Events: events}, func(t *testing.T, _ *pushy.Server, kit *pushytest.Kit, rc *receiver) {
		ann := kit.Connect(as("42"))
		ann.Subscribe("news")
		require.NoError(t, ann.Conn().Close(4000, "moved"))
		ann.ExpectClose()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, rc.events, 2)
		assert.Equal(t, ann.ID(), rc.events[0].Connection)
		assert.Equal(t, ann.ID(), rc.events[1].Connection)
		assert.Equal(t, 4000, rc.events[1].Code)
		assert.Equal(t, []string{"connection.opened user=42", "connection.closed user=42 moved"}, rc.take())
	})
}

func TestOptionsChannelsChooses(t *testing.T) {
	channels := func(name string) bool {
		if name == "private-panic" {
			panic("no")
		}
		return name == "private-yes"
	}
	onServer(t, webhook.Options{Channels: channels}, func(t *testing.T, _ *pushy.Server, kit *pushytest.Kit, rc *receiver) {
		ann := kit.Connect(as("42"))
		for _, name := range []string{"private-no", "private-panic", "private-yes"} {
			ann.Subscribe(name, pushytest.Member(nil))
		}
		ann.Drop()
		time.Sleep(5 * time.Second)
		assert.Equal(t, []string{
			"channel.occupied private-yes",
			"member.joined private-yes user=42",
			"member.left private-yes user=42 closed",
			"channel.vacated private-yes",
		}, rc.take())
	})
}

// The receiver answers 500 for 2 minutes. The order is kept, and each event is accepted once.
func TestReceiverIsDownForTwoMinutes(t *testing.T) {
	onServer(t, webhook.Options{Delay: -1}, func(t *testing.T, _ *pushy.Server, kit *pushytest.Kit, rc *receiver) {
		rc.downUntil(http.StatusInternalServerError, time.Now().Add(2*time.Minute))
		ann := kit.Connect(as("42"))
		const n = 150
		var want []string
		for range n {
			ann.Subscribe("private-room", pushytest.Member(nil))
			require.NoError(t, ann.Unsubscribe("private-room"))
			want = append(want, "channel.occupied private-room", "member.joined private-room user=42",
				"member.left private-room user=42 left", "channel.vacated private-room")
			time.Sleep(500 * time.Millisecond)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		var last uint64
		for _, e := range rc.events {
			assert.GreaterOrEqual(t, e.Revision, last, "the order is not kept")
			last = e.Revision
		}
		assert.Equal(t, want, rc.take())
		rc.once()
		first := rc.requests[0]
		tries := 0
		for i, r := range rc.requests {
			if r.ID == first.ID {
				tries++
				assert.Equal(t, rc.bodies[0], rc.bodies[i], "a request changes when it is sent again")
			}
			assert.LessOrEqual(t, len(r.Events), 100)
			assert.LessOrEqual(t, rc.times[i].Sub(r.Time), time.Second, "each try has its own time")
		}
		// 1, 2, 4, 8, 16, 32, 60 s, of which half is random.
		assert.GreaterOrEqual(t, tries, 7)
		assert.LessOrEqual(t, tries, 10)
	})
}

func TestRetryAfterAndGone(t *testing.T) {
	onServer(t, webhook.Options{}, func(t *testing.T, _ *pushy.Server, kit *pushytest.Kit, rc *receiver) {
		rc.reply(http.StatusTooManyRequests, "300")
		ann := kit.Connect(as("42"))
		ann.Subscribe("private-room", pushytest.Member(nil))
		time.Sleep(299 * time.Second)
		assert.Equal(t, 1, rc.tries())
		rc.reply(http.StatusServiceUnavailable, time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
		time.Sleep(2 * time.Second)
		assert.Equal(t, 2, rc.tries())
		time.Sleep(55 * time.Second)
		assert.Equal(t, 2, rc.tries())
		rc.reply(http.StatusGone, "")
		time.Sleep(10 * time.Second)
		assert.Equal(t, 3, rc.tries())

		rc.reply(http.StatusNoContent, "")
		ann.Subscribe("news")
		time.Sleep(time.Hour)
		assert.Equal(t, 3, rc.tries(), "410 stops for good")
	})
}

// The receiver accepts nothing for over an hour: it gets the number of the events that expired.
func TestEventsExpireAfterAnHour(t *testing.T) {
	onServer(t, webhook.Options{}, func(t *testing.T, _ *pushy.Server, kit *pushytest.Kit, rc *receiver) {
		rc.downUntil(http.StatusBadGateway, time.Now().Add(61*time.Minute))
		ann := kit.Connect(as("42"))
		ann.Subscribe("private-room", pushytest.Member(nil))
		time.Sleep(time.Minute)
		ann.Subscribe("news")
		time.Sleep(2 * time.Hour)
		assert.Equal(t, []string{"events.lost expired 2", "channel.occupied news"}, rc.take())
	})
}

// The queue overflows: the events that fit arrive, and events.lost has the number of the others.
func TestOverflowIsCounted(t *testing.T) {
	onServer(t, webhook.Options{}, func(t *testing.T, srv *pushy.Server, kit *pushytest.Kit, rc *receiver) {
		rc.reply(http.StatusServiceUnavailable, "")
		ann := kit.Connect(as("42"))
		for i := range 10_400 {
			if i%200 == 199 {
				ann = kit.Connect(as("42"))
			}
			require.NoError(t, srv.Channels().Join(ann.Conn(), fmt.Sprint("room-", i), nil))
		}
		rc.reply(http.StatusNoContent, "")
		time.Sleep(2 * time.Minute)
		require.NoError(t, srv.Channels().Join(ann.Conn(), "news", nil))
		time.Sleep(time.Second)
		got := rc.take()
		require.Len(t, got, 10_001)
		for i := range 9_999 {
			require.Equal(t, fmt.Sprint("channel.occupied room-", i), got[i])
		}
		assert.Equal(t, []string{"events.lost overflow 401", "channel.occupied news"}, got[9_999:])
		rc.once()
	})
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	kept, lost := webhook.Fill(9000, 1000)
	assert.Equal(t, 8<<20/1000, kept)
	assert.Equal(t, 9000-kept, lost)
}

func TestRequestsAreBoundedInBytes(t *testing.T) {
	onServer(t, webhook.Options{}, func(t *testing.T, _ *pushy.Server, kit *pushytest.Kit, rc *receiver) {
		member := map[string]string{"text": strings.Repeat("x", 60_000)}
		ann := kit.Connect(as("42"))
		const members = 10
		for i := range members {
			ann.Subscribe(fmt.Sprint("private-room-", i), pushytest.Member(member))
		}
		time.Sleep(time.Second)
		assert.Len(t, rc.take(), 2*members)
		assert.Len(t, rc.bodies, 3)
		for _, b := range rc.bodies {
			assert.LessOrEqual(t, len(b), 256<<10+1024)
		}
	})
}

func bytesOf(n int) []byte { return bytes.Repeat([]byte("x"), n) }
