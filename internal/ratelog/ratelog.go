// Package ratelog writes log lines that clients and other parties can cause, for example
// about a refused origin or an invalid message. It limits them to one line a minute for each
// kind and subject, so that they cannot fill the log.
package ratelog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/safelog"
)

const (
	// interval is the time after a line in which lines of the same kind and subject are
	// suppressed.
	interval = time.Minute
	// maxSubjects limits the memory, because clients choose subjects. When it is exceeded,
	// all further subjects of a kind share one line a minute.
	maxSubjects = 256
)

// Logger limits the lines of one server or broker. All methods are safe for concurrent use.
// The zero value logs to slog.Default.
type Logger struct {
	log *slog.Logger

	mu    sync.Mutex
	lines map[line]*state
}

type line struct{ kind, subject string }

type state struct {
	logged     time.Time
	suppressed int
}

// New returns a Logger that writes to log.
func New(log *slog.Logger) *Logger {
	return &Logger{log: safelog.New(log)}
}

// Warn logs a line with kind as the message, unless it has logged a line of the same kind and
// subject less than a minute ago. If lines were suppressed since then, the attribute
// "suppressed" is their number. The subject distinguishes lines of one kind, for example by
// origin; it is not logged itself. A log handler that panics or ends its goroutine does not
// affect the caller: see package safelog.
func (l *Logger) Warn(kind, subject string, attrs ...slog.Attr) {
	suppressed, due := l.due(line{kind, subject}, time.Now())
	if !due {
		return
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	log := l.log
	if log == nil {
		log = safelog.New(slog.Default())
	}
	log.LogAttrs(context.Background(), slog.LevelWarn, kind, attrs...)
}

// due reports whether a line is to be written now, and the number of lines with that key that
// were suppressed since the last one.
func (l *Logger) due(key line, now time.Time) (suppressed int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines == nil {
		l.lines = map[line]*state{}
	}
	s := l.lines[key]
	if s == nil && len(l.lines) >= maxSubjects {
		l.expireLocked(now)
		if len(l.lines) >= maxSubjects {
			key.subject = "" // all further subjects share this key
			s = l.lines[key]
		}
	}
	if s == nil {
		l.lines[key] = &state{logged: now}
		return 0, true
	}
	if now.Sub(s.logged) < interval {
		s.suppressed++
		return 0, false
	}
	suppressed = s.suppressed
	*s = state{logged: now}
	return suppressed, true
}

// expireLocked removes the lines that were written at least an interval ago.
func (l *Logger) expireLocked(now time.Time) {
	for key, s := range l.lines {
		if now.Sub(s.logged) >= interval {
			delete(l.lines, key)
		}
	}
}
