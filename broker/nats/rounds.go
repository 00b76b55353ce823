package nats

import (
	"context"
	"fmt"
	"sync"

	"github.com/gopushy/pushy/broker"
)

// rounds asks a question for many callers at once. Each gets the answer of a round
// that began after its call.
type rounds[T any] struct {
	b    *Broker
	ask  func() (T, error)
	wake chan struct{} // holds one when somebody waits for next

	mu   sync.Mutex
	next *round[T]
}

type round[T any] struct {
	done   chan struct{} // closed when it is over
	answer T
	err    error
}

func newRounds[T any](b *Broker, ask func() (T, error)) *rounds[T] {
	r := &rounds[T]{
		b:    b,
		ask:  ask,
		wake: make(chan struct{}, 1),
		next: &round[T]{done: make(chan struct{})},
	}
	b.tasks.Go(r.run)
	return r
}

func (r *rounds[T]) run() {
	for {
		select {
		case <-r.b.done:
			return
		case <-r.wake:
		}
		r.mu.Lock()
		current := r.next
		r.next = &round[T]{done: make(chan struct{})}
		r.mu.Unlock()
		current.answer, current.err = r.ask()
		close(current.done)
	}
}

func (r *rounds[T]) get(ctx context.Context) (answer T, err error) {
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

// atOnce bounds how many requests of one call are under way.
const atOnce = 16

// each runs f for 0 to n-1, several at once, and returns one of the errors.
func each(n int, f func(i int) error) error {
	if n == 1 {
		return f(0)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	slots := make(chan struct{}, atOnce)
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
