package pusher_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/subscriber"
)

// A channel is banned: the clients of all protocols, on all nodes, and the Listeners are out of it, also
// of its spelling with capitals, and nobody gets in until the ban ends.
func TestBannedChannelOfAllProtocols(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster()
		here := serve(t, pushy.Options{Broker: cluster.Broker()})
		n := serve(t, pushy.Options{Broker: cluster.Broker()})
		kit := pushytest.New(t, n.srv)
		own := kit.Connect()
		own.Subscribe("news")
		lower, upper := n.dial(), n.dial()
		lower.join("news")
		upper.join("News")
		stream := func() *http.Response {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://pushy.test/pushy/events?channel=news", nil)
			require.NoError(t, err)
			res, err := n.http.Do(r)
			require.NoError(t, err)
			t.Cleanup(func() { _ = res.Body.Close() })
			return res
		}
		sse := stream()
		require.Equal(t, http.StatusOK, sse.StatusCode)
		c, err := subscriber.Dial(t.Context(), "ws://pushy.test/pushy", subscriber.Options{NetDial: n.pipes.Dial})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		sub, err := c.Subscribe(t.Context(), "news", nil)
		require.NoError(t, err)
		listener, err := n.srv.Listen(t.Context(), pushy.ListenOptions{Channels: []string{"news"}})
		require.NoError(t, err)
		t.Cleanup(listener.Close)

		kicked, err := here.srv.Kick(t.Context(), pushy.Kick{
			Target: "channel:News",
			Reason: "Closed",
			Until:  time.Now().Add(time.Hour),
		})
		require.NoError(t, err)
		assert.Equal(t, 6, kicked.Closed)
		var end struct{ Channel, Reason string }
		own.ExpectEvent("", "pushy:subscription-end", &end)
		assert.Equal(t, "Closed", end.Reason)
		for _, p := range []*peer{lower, upper} {
			g := p.expect("pusher:subscription_error")
			assert.Contains(t, g.content(t), "Closed")
		}
		var events []string
		for lines := bufio.NewScanner(sse.Body); lines.Scan(); {
			if event, is := strings.CutPrefix(lines.Text(), "event: "); is {
				events = append(events, event)
			}
		}
		assert.Equal(t, []string{"pushy:open", "pushy:end", "pushy:end"}, events)
		for e, err := range sub.Events() {
			require.NoError(t, err)
			assert.Equal(t, subscriber.KindEnded, e.Kind)
			assert.Equal(t, "Closed", e.Reason)
			break
		}
		for e, err := range listener.Events() {
			require.NoError(t, err)
			assert.Equal(t, pushy.KindEnded, e.Kind)
			assert.Equal(t, "Closed", e.Reason)
			break
		}

		enter := func() map[string]bool {
			entered := map[string]bool{}
			_, err := kit.Connect().TrySubscribe("News")
			entered["pushy"] = err == nil
			entered["SSE"] = stream().StatusCode == http.StatusOK
			for _, name := range []string{"news", "News", "NEWS"} {
				p := n.dial()
				p.ask(name)
				entered["Pusher "+name] = p.next().Event == "pusher_internal:subscription_succeeded"
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			s, err := c.Subscribe(ctx, "news", nil)
			entered["Go client"] = err == nil
			if err == nil {
				require.NoError(t, s.Unsubscribe(ctx))
			}
			l, err := n.srv.Listen(t.Context(), pushy.ListenOptions{Channels: []string{"news"}})
			entered["Listener"] = err == nil
			if err == nil {
				l.Close()
			}
			return entered
		}
		for name, is := range enter() {
			assert.False(t, is, name)
		}
		time.Sleep(time.Hour)
		for name, is := range enter() {
			assert.True(t, is, name)
		}
	})
}
