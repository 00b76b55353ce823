package nats

import (
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
