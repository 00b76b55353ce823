// Package safelog keeps a host's log handler from harming what logs: a panic in
// it would end the goroutine that wrote the line, and with it the process.
package safelog

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// New returns a Logger whose handler is log's, without its panics. The first is
// reported on standard error: the log itself cannot be told.
func New(log *slog.Logger) *slog.Logger {
	if _, safe := log.Handler().(*handler); safe {
		return log
	}
	return slog.New(&handler{log.Handler(), new(sync.Once)})
}

// handler passes everything on to the host's.
type handler struct {
	host   slog.Handler
	report *sync.Once
}

var _ slog.Handler = (*handler)(nil)

// recovered is deferred around each call.
func (h *handler) recovered(method string) {
	if p := recover(); p != nil {
		h.report.Do(func() { fmt.Fprintf(os.Stderr, "pushy: the log handler's %s panicked: %s\n", method, text(p)) })
	}
}

// text formats a value that may panic when it is printed.
func text(p any) (s string) {
	defer func() {
		if recover() != nil {
			s = fmt.Sprintf("a value of type %T", p)
		}
	}()
	return fmt.Sprint(p)
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	enabled = true // unless the host's says otherwise: Handle is guarded, too
	defer h.recovered("Enabled")
	return h.host.Enabled(ctx, level)
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	defer h.recovered("Handle")
	return h.host.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) (with slog.Handler) {
	with = h
	defer h.recovered("WithAttrs")
	return h.around(h.host.WithAttrs(attrs))
}

func (h *handler) WithGroup(name string) (with slog.Handler) {
	with = h
	defer h.recovered("WithGroup")
	return h.around(h.host.WithGroup(name))
}

func (h *handler) around(host slog.Handler) slog.Handler { return &handler{host, h.report} }
