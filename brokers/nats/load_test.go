package nats_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
)

// Issue 11, number 8: after a reconnect over a slow line a node reads the logs of all
// its channels, in more than the time that one may take, and none fails for it.
func TestManyLogsAfterAReconnect(t *testing.T) {
	t.Parallel()
	const channels = 1005
	s := ownNATS(t)
	p := newProxy(t, s)
	log, logger := newSaid(t)
	b, err := nats.New(t.Context(), nats.Options{
		URL:            p.url,
		RequireAtStart: true,
		Timeout:        2 * time.Second,
		Lease:          time.Minute,
		Logger:         logger,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	var tasks sync.WaitGroup
	for i := range 15 {
		tasks.Go(func() {
			for j := range channels / 15 {
				name := fmt.Sprintf("private-%d-%d", i, j)
				_, err := b.Watch(t.Context(), name, func(pushy.Change) {})
				assert.NoError(t, err)
				assert.NoError(t, b.Join(t.Context(), name, member("1")))
			}
		})
	}
	tasks.Wait()
	eventually(t, "the node is connected", func() bool { return b.Away() == nil })
	before := log.lines("serves alone", "presence")
	mend := p.Cut()
	eventually(t, "the node is away", func() bool { return b.Away() != nil })
	p.slow(300_000)
	mend()
	eventually(t, "it is back", func() bool { return b.Away() == nil })
	assert.Eventually(t, func() bool { return b.Unread() == 0 }, 3*testPatience, 20*time.Millisecond, "all logs are read")
	assert.Equal(t, before+1, log.lines("serves alone", "presence"), "once, for the cut")
	require.NoError(t, b.Away())
	p.slow(0)
}

// Issue 11, number 9: a log that cannot be compacted, since the stream is full, is
// tried again after a pause; it is compacted when there is room.
func TestRefusedCompaction(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	const members = 200
	o := nats.Options{
		URL:            s.url,
		MaxBytes:       256 << 10,
		RequireAtStart: true,
		Timeout:        20 * time.Second,
		Lease:          time.Minute,
		Logger:         testLogger(t),
	}
	a, err := nats.New(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = a.Close() })
	for i := range members {
		require.NoError(t, a.Join(t.Context(), "private-room", member(fmt.Sprint(i))))
	}
	b, err := nats.New(t.Context(), o) // its sign of life needs room, too
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	nc, err := natsgo.Connect(s.url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), "pushy-presence")
	require.NoError(t, err)
	write := func(subject string, n int) {
		_, err := js.Publish(t.Context(), subject, []byte(strings.Repeat("x", n)))
		require.NoError(t, err)
	}
	left := func() int {
		info, err := stream.Info(t.Context())
		require.NoError(t, err)
		return 256<<10 - int(info.State.Bytes)
	}
	// Nobody follows this log but a, which writes nothing.
	for range 3*members + 2*64 {
		write("pushy.p.c.private-room", 1)
	}
	for room := left(); room > 450; room = left() {
		write("pushy.p.other", max(min(room/2, 8<<10)-100, 1))
	}
	count := func() int {
		var v struct {
			In int `json:"in_msgs"`
		}
		s.monitored(t, "/varz", &v)
		return v.In
	}
	_, _ = watched(t, b, "private-room") // which has it read, and tidied
	first := count()
	<-time.After(5 * time.Second)
	requests := count() - first // a read takes about 25
	t.Logf("%d requests", requests)
	assert.Less(t, requests, 250)
	require.NoError(t, stream.Purge(t.Context(), jetstream.WithPurgeSubject("pushy.p.other")))
	eventually(t, "the log is compacted", func() bool {
		n, err := b.Entries(t.Context(), "private-room")
		return err == nil && n < 2*members
	})
	snap, _ := watched(t, b, "private-room")
	assert.Len(t, snap.Members, members)
}

// Issue 11, number 9: a Subscribe that is cancelled, whenever that is, leaves no
// subscription behind once the channel is unsubscribed.
func TestCancelledSubscribe(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	b := open(t, nats.Options{URL: s.url, EventsOnly: true, Timeout: 20 * time.Second})
	heard(t, b)
	var tasks sync.WaitGroup
	for i := range 16 {
		tasks.Go(func() {
			channel := fmt.Sprint("news", i)
			for j := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(j)*5*time.Microsecond)
				_ = b.Subscribe(ctx, channel)
				assert.NoError(t, b.Unsubscribe(t.Context(), channel))
				cancel()
			}
		})
	}
	tasks.Wait()
	_, err := b.Publish(t.Context(), "other", event("said")) // all that was under way is done
	require.NoError(t, err)
	var v struct {
		Connections []struct {
			List []string `json:"subscriptions_list"`
		}
	}
	eventually(t, "no subscription is left", func() bool {
		s.monitored(t, "/connz?subs=1", &v)
		for _, c := range v.Connections {
			for _, subject := range c.List {
				if strings.Contains(subject, ".e.") {
					return false
				}
			}
		}
		return true
	})
}
