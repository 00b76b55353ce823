// Package safelog keeps a host's log handler from harming what logs: a panic in
// it would end the goroutine that wrote the line, and with it the process;
// runtime.Goexit would end that goroutine in silence.
package safelog

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// New returns a Logger whose handler is log's, without its panics and calls of
// runtime.Goexit. The first is reported on standard error, since the log itself
// cannot be used for that.
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

// run calls the host's handler in a goroutine of its own, which is all that
// runtime.Goexit can end there. Nothing in this module logs for each message.
func (h *handler) run(method string, call func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		returned := false
		defer func() {
			p := recover()
			if !returned {
				h.report.Do(func() { report(method, p) })
			}
		}()
		call()
		returned = true
	}()
	<-done
}

func report(method string, p any) {
	what := "called runtime.Goexit"
	if p != nil {
		what = "panicked: " + text(p)
	}
	fmt.Fprintf(os.Stderr, "pushy: the log handler's %s %s\n", method, what)
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

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	enabled := true // unless the host's says otherwise: Handle is guarded, too
	h.run("Enabled", func() { enabled = h.host.Enabled(ctx, level) })
	return enabled
}

func (h *handler) Handle(ctx context.Context, r slog.Record) (err error) {
	h.run("Handle", func() { err = h.host.Handle(ctx, r) })
	return err
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var with slog.Handler = h
	h.run("WithAttrs", func() { with = h.around(h.host.WithAttrs(attrs)) })
	return with
}

func (h *handler) WithGroup(name string) slog.Handler {
	var with slog.Handler = h
	h.run("WithGroup", func() { with = h.around(h.host.WithGroup(name)) })
	return with
}

func (h *handler) around(host slog.Handler) slog.Handler { return &handler{host, h.report} }
