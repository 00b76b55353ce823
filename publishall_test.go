package pushy_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

// appends calls a func before each event that is appended, except those between nodes.
type appends struct {
	broker.Broker
	before func(e broker.Entry) error

	mu     sync.Mutex
	events []string // that were appended
}

func (b *appends) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if e.Kind != broker.Event || strings.HasPrefix(channel, ":") {
		return b.Broker.Append(ctx, channel, e)
	}
	if err := b.before(e); err != nil {
		return broker.Appended{}, err
	}
	b.mu.Lock()
	b.events = append(b.events, channel+" "+e.Event)
	b.mu.Unlock()
	return broker.Appended{}, nil // a broker that knows nothing of receivers
}

func numbered(names ...string) (events []pushy.Event) {
	for _, name := range names {
		events = append(events, pushy.Event{
			Channel: "room",
			Name:    name,
		})
	}
	return events
}

// The error names the event and the field, and no event is published.
func TestPublishAllChecksFirst(t *testing.T) {
	t.Parallel()
	b := &appends{
		Broker: newCluster().Broker(),
		before: func(broker.Entry) error { return nil },
	}
	srv := startOn(t, b, pushy.Options{})
	for says, change := range map[string]func(*pushy.Event){
		"pushy: publish: events[2]: channel: must not contain :":                             func(e *pushy.Event) { e.Channel = "a:b" },
		"pushy: publish: events[2]: event: must not be empty":                                func(e *pushy.Event) { e.Name = "" },
		"pushy: publish: events[2]: id: must not be longer than 128 bytes":                   func(e *pushy.Event) { e.ID = strings.Repeat("x", 129) },
		"pushy: publish: events[2]: latest: must not be longer than 128 bytes":               func(e *pushy.Event) { e.Latest = strings.Repeat("x", 129) },
		"pushy: publish: events[2]: except: must have at most 64 ids":                        func(e *pushy.Event) { e.Except = make([]string, 65) },
		"pushy: publish: events[2]: except[1]: must have 1 to 128 bytes":                     func(e *pushy.Event) { e.Except = []string{"a", ""} },
		"pushy: publish: events[2]: except[0]: must have 1 to 128 bytes":                     func(e *pushy.Event) { e.Except = []string{strings.Repeat("x", 129)} },
		"pushy: publish: events[2]: encode data: json: unsupported type: func(*pushy.Event)": func(e *pushy.Event) { e.Data = func(*pushy.Event) {} },
	} {
		events := numbered("a", "b", "c")
		change(&events[2])
		results, err := srv.PublishAll(t.Context(), events)
		require.ErrorContains(t, err, says)
		assert.Nil(t, results)
		_, err = srv.PublishEvent(t.Context(), events[2])
		require.ErrorContains(t, err, strings.Replace(says, "events[2]: ", "", 1))
	}
	assert.Empty(t, b.events)
}

// After a failure nothing more is begun, and every event has its own result, also if the broker
// ends the goroutine that appends.
func TestPublishAllStops(t *testing.T) {
	t.Parallel()
	failed := errors.New("no space")
	for name, fail := range map[string]func() error{
		"error":    func() error { return failed },
		"goexit":   func() error { runtime.Goexit(); return nil },
		"panic":    func() error { panic("b") },
		"tooLarge": func() error { return broker.ErrTooLarge },
	} {
		b := &appends{
			Broker: newCluster().Broker(),
			before: func(e broker.Entry) error {
				if e.Event == "b" {
					return fail()
				}
				return nil
			},
		}
		srv := startOn(t, b, pushy.Options{})
		results, err := srv.PublishAll(t.Context(), numbered("a", "b", "c"))
		require.ErrorContains(t, err, "pushy: events[1]: ", name)
		require.Len(t, results, 3)
		require.NoError(t, results[0].Err, "%s: it was published", name)
		require.Error(t, results[1].Err, name)
		assert.NotErrorIs(t, results[1].Err, pushy.ErrNotSent, name)
		want := []string{"room a"}
		if name == "tooLarge" { // which says nothing about the others
			require.NoError(t, results[2].Err)
			want = append(want, "room c")
		} else {
			require.ErrorIs(t, results[2].Err, pushy.ErrNotSent, name)
		}
		assert.Equal(t, want, b.events, name)
	}
}

// Each event has its own receipt, in the order of the arguments, and the events of a channel are in
// order. The same events again, with IDs, publish only those that were not published.
func TestPublishAllResults(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func() broker.Broker{
		"noBroker": func() broker.Broker { return nil },
		"broker":   func() broker.Broker { return newCluster().Broker() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startOn(t, open(), keeping(100, time.Hour))
			p := connectPeer(t, srv)
			channels := []string{"room", "nobody", "other"}
			p.subscribe("room", "")
			p.subscribe("other", "")
			var events []pushy.Event
			for i := range 30 {
				events = append(events, pushy.Event{
					Channel: strings.ToUpper(channels[i%3]),
					Name:    "e" + strconv.Itoa(i),
					ID:      "id" + strconv.Itoa(i),
				})
			}
			first, err := srv.PublishAll(t.Context(), events[:20])
			require.NoError(t, err)
			require.Len(t, first, 20)
			all, err := srv.PublishAll(t.Context(), events)
			require.NoError(t, err)
			require.Len(t, all, 30)
			for i, r := range all {
				assert.Equal(t, i < 20, r.Duplicate, i)
				assert.EqualValues(t, i/3+1, r.Position.Offset, i)
				if i < 20 {
					assert.Equal(t, first[i].Position, r.Position)
				} else {
					assert.Equal(t, channels[i%3] == "nobody", r.Receivers == broker.None, i)
				}
			}
			got := map[string][]string{}
			for range 20 {
				f := p.next()
				got[f.Channel] = append(got[f.Channel], f.Event)
			}
			p.quiet()
			want := map[string][]string{}
			for i := range 30 {
				if channel := channels[i%3]; channel != "nobody" {
					want[channel] = append(want[channel], "e"+strconv.Itoa(i))
				}
			}
			assert.Equal(t, want, got)
			none, err := srv.PublishAll(t.Context(), nil)
			require.NoError(t, err)
			assert.Empty(t, none)
			require.NoError(t, srv.Close())
			_, err = srv.PublishAll(t.Context(), events[:1])
			assert.ErrorIs(t, err, pushy.ErrClosed)
		})
	}
}
