package redis_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/redis/internal/redistest"
)

// Issue 11, number 8. A node that reconnects over a slow way has more channels to settle
// than its lease is long: nobody takes it for dead meanwhile.
func TestSettlingOutlastsTheLease(t *testing.T) {
	t.Parallel()
	const channels = 700
	s := ownServer(t)
	proxy, err := redistest.NewProxy(s.Addr)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	o := options(t)
	o.Addresses = []string{s.Addr}
	other := connect(t, o)
	o.Addresses = []string{proxy.Addr}
	n := connect(t, o)
	changes := make(chan pushy.Change, channels)
	for i := range channels {
		channel := "private-" + strconv.Itoa(i)
		id := "m" + strconv.Itoa(i)
		require.NoError(t, n.Join(t.Context(), channel, pushy.Member{ID: id, HasData: true, JSON: []byte(`{"memberId":"` + id + `"}`)}))
		if i%100 == 0 {
			_, err := other.Watch(t.Context(), channel, func(c pushy.Change) { changes <- c })
			require.NoError(t, err)
		}
	}
	<-time.After(o.Lease + time.Second) // the other sweeps only once it has been there that long
	mend := proxy.Cut()
	proxy.Slow(60 * time.Millisecond) // 700 channels, 16 at a time, take over 5 s
	mend()
	require.Eventually(t, func() bool { return n.Away() == nil }, patience, tick)
	<-time.After(5 * o.Lease)
	assert.Empty(t, changes, "members of a node that was there all the time")
	assert.NoError(t, n.Away())
}

// Issue 11, number 10. A Watch that begins while the one before ends gets what is logged
// from then on.
func TestWatchWhileTheLastEnds(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Addresses, o.Timeout = []string{server.Addr}, 20*time.Second
	a, b := connect(t, o), connect(t, o)
	var all sync.WaitGroup
	for c := range 32 {
		channel := "private-" + strconv.Itoa(c)
		all.Go(func() {
			for i := range 60 {
				before, end := context.WithCancel(t.Context())
				_, err := b.Watch(before, channel, func(pushy.Change) {})
				assert.NoError(t, err)
				changes := make(chan pushy.Change, 10)
				ctx, cancel := context.WithCancel(t.Context())
				end()
				_, err = b.Watch(ctx, channel, func(c pushy.Change) { changes <- c })
				assert.NoError(t, err)
				id := "m" + strconv.Itoa(i)
				assert.NoError(t, a.Join(t.Context(), channel, pushy.Member{ID: id, JSON: []byte(`{"memberId":"` + id + `"}`)}))
				select {
				case <-changes:
				case <-time.After(patience):
					assert.Fail(t, "no change came", "%s of %s", id, channel)
					cancel()
					return
				}
				cancel()
			}
		})
	}
	all.Wait()
}

// A panic of what is called for a message ends no process and no subscription.
func TestPanicWhileDelivering(t *testing.T) {
	t.Parallel()
	o, log := options(t), &lines{}
	o.Addresses, o.Logger = []string{server.Addr}, log.logger()
	a := connect(t, o)
	got := make(chan string, 10)
	require.NoError(t, a.Open(t.Context(), func(_ string, m pushy.Message) {
		got <- m.Event
		if m.Event == "bad" {
			panic("deliver")
		}
	}))
	require.NoError(t, a.Subscribe(t.Context(), "news"))
	for _, name := range []string{"bad", "good", "bad", "good"} {
		_, err := a.Publish(t.Context(), "news", event(name))
		require.NoError(t, err)
		select {
		case heard := <-got:
			assert.Equal(t, name, heard)
		case <-time.After(patience):
			t.Fatal("no message came")
		}
	}
	require.NoError(t, a.Close())
	assert.Len(t, log.with("a background task panicked"), 1, log)
}
