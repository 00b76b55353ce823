// Package testlog has a log that tests read.
package testlog

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// Log collects what is written to a log. The zero value is empty. It is safe for concurrent use, so
// that a test can read it while it is written.
type Log struct {
	mu  sync.Mutex
	all bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

// String returns everything that has been written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// With returns the lines that have all the parts.
func (l *Log) With(parts ...string) (found []string) {
	for line := range strings.Lines(l.String()) {
		lacks := func(part string) bool { return !strings.Contains(line, part) }
		if !slices.ContainsFunc(parts, lacks) {
			found = append(found, line)
		}
	}
	return found
}

// Logger returns a Logger that writes lines of text.
func (l *Log) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
