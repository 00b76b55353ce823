package pushy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/gopushy/pushy/internal/names"
)

// failure is how code of the host did not return.
type failure struct {
	panicked any // nil if it ended its goroutine
	stack    string
}

var _ error = (*failure)(nil)

// failed is called from the deferred func that recovered p.
func failed(p any) *failure { return &failure{panicked: p, stack: string(debug.Stack())} }

// Error shows the value of a panic, unless that value does not let itself be shown.
func (f *failure) Error() string {
	if f.panicked == nil {
		return f.String()
	}
	shown := "panic"
	hosted(func() { shown = fmt.Sprintf("panic: %v", f.panicked) })
	return shown
}

// String completes a sentence that begins with what failed.
func (f *failure) String() string {
	if f.panicked == nil {
		return "called runtime.Goexit"
	}
	return "panicked"
}

func (f *failure) attrs() []slog.Attr {
	stack := slog.String("stack", f.stack)
	if f.panicked == nil {
		return []slog.Attr{stack}
	}
	return []slog.Attr{slog.Any("panic", f.panicked), stack}
}

// hosted runs code of the host and returns nil if it returned. It has a goroutine
// of its own, so that a func that ends its goroutine (runtime.Goexit, as t.FailNow
// does) ends neither a connection's reader nor the answer to an HTTP request.
func hosted(run func()) (f *failure) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		returned := false
		defer func() {
			if !returned {
				f = failed(recover())
			}
		}()
		run()
		returned = true
	}()
	<-done
	return f
}

// hook runs a host's hook. A failure is logged.
func (s *Server) hook(name string, run func()) {
	if f := hosted(run); f != nil {
		s.logFailure("hook", f, slog.String("hook", name))
	}
}

func (s *Server) logFailure(what string, f *failure, attrs ...slog.Attr) {
	s.log.LogAttrs(context.Background(), slog.LevelError, what+" "+f.String(), append(attrs, f.attrs()...)...)
}

// decide runs a func of the host's that decides about a request. A failure is
// logged, at most once a minute, and decides nothing.
func (s *Server) decide(name string, run func()) *failure {
	f := hosted(run)
	if f != nil {
		s.notices.Warn(name+" "+f.String(), "", f.attrs()...)
	}
	return f
}

// readable panics here and now if err has methods that panic, as those of a nil
// pointer often do: it is called within decide, before anybody looks at err.
func readable(err error) error {
	if err != nil {
		_ = errors.Is(err, ErrDenied)
		_ = visible(err)
		_ = err.Error()
	}
	return err
}

// check applies a host's rule for names. The error is names.ErrNotChecked if the
// rule itself failed.
func (s *Server) check(option string, rule func(string) error, name string) error {
	err := fmt.Errorf("%w: %s failed", names.ErrNotChecked, option)
	s.decide(option, func() { err = readable(rule(name)) })
	return err
}
