package nats_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
)

// Issue 11, number 9: what max_payload can never take is an error that says so, which
// the trigger answers with 413, and what fits just so arrives.
func TestTooLargeForNATS(t *testing.T) {
	t.Parallel()
	s := configured(t, "max_payload: 4096\n")
	b := open(t, nats.Options{URL: s.url})
	heardB := heard(t, b)
	require.NoError(t, b.Subscribe(t.Context(), "news"))
	sized := func(n int) pushy.Message {
		m := event("said")
		m.Data = json.RawMessage(`"` + strings.Repeat("x", n) + `"`)
		return m
	}
	for _, n := range []int{4096, 10_000, 300_000} {
		_, err := b.Publish(t.Context(), "news", sized(n))
		require.ErrorIs(t, err, pushy.ErrTooLarge)
		assert.ErrorContains(t, err, "max_payload of NATS is 4096")
	}
	large := member("large")
	large.JSON = json.RawMessage(`{"memberId":"large","x":"` + strings.Repeat("x", 4096) + `"}`)
	err := b.Join(t.Context(), "private-room", large)
	require.ErrorIs(t, err, pushy.ErrTooLarge)
	for n := 3900; ; n++ {
		_, err := b.Publish(t.Context(), "news", sized(n))
		if err != nil {
			require.ErrorIs(t, err, pushy.ErrTooLarge)
			assert.Greater(t, n, 4000)
			break
		}
		assert.Len(t, next(t, heardB).Data, n+2)
	}
	require.NoError(t, b.Away(), "and the connection goes on")
}

// Issue 11, number 9.
func TestTriggerTooLargeForNATS(t *testing.T) {
	t.Parallel()
	s := configured(t, "max_payload: 4096\n")
	b := open(t, nats.Options{URL: s.url})
	const key = "a secret of the test"
	srv, err := pushy.New(pushy.Options{SecretKey: key, Broker: b, Logger: testLogger(t)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	assert.Equal(t, http.StatusOK, trigger(t, srv, key, "n").Code)
	large := strings.Repeat("x", 5000)
	require.ErrorIs(t, srv.Publish(t.Context(), "n", "said", large), pushy.ErrTooLarge)
	assert.Equal(t, http.StatusRequestEntityTooLarge, triggerBody(t, srv, key, "n", `{"x":"`+large+`"}`).Code)
}
