// Package safelog protects the library from a faulty log handler of the host. A panic in a
// handler would end the process, and runtime.Goexit would end the goroutine that logs
// without any notice.
package safelog

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// New returns a Logger that logs to the handler of log, and recovers from panics and calls of
// runtime.Goexit in it. It reports the first of them on standard error, because it cannot use
// the log for that.
func New(log *slog.Logger) *slog.Logger {
	if _, safe := log.Handler().(*handler); safe {
		return log
	}
	return slog.New(&handler{log.Handler(), new(sync.Once)})
}

// handler calls the host's handler.
type handler struct {
	host   slog.Handler
	report *sync.Once
}

var _ slog.Handler = (*handler)(nil)

// run calls the host's handler in a new goroutine, so that runtime.Goexit ends only that
// goroutine. The cost is acceptable because this module does not log for each message.
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

// text formats a value whose own formatting methods can panic.
func text(p any) (s string) {
	defer func() {
		if recover() != nil {
			s = fmt.Sprintf("a value of type %T", p)
		}
	}()
	return fmt.Sprint(p)
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	enabled := true // if the host's Enabled panics; run protects Handle, too
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
