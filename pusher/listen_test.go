package pusher_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

// Channels with capitals exist for Pusher clients, and for a Listener that keeps the case of names.
func TestListenerKeepsCase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := serve(t, pushy.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const user, prices, added = "private-App.Models.User.1", "private-cache-Prices", "private-Added"
		listen := func(o pushy.ListenOptions) (*pushy.Listener, <-chan string) {
			l, err := n.srv.Listen(ctx, o)
			require.NoError(t, err)
			got := make(chan string, 100)
			go func() {
				for e, err := range l.Events() {
					if err == nil && e.Kind == pushy.KindPublished {
						got <- e.Channel + " " + string(e.Data)
					}
				}
			}()
			return l, got
		}
		kept, got := listen(pushy.ListenOptions{
			Channels: []string{user, user, prices},
			KeepCase: true,
		})
		require.NoError(t, kept.Add(t.Context(), added, broker.Position{}))
		folded, lower := listen(pushy.ListenOptions{Channels: []string{user, prices}})
		require.NoError(t, folded.Add(t.Context(), added, broker.Position{}))

		for i, channel := range []string{user, prices, added} {
			require.NoError(t, n.p.Publish(t.Context(), channel, "e", i, ""))
			require.NoError(t, n.srv.Publish(t.Context(), channel, "e", i))
		}
		synctest.Wait()
		for _, want := range []string{user + " 0", prices + " 1", added + " 2"} {
			assert.Equal(t, want, <-got)
		}
		for _, want := range []string{"private-app.models.user.1 0", "private-cache-prices 1", "private-added 2"} {
			assert.Equal(t, want, <-lower)
		}
		at := kept.Position(prices)
		assert.Equal(t, uint64(1), at.Offset)
		assert.Zero(t, kept.Position("private-cache-prices"))

		kept.Remove("private-added") // another channel
		require.NoError(t, n.p.Publish(t.Context(), added, "e", 3, ""))
		synctest.Wait()
		assert.Equal(t, added+" 3", <-got)
		kept.Remove(added)
		require.NoError(t, n.p.Publish(t.Context(), added, "e", 4, ""))
		require.NoError(t, n.p.Publish(t.Context(), prices, "e", 5, ""))
		synctest.Wait()
		assert.Equal(t, prices+" 5", <-got)
		assert.Empty(t, got)

		_, again := listen(pushy.ListenOptions{
			Channels: []string{prices},
			Since:    map[string]broker.Position{prices: at},
			KeepCase: true,
		})
		synctest.Wait()
		assert.Equal(t, prices+" 5", <-again)
		_, err := n.srv.Listen(t.Context(), pushy.ListenOptions{
			Channels: []string{prices},
			Since:    map[string]broker.Position{"private-cache-prices": at},
			KeepCase: true,
		})
		assert.ErrorContains(t, err, `option Since: "private-cache-prices" is not among Channels`)
		_, err = n.srv.Listen(t.Context(), pushy.ListenOptions{
			Channels: []string{"A\n"},
			KeepCase: true,
		})
		assert.ErrorContains(t, err, "option Channels[0]")
	})
}
