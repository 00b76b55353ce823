// Package ratelog writes log lines about what other parties cause, such as a
// refused origin or a broken message, without letting them fill the log: one
// line a minute for each kind and subject.
package ratelog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/safelog"
)

const (
	// interval is how long a kind and subject stay quiet after a line.
	interval = time.Minute
	// maxSubjects bounds the memory: subjects come from the network. Over it
	// all further subjects of a kind share one line a minute.
	maxSubjects = 256
)

// Logger limits the lines of one server or broker. All methods are safe for
// concurrent use. Its zero value logs to slog.Default.
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

// Warn logs kind as the message unless the same kind and subject were logged
// less than a minute ago. A line after suppressed ones has their number in the
// attribute "suppressed". The subject is what tells lines of one kind apart,
// such as an origin; it is not logged by itself. A host's log handler that panics
// or ends its goroutine does no harm: see package safelog.
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

// due reports whether a line is to be written now, and how many like it were
// suppressed since the last.
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
			key.subject = "" // shared by all that do not fit
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

// expireLocked forgets the lines that may be written again.
func (l *Logger) expireLocked(now time.Time) {
	for key, s := range l.lines {
		if now.Sub(s.logged) >= interval {
			delete(l.lines, key)
		}
	}
}
