package backend_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

// failing is a broker whose Append fails for some time.
type failing struct {
	*memory.Broker
	after atomic.Int64 // the number of events that are appended first; negative: no failure
}

func (f *failing) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if e.Kind == broker.Event && f.after.Load() >= 0 && f.after.Add(-1) < 0 {
		f.after.Store(0)
		return broker.Appended{}, broker.ErrAway
	}
	return f.Broker.Append(ctx, channel, e)
}

func events(n int) []backend.Event {
	all := make([]backend.Event, n)
	for i := range all {
		all[i] = backend.Event{
			Channels: []string{"news"},
			Name:     "x",
			Data:     []int{i},
		}
	}
	return all
}

// Acceptance 13: the broker fails after event 3 of 10. The next try publishes 4 to 10, and each
// event is delivered once. If the broker does not return, the error comes with what was done.
func TestBrokerFailsWithinABatch(t *testing.T) {
	t.Parallel()
	for _, returns := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := &failing{Broker: memory.New()}
			b.after.Store(3)
			srv, reader := startServer(t, pushy.Options{Broker: b})
			tries := 0
			n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tries++; tries == 3 && returns {
					b.after.Store(-1)
				}
				srv.ServeHTTP(w, r)
			}))
			published, err := n.client(t, backend.Options{Tries: 3}).PublishAll(t.Context(), backend.Batch{Events: events(10)})
			assert.Equal(t, 3, tries)
			require.Len(t, published.Events, 10)
			expected := 10
			if !returns {
				expected = 3
				require.ErrorIs(t, err, backend.ErrUnavailable)
			} else {
				require.NoError(t, err)
			}
			for i, receipts := range published.Events {
				require.Contains(t, receipts, "news")
				assert.Equal(t, i >= expected, receipts["news"].Err != nil, "event %d", i)
				if i < expected {
					var got []int
					reader.ExpectEvent("news", "x", &got)
					assert.Equal(t, []int{i}, got)
				}
			}
			reader.ExpectNone("news", "x")
		})
	}
}

// A batch with a bad event is refused as a whole, and the error names the place.
func TestBatchesAreCheckedFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, reader := startServer(t, pushy.Options{CheckEvent: func(event string) error {
			if event == "bad" {
				return assert.AnError
			}
			return nil
		}})
		c := serve(t, srv).client(t, backend.Options{})
		all := events(100)
		all[99].Name = "bad"
		_, err := c.PublishAll(t.Context(), backend.Batch{Events: all})
		require.ErrorIs(t, err, backend.ErrBadRequest)
		require.ErrorContains(t, err, "events[99].event: ")
		_, err = c.PublishAll(t.Context(), backend.Batch{})
		require.ErrorContains(t, err, "no events")
		_, err = c.PublishAll(t.Context(), backend.Batch{Events: events(1), ID: "a b"})
		require.ErrorContains(t, err, "must be 1 to 64 of")
		reader.ExpectNone("news", "x")
	})
}

// Acceptance 2, as a client sees it: an id of the caller makes two calls one, and is refused
// with other content.
func TestIDsOfTheCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, reader := startServer(t, pushy.Options{})
		c := serve(t, srv).client(t, backend.Options{})
		order := backend.Batch{Events: events(2), ID: "order-17"}
		first, err := c.PublishAll(t.Context(), order)
		require.NoError(t, err)
		time.Sleep(10 * time.Minute)
		second, err := c.PublishAll(t.Context(), order)
		require.NoError(t, err)
		assert.Equal(t, first, second)
		_, err = c.PublishAll(t.Context(), backend.Batch{Events: events(3), ID: "order-17"})
		require.ErrorIs(t, err, backend.ErrConflict)
		for range 2 {
			reader.ExpectEvent("news", "x", nil)
		}
		reader.ExpectNone("news", "x")
	})
}

// Two servers with one broker behind a load balancer: the answer of the first is lost, and the
// second gives it again, with the positions.
func TestTwoServersDeliverOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		keep := func(string) pushy.ChannelOptions { return pushy.ChannelOptions{Keep: broker.Keep{Size: 10}} }
		first, before := startServer(t, pushy.Options{Broker: cluster.Broker(), Channel: keep})
		second, after := startServer(t, pushy.Options{Broker: cluster.Broker(), Channel: keep})
		lost := httptest.NewRecorder()
		n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if lost.Body.Len() == 0 {
				first.ServeHTTP(lost, r)
				panic(http.ErrAbortHandler)
			}
			second.ServeHTTP(w, r)
		}))
		published, err := n.client(t, backend.Options{}).PublishAll(t.Context(), backend.Batch{Events: events(3)})
		require.NoError(t, err)
		for i, receipts := range published.Events {
			at := receipts["news"].Position.String()
			assert.NotEmpty(t, at)
			assert.Equal(t, 1, strings.Count(lost.Body.String(), `"`+at+`"`), "event %d", i)
		}
		for range 3 {
			before.ExpectEvent("news", "x", nil)
			after.ExpectEvent("news", "x", nil)
		}
		before.ExpectNone("news", "x")
		after.ExpectNone("news", "x")
	})
}

// A clock that is off is named and not tried again; a request that a server refuses because it
// was signed before its start is signed anew.
func TestClock(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			srv, _ := startServer(t, pushy.Options{})
			tries := 0
			n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tries++; tries == 1 {
					w.Header().Set("Date", time.Now().Add(skew).UTC().Format(http.TimeFormat))
					w.WriteHeader(http.StatusForbidden)
					_, _ = w.Write([]byte(`{"error":{"code":"501","message":"Clock 3600 s behind, at most 300"}}`))
					return
				}
				srv.ServeHTTP(w, r)
			}))
			err := n.client(t, backend.Options{}).Publish(t.Context(), "news", "x", nil)
			if skew == 0 {
				require.NoError(t, err)
				assert.Equal(t, 2, tries)
				return
			}
			require.ErrorIs(t, err, backend.ErrClock)
			require.NotErrorIs(t, err, backend.ErrDenied)
			require.ErrorContains(t, err, "3600 s behind")
			assert.Equal(t, 1, tries)
		})
	}
}
