package console

import (
	"context"
	"time"
)

const (
	// freshness is how long a result is used again: a little less than the time between two
	// requests of a page, so that each of them has a new one.
	freshness = 1900 * time.Millisecond
	// maxFreshness limits it for a result that is expensive.
	maxFreshness = 10 * time.Second
	// share is the part of one processor that determining the results may use: one hundredth.
	share = 100
)

// shared determines a value at most once in freshness for all callers. If that takes long, it is
// determined less often. The zero value is not ready to use: see newShared.
type shared[T any] struct {
	turn  chan struct{} // has an element unless the fields below are in use
	until time.Time
	value T
}

func newShared[T any]() shared[T] {
	s := shared[T]{turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// get returns the value, and calls determine for it if the last one is too old. busy is the time
// that it has worked, without waiting for others. The only error is that of ctx.
func (s *shared[T]) get(ctx context.Context, determine func() (value T, busy time.Duration)) (T, error) {
	select {
	case <-s.turn:
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
	defer func() { s.turn <- struct{}{} }()
	if now := time.Now(); !now.Before(s.until) {
		value, busy := determine()
		s.value = value
		s.until = now.Add(min(max(freshness, share*busy), maxFreshness))
	}
	return s.value, nil
}
