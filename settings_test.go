package pushy_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/testlog"
)

const differentSettings = "nodes have different settings"

// Nodes whose options must be equal and are not log one warning, which names the option.
func TestDifferentSettingsAreNamed(t *testing.T) {
	t.Parallel()
	channel := func(string) pushy.ChannelOptions { return pushy.ChannelOptions{} }
	for name, c := range map[string]struct {
		one, two pushy.Options
		want     string // "" for no warning
	}{
		"equal":         {pushy.Options{}, pushy.Options{}, ""},
		"per node":      {pushy.Options{ReturnRate: 1}, pushy.Options{MaxKept: 1 << 20}, ""},
		"Grace":         {pushy.Options{Grace: time.Minute}, pushy.Options{}, "option=Grace here=15s elsewhere=1m0s"},
		"keys":          {pushy.Options{}, pushy.Options{SecretKey: "another key of sixteen bytes"}, `option="SecretKey and OldSecretKeys"`},
		"members":       {pushy.Options{Limits: pushy.Limits{Members: 7, PagedMembers: 100_000}}, pushy.Options{}, "option=Limits.Members"},
		"paged members": {pushy.Options{Limits: pushy.Limits{PagedMembers: 2000}}, pushy.Options{}, "option=Limits.PagedMembers"},
		"keep bytes":    {pushy.Options{}, pushy.Options{Limits: pushy.Limits{KeepBytes: 1 << 20}}, "option=Limits.KeepBytes"},
		"channel":       {pushy.Options{Channel: channel}, pushy.Options{}, `option=Channel here="not set" elsewhere=set`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &testlog.Log{}
			cluster := memory.NewCluster(memory.Options{Logger: log.Logger()})
			for _, o := range []pushy.Options{c.one, c.two, c.two, c.one} {
				startOn(t, cluster.Broker(), o)
			}
			found := log.With(differentSettings)
			if c.want == "" {
				assert.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			assert.Contains(t, found[0], c.want)
		})
	}
}

// keptBy is an Options.Channel that keeps events.
func keptBy(k broker.Keep) func(string) pushy.ChannelOptions {
	return func(string) pushy.ChannelOptions { return pushy.ChannelOptions{Keep: k} }
}

// A node that receives an event which its publisher keeps in another way logs one warning a
// channel. A handler of the log can use the Server.
func TestDifferentKeepIsNamed(t *testing.T) {
	t.Parallel()
	hundred := broker.Keep{
		Size:  100,
		TTL:   time.Minute,
		Bytes: 1000,
	}
	size, ttl, rounded, bytes := hundred, hundred, hundred, hundred
	size.Size = 99
	ttl.TTL = time.Hour
	rounded.TTL += 300 * time.Microsecond
	bytes.Bytes = 1001
	for name, c := range map[string]struct {
		here, there broker.Keep
		want        string // "" for no warning
	}{
		"equal":          {hundred, hundred, ""},
		"rounded":        {hundred, rounded, ""},
		"none":           {broker.Keep{}, broker.Keep{}, ""},
		"size":           {hundred, size, `here="100 events, 1m0s, 1000 bytes" elsewhere="99 events, 1m0s, 1000 bytes"`},
		"ttl":            {hundred, ttl, `elsewhere="100 events, 1h0m0s, 1000 bytes"`},
		"bytes":          {hundred, bytes, `elsewhere="100 events, 1m0s, 1001 bytes"`},
		"default":        {hundred, broker.Keep{Size: 100, TTL: time.Minute}, `elsewhere="100 events, 1m0s, 262144 bytes"`},
		"kept there":     {broker.Keep{}, hundred, `here=none elsewhere="100 events`},
		"kept only here": {hundred, broker.Keep{}, `here="100 events, 1m0s, 1000 bytes" elsewhere=none`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				cluster := newCluster()
				log := &testlog.Log{}
				var srv *pushy.Server
				srv = startOn(t, cluster.Broker(), pushy.Options{
					Channel: keptBy(c.here),
					Logger: slog.New(&relayingHandler{
						Handler: slog.NewTextHandler(log, nil),
						relay:   func() { _ = srv.Publish(context.Background(), "alerts", "logged", 1) },
					}),
				})
				there := startOn(t, cluster.Broker(), pushy.Options{Channel: keptBy(c.there)})
				alerts := connectPeer(t, srv)
				alerts.subscribe("alerts", "")
				for _, channel := range []string{"news", "sport"} {
					reader := connectPeer(t, srv)
					reader.subscribe(channel, "")
					for range 10 {
						require.NoError(t, there.Publish(t.Context(), channel, "said", 1))
						assert.Equal(t, "said", reader.next().Event)
					}
					synctest.Wait() // the line is written in another goroutine
				}
				found := log.With(differentSettings)
				if c.want == "" {
					assert.Empty(t, found)
					return
				}
				require.Len(t, found, 2)
				assert.Contains(t, found[0], "channel=news ")
				assert.Contains(t, found[0], c.want)
				assert.Contains(t, found[0], `option="ChannelOptions.Keep, Limits.KeepBytes"`)
				assert.Contains(t, found[1], "channel=sport")
				assert.Equal(t, "logged", alerts.next().Event)
			})
		})
	}
}

// relayingHandler is a log handler that uses the Server, as one that shows the log in a page.
type relayingHandler struct {
	slog.Handler
	relay func()
}

func (h *relayingHandler) Handle(ctx context.Context, r slog.Record) error {
	h.relay()
	return h.Handler.Handle(ctx, r)
}
