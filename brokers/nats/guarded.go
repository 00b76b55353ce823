package nats

import (
	"context"
	"log/slog"

	"github.com/gopushy/pushy/internal/guard"
	"github.com/gopushy/pushy/internal/ratelog"
)

// guarded runs f for one message or change. A panic ends it, and not the process.
func guarded(notices *ratelog.Logger, purpose string, f func()) {
	if err := guard.Run(f); err != nil {
		notices.Warn("panic over a message from NATS", purpose,
			slog.String("for", purpose), slog.Any("error", err), guard.Stack(err))
	}
}

// safeHandler is the host's log handler, without its panics: it is called from
// goroutines whose panic would end the process.
type safeHandler struct{ slog.Handler }

func (h safeHandler) Handle(ctx context.Context, r slog.Record) (err error) {
	defer func() { _ = recover() }()
	return h.Handler.Handle(ctx, r)
}

func (h safeHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return safeHandler{h.Handler.WithAttrs(attrs)}
}

func (h safeHandler) WithGroup(name string) slog.Handler {
	return safeHandler{h.Handler.WithGroup(name)}
}
