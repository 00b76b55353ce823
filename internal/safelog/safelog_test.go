package safelog_test

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/safelog"
)

// bad is a handler that panics in the method with that name.
type bad struct {
	slog.Handler
	in    string
	value any
}

func (b bad) boom(method string) {
	if b.in == method {
		panic(b.value)
	}
}

func (b bad) Enabled(ctx context.Context, l slog.Level) bool {
	b.boom("Enabled")
	return b.Handler.Enabled(ctx, l)
}

func (b bad) Handle(ctx context.Context, r slog.Record) error {
	b.boom("Handle")
	return b.Handler.Handle(ctx, r)
}

func (b bad) WithAttrs(attrs []slog.Attr) slog.Handler {
	b.boom("WithAttrs")
	return bad{b.Handler.WithAttrs(attrs), b.in, b.value}
}

func (b bad) WithGroup(name string) slog.Handler {
	b.boom("WithGroup")
	return bad{b.Handler.WithGroup(name), b.in, b.value}
}

type unprintable struct{}

func (unprintable) Error() string { panic("no") }

// Issue 11, number 26.
func TestNoPanicComesThrough(t *testing.T) {
	t.Parallel()
	for in, logs := range map[string]string{
		"Enabled":   "level=DEBUG msg=line g.a=1\nlevel=INFO msg=line g.a=1\n",
		"Handle":    "",
		"WithAttrs": "level=INFO msg=line\n",
		"WithGroup": "level=INFO msg=line a=1\n",
		"":          "level=INFO msg=line g.a=1\n",
	} {
		for _, value := range []any{"boom", nil, unprintable{}, struct{}{}} {
			var out bytes.Buffer
			host := slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}})
			log := safelog.New(slog.New(bad{host, in, value}))
			assert.Same(t, log, safelog.New(log))
			assert.NotPanics(t, func() {
				with := log.WithGroup("g").With("a", 1)
				with.Debug("line")
				with.Info("line")
			}, in)
			assert.Equal(t, logs, out.String(), in)
		}
	}
}

// ends is a handler that ends its goroutine in the method with that name.
type ends struct {
	slog.Handler
	in string
}

func (e ends) exit(method string) {
	if e.in == method {
		runtime.Goexit()
	}
}

func (e ends) Enabled(context.Context, slog.Level) bool {
	e.exit("Enabled")
	return true
}

func (e ends) Handle(context.Context, slog.Record) error {
	e.exit("Handle")
	return nil
}

func (e ends) WithAttrs([]slog.Attr) slog.Handler {
	e.exit("WithAttrs")
	return e
}

func (e ends) WithGroup(string) slog.Handler {
	e.exit("WithGroup")
	return e
}

// Issue 11, number 26.
func TestNoGoexitComesThrough(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"Enabled", "Handle", "WithAttrs", "WithGroup"} {
		done := make(chan bool, 1)
		go func() {
			returned := false
			defer func() { done <- returned }()
			log := safelog.New(slog.New(ends{in: in}))
			log.WithGroup("g").With("a", 1).Info("line")
			returned = true
		}()
		assert.True(t, <-done, in)
	}
}
