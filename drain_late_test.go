package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

// whileDraining shuts a node down, over 5 s, and calls run with a client of it whose turn has not
// come yet, and with another node.
func whileDraining(t *testing.T, run func(t *testing.T, late *roamer, draining, other *pushy.Server)) {
	t.Helper()
	fakeTime(t, func(t *testing.T) {
		o := pushy.Options{
			ReturnRate: 40,
			Channel: func(name string) pushy.ChannelOptions {
				if name == "kept" {
					return pushy.ChannelOptions{Keep: broker.Keep{Size: 10}}
				}
				return pushy.ChannelOptions{
					Access: pushy.AccessPrivate,
					ClientEvent: func(_ *pushy.Conn, _ string, data json.RawMessage) (json.RawMessage, error) {
						return data, nil
					},
				}
			},
		}
		cluster := newCluster()
		other := startOn(t, cluster.Broker(), o)
		draining := startOn(t, cluster.Broker(), o)
		var all []*roamer
		for i := range 300 {
			all = append(all, newRoamer(t, fmt.Sprint(i)).connect(draining))
		}
		down := make(chan error, 1)
		go func() { down <- draining.Shutdown(context.Background()) }()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		var late *roamer
		for _, c := range all {
			if c.told() || late != nil {
				go c.last()
			} else {
				late = c
			}
		}
		require.NotNil(t, late, "all clients were told at once")
		run(t, late, draining, other)
		assert.Equal(t, []string{"pushy:drain"}, late.last())
		assert.NoError(t, <-down)
	})
}

// told reads what has arrived, and reports whether there is a pushy:drain.
func (r *roamer) told() bool {
	nothing, cancel := context.WithCancel(r.t.Context())
	cancel() // Receive returns what is there
	for {
		text, err := r.Receive(nothing)
		if err != nil {
			return false
		}
		f, err := parseFrame(text)
		require.NoError(r.t, err)
		if f.Event == "pushy:drain" {
			return true
		}
	}
}

// A client whose turn has not come yet is served as before: it subscribes, receives what other
// nodes publish, reads the history, and can leave.
func TestClientIsServedUntilItIsDrained(t *testing.T) {
	t.Parallel()
	whileDraining(t, func(t *testing.T, late *roamer, _, other *pushy.Server) {
		require.NoError(t, other.Publish(t.Context(), "kept", "k", 1))
		late.send(`{"command":"subscribe","data":{"channel":"kept","rewind":5}}`)
		epoch := late.next().field("epoch")
		late.expect(`k kept 1`)
		require.NoError(t, other.Publish(t.Context(), "kept", "k", 2))
		late.expect(`k kept 2`)
		late.subscribeAgain()
		require.NoError(t, other.Publish(t.Context(), room, "n", 1))
		late.expect(`n ` + room + ` 1`)
		late.send(`{"command":"pushy:history","data":{"channel":"kept","limit":1},"id":1}`)
		assert.Contains(t, late.next().String(), `"events":[{"event":"k","data":2,"offset":2`)
		late.send(`{"command":"unsubscribe","data":{"channel":"kept"}}`)
		assert.Equal(t, "pushy:subscription-end", late.next().Event)
		// The broker must be asked about a position that this node does not know.
		late.send(`{"command":"subscribe","data":{"channel":"kept","since":{"epoch":"` + epoch + `","offset":9}}}`)
		assert.Equal(t, "ahead", late.next().field("reason"))
	})
}

// What a server that shuts down does not publish any more is refused, and not acknowledged.
func TestClientEventsAreRefusedDuringADrain(t *testing.T) {
	t.Parallel()
	whileDraining(t, func(t *testing.T, late *roamer, draining, other *pushy.Server) {
		watcher := newRoamer(t, "Ann")
		watcher.enter(other)
		late.subscribeAgain()
		assert.Equal(t, []string{"pushy:presence-add"}, watcher.settle())
		late.send(`{"event":"client-x","channel":"` + room + `","data":1,"id":1}`)
		late.expect(`pushy:error {"message":"Temporarily unavailable","code":"503","id":1}`)
		assert.ErrorIs(t, draining.Publish(t.Context(), room, "n", 1), pushy.ErrClosed)
		assert.Empty(t, watcher.settle())
	})
}
