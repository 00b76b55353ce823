package nats_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
)

// Issue 11, number 26: a log handler that panics, here in a goroutine of the
// broker's, does not end the process.
func TestPanickingLogHandler(t *testing.T) {
	t.Parallel()
	host := &panickingHandler{called: make(chan struct{})}
	broker, err := nats.New(t.Context(), nats.Options{URL: "nats://127.0.0.1:1", Logger: slog.New(host)})
	require.NoError(t, err)
	require.NoError(t, broker.Open(t.Context(), func(string, pushy.Message) {}))
	select {
	case <-host.called:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was logged")
	}
	assert.NoError(t, broker.Subscribe(t.Context(), "news"))
	assert.NoError(t, broker.Close())
}

type panickingHandler struct {
	once   sync.Once
	called chan struct{}
}

func (h *panickingHandler) Enabled(context.Context, slog.Level) bool {
	h.once.Do(func() { close(h.called) })
	panic("Enabled")
}
func (*panickingHandler) Handle(context.Context, slog.Record) error { panic("Handle") }
func (*panickingHandler) WithAttrs([]slog.Attr) slog.Handler        { panic("WithAttrs") }
func (*panickingHandler) WithGroup(string) slog.Handler             { panic("WithGroup") }
