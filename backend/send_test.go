package backend_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/pushytest"
)

func TestSend(t *testing.T) {
	onNodes(t, 2, func(t *testing.T, nodes []node) {
		lose := false
		n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if lose {
				lose = false
				nodes[1].ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			nodes[0].ServeHTTP(w, r)
		}))
		api, ctx := n.client(t, backend.Options{}), t.Context()
		here, there, other := nodes[0].connect("42"), nodes[1].connect("42"), nodes[1].connect("43")
		receive := func(c *pushytest.Client, want string) {
			t.Helper()
			assert.JSONEq(t, want, string(c.ExpectEvent("", "order", nil).Data))
			c.ExpectNone("", "order")
		}

		lose = true
		sent, err := api.SendUser(ctx, "42", "order", map[string]string{"state": "<paid>"})
		require.NoError(t, err)
		assert.Equal(t, backend.Sent{Sent: 2, Coverage: backend.Coverage{Nodes: 2}}, sent)
		receive(here, `{"state":"<paid>"}`)
		receive(there, `{"state":"<paid>"}`)

		sent, err = api.SendConn(ctx, other.ID(), "order", nil)
		require.NoError(t, err)
		assert.Equal(t, 1, sent.Sent)
		receive(other, `{}`)
		here.ExpectNone("", "order")

		sent, err = api.SendUser(ctx, "nobody", "order", nil)
		require.NoError(t, err)
		assert.Equal(t, backend.Sent{Coverage: backend.Coverage{Nodes: 2}}, sent)

		m := backend.Message{
			User:  "42",
			Event: "order",
			Data:  []int{17},
			ID:    "order-17-paid",
		}
		for range 2 {
			sent, err = api.Send(ctx, m)
			require.NoError(t, err)
			assert.Equal(t, 2, sent.Sent)
		}
		receive(here, `[17]`)
		receive(there, `[17]`)
		m.Data = nil
		_, err = api.Send(ctx, m)
		require.ErrorIs(t, err, backend.ErrConflict)
		here.ExpectNone("", "order")
	})
}
