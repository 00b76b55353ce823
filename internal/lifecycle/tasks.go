// Package lifecycle has helpers with which a server starts, counts and waits for goroutines.
package lifecycle

import (
	"context"
	"sync/atomic"
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

// Tasks counts goroutines, like a sync.WaitGroup that can be closed: the count and whether it is
// closed are one word, so no task can start after the wait has begun. The zero value is ready to use. All
// methods are safe for concurrent use.
type Tasks struct {
	state atomic.Int32  // twice the number of tasks, plus closed
	none  chan struct{} // set before closed
}

const (
	closed  = 1
	oneTask = 2
)

// done is closed.
var done = func() chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}()

// Start counts a task that starts. It returns false if Close was called.
func (t *Tasks) Start() bool {
	for {
		old := t.state.Load()
		if old&closed != 0 {
			return false
		}
		if t.state.CompareAndSwap(old, old+oneTask) {
			return true
		}
	}
}

// End counts a task that has ended.
func (t *Tasks) End() {
	if t.state.Add(-oneTask) == closed {
		close(t.none)
	}
}

// Close makes Start return false. The returned channel is closed when the last task has
// ended. Close must be called only once.
func (t *Tasks) Close() <-chan struct{} {
	if t.state.CompareAndSwap(0, closed) {
		return done
	}
	t.none = make(chan struct{})
	if t.state.Add(closed) == closed {
		close(t.none)
	}
	return t.none
}
