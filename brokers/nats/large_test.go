package nats_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

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

// Issue 11, number 9: a node that has been alone logs its members in messages that
// max_payload takes, however many and however large they are.
func TestManyMembersAfterBeingAlone(t *testing.T) {
	t.Parallel()
	s := configured(t, "max_payload: 16384\n")
	o := nats.Options{URL: s.url, Lease: time.Minute}
	alone, other := open(t, o), open(t, o)
	s.stop()
	eventually(t, "both are alone", func() bool { return alone.Away() != nil && other.Away() != nil })
	const members = 60
	for i := range members {
		m := member(fmt.Sprint(i))
		// Each fits alone, two of the larger ones do not fit together.
		m.JSON = json.RawMessage(`{"memberId":"` + m.ID + `","x":"` + strings.Repeat("x", i%3*5000) + `"}`)
		require.NoError(t, alone.Join(t.Context(), "private-room", m))
	}
	require.NoError(t, s.start())
	eventually(t, "nobody is away", func() bool { return alone.Away() == nil && other.Away() == nil })
	eventually(t, "the other node has all members", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		snap, err := other.Watch(ctx, "private-room", func(pushy.Change) {})
		return err == nil && len(snap.Members) == members
	})
}
