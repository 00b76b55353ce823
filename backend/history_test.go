package backend_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/broker"
)

// The history is that of Server.History.
func TestHistory(t *testing.T) {
	onNodes(t, 2, func(t *testing.T, nodes []node) {
		ctx, api := t.Context(), nodes[1].api
		at, err := api.Position(ctx, "kept")
		require.NoError(t, err)
		for i := range 60 {
			require.NoError(t, nodes[0].Publish(ctx, "Kept", "said", i))
		}
		last, err := api.Position(ctx, "KEPT")
		require.NoError(t, err)
		assert.Equal(t, broker.Position{Epoch: at.Epoch, Offset: at.Offset + 60}, last)
		for _, o := range []pushy.HistoryOptions{
			{},
			{Limit: 3},
			{Limit: 100},
			{Before: at.Offset + 10},
			{After: at.Offset + 10},
			{After: at.Offset + 60},
			{After: at.Offset + 5, Limit: 2},
		} {
			want, err := nodes[0].History(ctx, "kept", o)
			require.NoError(t, err)
			past, err := api.History(ctx, "Kept", backend.HistoryOptions(o))
			require.NoError(t, err)
			assert.Equal(t, want.Top, past.Top, o)
			assert.Equal(t, want.More, past.More, o)
			require.Len(t, past.Events, len(want.Events), o)
			for i, e := range past.Events {
				same := want.Events[i]
				assert.Equal(t, same.Position, e.Position, o)
				assert.Equal(t, same.Name, e.Name, o)
				assert.Equal(t, string(same.Data), string(e.Data), o)
				assert.Equal(t, same.Time.UnixMilli(), e.Time.UnixMilli(), o)
			}
		}
	})
}
