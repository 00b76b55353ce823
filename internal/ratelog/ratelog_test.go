package ratelog_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/ratelog"
)

func TestOneLineAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := ratelog.New(slog.New(slog.NewTextHandler(&out, nil)))
		for range 120 { // two minutes
			l.Warn("origin refused", "https://a.example", slog.String("origin", "https://a.example"))
			l.Warn("origin refused", "https://b.example", slog.String("origin", "https://b.example"))
			time.Sleep(time.Second)
		}
		assert.Equal(t, 4, strings.Count(out.String(), "\n"), out.String())
		assert.Equal(t, 2, strings.Count(out.String(), "suppressed=59"), out.String())
	})
}

// Subjects that a client chooses use limited memory, and cause a limited number of lines.
func TestManySubjects(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := ratelog.New(slog.New(slog.NewTextHandler(&out, nil)))
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				for j := range 5000 {
					l.Warn("origin refused", fmt.Sprint(i, j))
				}
			})
		}
		all.Wait()
		assert.Equal(t, 257, strings.Count(out.String(), "\n"))
		time.Sleep(time.Minute)
		out.Reset()
		l.Warn("origin refused", "new")
		assert.Equal(t, 1, strings.Count(out.String(), "\n"), "there is room again")
	})
}

type panics struct{ slog.Handler }

func (panics) Enabled(context.Context, slog.Level) bool  { return true }
func (panics) Handle(context.Context, slog.Record) error { panic("no disk") }

func TestPanickingHandler(t *testing.T) {
	t.Parallel()
	l := ratelog.New(slog.New(panics{}))
	assert.NotPanics(t, func() { l.Warn("origin refused", "x") })
}
