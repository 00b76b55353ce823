package nats

import (
	"context"
	"fmt"
	"sync"

	"github.com/gopushy/pushy/broker"
)

// coalescer makes one call on behalf of many concurrent callers. Each caller receives the
// result of a call that began after its own get.
type coalescer[T any] struct {
	b    *Broker
	ask  func() (T, error)
	wake chan struct{} // buffered: a caller waits for next

	mu   sync.Mutex
	next *sharedCall[T]
}

type sharedCall[T any] struct {
	done   chan struct{} // closed when the call has returned
	answer T
	err    error
}

func newCoalescer[T any](b *Broker, ask func() (T, error)) *coalescer[T] {
	r := &coalescer[T]{
		b:    b,
		ask:  ask,
		wake: make(chan struct{}, 1),
		next: &sharedCall[T]{done: make(chan struct{})},
	}
	b.tasks.Go(r.run)
	return r
}

func (r *coalescer[T]) run() {
	for {
		select {
		case <-r.b.done:
			return
		case <-r.wake:
		}
		r.mu.Lock()
		current := r.next
		r.next = &sharedCall[T]{done: make(chan struct{})}
		r.mu.Unlock()
		current.answer, current.err = r.ask()
		close(current.done)
	}
}

func (r *coalescer[T]) get(ctx context.Context) (answer T, err error) {
	r.mu.Lock()
	mine := r.next
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	select {
	case <-mine.done:
		return mine.answer, mine.err
	case <-ctx.Done():
		return answer, fmt.Errorf("nats: %w", context.Cause(ctx))
	case <-r.b.done:
		return answer, broker.ErrClosed
	}
}

// maxConcurrent is the maximum number of concurrent requests of each.
const maxConcurrent = 16

// each runs f for 0 to n-1, concurrently, and returns one of the errors.
func each(n int, f func(i int) error) error {
	if n == 1 {
		return f(0)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	slots := make(chan struct{}, maxConcurrent)
	for i := range n {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := f(i); err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return failed
}
