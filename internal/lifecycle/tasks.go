// Package lifecycle has helpers with which a server starts, counts and waits for goroutines.
package lifecycle

import (
	"context"
	"sync"
)

// Wait waits until done is closed or ctx ends. It returns the error of ctx, or nil if done is
// closed.
func Wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done: // also if ctx has ended
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

// Tasks counts goroutines, like a sync.WaitGroup that can be closed: Start and Close share a
// lock, so no task can start after the wait has begun. The zero value is ready to use. All
// methods are safe for concurrent use.
type Tasks struct {
	mu     sync.Mutex
	n      int32
	closed bool
	none   chan struct{}
}

// Start counts a task that starts. It returns false if Close was called.
func (t *Tasks) Start() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.n++
	return true
}

// End counts a task that has ended.
func (t *Tasks) End() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	if t.closed && t.n == 0 {
		close(t.none)
	}
}

// Close makes Start return false. The returned channel is closed when the last task has
// ended. Close must be called only once.
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
