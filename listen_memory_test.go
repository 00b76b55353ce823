package pushy_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/testlog"
)

// Stats counts Listeners until they end, in each of the ways in which they can end.
func TestListenersAreCounted(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	assert.Zero(t, srv.Stats().Listeners)
	first := listen(t, srv, pushy.ListenOptions{Channels: []string{"news"}})
	second := listen(t, srv, pushy.ListenOptions{})
	assert.Equal(t, 2, srv.Stats().Listeners)
	assert.Zero(t, srv.Stats().Connections)
	first.Close()
	assert.Equal(t, 1, srv.Stats().Listeners)
	require.NoError(t, second.Add(t.Context(), "news", broker.Position{}))
	require.NoError(t, srv.Publish(t.Context(), "news", "x", 1))
	for _, err := range second.Events() {
		require.NoError(t, err)
		break
	}
	assert.Zero(t, srv.Stats().Listeners)
	_, err := srv.Listen(t.Context(), pushy.ListenOptions{Channels: []string{"a:b"}})
	require.Error(t, err)
	assert.Zero(t, srv.Stats().Listeners, "one that could not subscribe")
	listen(t, srv, pushy.ListenOptions{})
	require.NoError(t, srv.Close())
	assert.Zero(t, srv.Stats().Listeners)
}

// What is queued for Listeners counts in Limits.Memory: an event once, although several wait for it, and
// also past events.
func TestMemoryOfListeners(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Channel: func(string) pushy.ChannelOptions {
		return pushy.ChannelOptions{Keep: broker.Keep{Size: 10}}
	}})
	publish := func(n int) {
		for range n {
			require.NoError(t, srv.Publish(t.Context(), "news", "x", strings.Repeat("x", 10_000)))
		}
	}
	publish(10)
	assert.Zero(t, srv.Stats().Memory.Listeners)
	past := listen(t, srv, pushy.ListenOptions{
		Channels: []string{"news"},
		Rewind:   10,
	})
	assert.InDelta(t, 10*10_250, srv.Stats().Memory.Listeners, 1000)
	past.Close()
	assert.Zero(t, srv.Stats().Memory.Listeners)
	var all []*pushy.Listener
	for range 5 {
		all = append(all, listen(t, srv, pushy.ListenOptions{Channels: []string{"news"}}))
	}
	publish(50)
	m := srv.Stats().Memory
	assert.InDelta(t, 50*(10_000+5*250), m.Listeners, 5000)
	assert.GreaterOrEqual(t, m.Total(), m.Listeners)
	left := 50
	for _, err := range all[0].Events() {
		require.NoError(t, err)
		if left--; left == 0 {
			break
		}
	}
	for _, l := range all[1:] {
		l.Close()
	}
	assert.Zero(t, srv.Stats().Memory.Listeners)
}

// When the memory is full of events for Listeners, the one with the most queued bytes ends. Connections
// and other Listeners go on.
func TestMemoryFullOfListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 4 << 20
		log := &testlog.Log{}
		srv := startServer(t, pushy.Options{
			Limits: pushy.Limits{Memory: limit},
			Logger: log.Logger(),
		})
		client := connectPeer(t, srv)
		client.subscribe("news", "")
		unlimited := pushy.ListenOptions{
			Channels:  []string{"busy"},
			MaxEvents: 1 << 20,
			MaxBytes:  1 << 30,
		}
		slow := listen(t, srv, unlimited)
		other := listen(t, srv, pushy.ListenOptions{Channels: []string{"news"}})
		// All of it arrives between two measurements.
		for srv.Stats().Memory.Total() < limit*11/10 {
			require.NoError(t, srv.Publish(t.Context(), "busy", "x", strings.Repeat("x", 10_000)))
		}
		time.Sleep(500 * time.Millisecond)
		for _, err := range slow.Events() {
			require.ErrorIs(t, err, pushy.ErrSlowConsumer)
		}
		assert.Len(t, log.With("the Listeners with the most queued bytes were ended"), 1)
		assert.Empty(t, log.With("the connections with the most queued bytes were closed"))
		require.NoError(t, srv.Ready())
		require.NoError(t, srv.Publish(t.Context(), "news", "x", 1))
		client.next()
		for _, err := range other.Events() {
			require.NoError(t, err)
			break
		}

		// Below that, events are refused, as with the queues of connections.
		slow = listen(t, srv, unlimited)
		refused := false
		for range 1000 {
			err := srv.Publish(t.Context(), "busy", "x", strings.Repeat("x", 10_000))
			if err != nil {
				require.ErrorIs(t, err, pushy.ErrOverloaded)
				refused = true
				break
			}
			time.Sleep(200 * time.Millisecond)
		}
		assert.True(t, refused)
		assert.True(t, errors.Is(srv.Ready(), pushy.ErrOverloaded))
		slow.Close()
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, srv.Ready())
	})
}
