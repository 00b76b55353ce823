// Package lifecycle has what a server needs to wait for its goroutines.
package lifecycle

import (
	"context"
	"sync"
)

// Wait waits for done, as long as ctx allows.
func Wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done: // even if ctx has ended too
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Tasks counts the goroutines that somebody waits for. Starting one and closing
// share a lock, so none slips past the wait. Its zero value is ready.
type Tasks struct {
	mu     sync.Mutex
	n      int32
	closed bool
	none   chan struct{}
}

// Start counts one more, unless Close was called.
func (t *Tasks) Start() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.n++
	return true
}

// End counts one less.
func (t *Tasks) End() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	if t.closed && t.n == 0 {
		close(t.none)
	}
}

// Close lets no more start. The channel is closed when the last has ended. It
// is called once.
func (t *Tasks) Close() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.none = make(chan struct{})
	if t.n == 0 {
		close(t.none)
	}
	return t.none
}
