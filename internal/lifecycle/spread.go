package lifecycle

import (
	"context"
	"sync"
	"time"
)

// Spread does something for each of all, in batches spread over a time. It
// reports whether ctx let it do all.
func Spread[T any](ctx context.Context, all []T, batch int, over time.Duration, do func(T)) bool {
	batches := (len(all) + batch - 1) / batch
	for i, v := range all {
		if i > 0 && i%batch == 0 {
			select {
			case <-time.After(over / time.Duration(batches)):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return false
		}
		do(v)
	}
	return true
}

// Each does something for each of all, at once. The channel is closed when all
// is done.
func Each[T any](all []T, do func(T)) <-chan struct{} {
	var workers sync.WaitGroup
	for _, v := range all {
		workers.Go(func() { do(v) })
	}
	done := make(chan struct{})
	go func() {
		workers.Wait()
		close(done)
	}()
	return done
}

// Within reports whether all of the channels are closed before a time is over.
func Within(grace time.Duration, closed ...<-chan struct{}) bool {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for _, c := range closed {
		select {
		case <-c:
		case <-timer.C:
			return false
		}
	}
	return true
}
