package nats_test

import (
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
)

// patient is for a machine that has more to do than it can.
func patient() nats.Options {
	return nats.Options{URL: shared.url, Timeout: 20 * time.Second, Lease: time.Minute}
}

// flood sends more to a subject than a node has room for.
func flood(t testing.TB, subject string) {
	t.Helper()
	nc, err := natsgo.Connect(shared.url)
	require.NoError(t, err)
	defer nc.Close()
	for range nats.LaneSize + 1000 {
		require.NoError(t, nc.Publish(subject, []byte("x")))
	}
	require.NoError(t, nc.Flush())
}

// Whoever is too slow for a channel's events is told that some are missing, each
// time.
func TestManyEvents(t *testing.T) {
	t.Parallel()
	a, b := open(t, patient()), open(t, patient())
	got, gate := make(chan pushy.Message, 1000), make(chan struct{})
	require.NoError(t, a.Open(t.Context(), func(_ string, m pushy.Message) {
		if m.Event == "hold" {
			<-gate
		}
		got <- m
	}))
	require.NoError(t, b.Open(t.Context(), func(string, pushy.Message) {}))
	require.NoError(t, a.Subscribe(t.Context(), "news"))
	say := func(name string) {
		_, err := b.Publish(t.Context(), "news", event(name))
		require.NoError(t, err)
	}
	for range 3 {
		say("hold")
		flood(t, prefix(t)+".e.news")
		say("lost")
		say("lost")
		_, err := a.Publish(t.Context(), "other", event("said")) // its answer comes after all that
		require.NoError(t, err)
		gate <- struct{}{}
		assert.Equal(t, "hold", next(t, got).Event)
		assert.Equal(t, pushy.EventResync, next(t, got).Event)
		say("said")
		assert.Equal(t, "said", next(t, got).Event)
	}
}

// A node that is too slow for the presence news of one channel knows in the end
// who is in all of them.
func TestManyNews(t *testing.T) {
	t.Parallel()
	a, b := open(t, patient()), open(t, patient())
	gate := make(chan struct{})
	_, err := a.Watch(t.Context(), "private-slow", func(pushy.Change) { <-gate })
	require.NoError(t, err)
	_, changes := watched(t, a, "private-room")
	_, brief := watched(t, a, "private-brief")
	require.NoError(t, b.Join(t.Context(), "private-slow", member("slow")))
	flood(t, prefix(t)+".o.n.nobody")
	require.NoError(t, a.Join(t.Context(), "private-room", member("0"))) // its answer comes after all that
	require.NoError(t, b.Join(t.Context(), "private-brief", member("1")))
	require.NoError(t, b.Leave(t.Context(), "private-brief", "1"))
	for _, id := range []string{"1", "2", "3"} {
		require.NoError(t, b.Join(t.Context(), "private-room", member(id)))
		<-time.After(100 * time.Millisecond) // nats.go reports the first that it drops, and others not
	}
	close(gate)
	next(t, brief) // the log is empty as before, but not all was told
	in := map[string]bool{}
	for len(in) < 4 {
		c := next(t, changes)
		if c.State == nil {
			in[c.Member.ID] = true
			continue
		}
		for _, m := range c.State.Members {
			in[m.ID] = true
		}
	}
}

// Issue 11, number 9: messages that were dropped are noticed under load that never lets
// up, too, after all that came before them.
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
