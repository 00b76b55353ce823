package lifecycle

import (
	"context"
	"sync"
	"time"
)

// Spread calls do for each element of all, in batches that are spread over the time over. It
// returns false if ctx ended before the last call.
func Spread[T any](ctx context.Context, all []T, batch int, over time.Duration, do func(T)) bool {
	pause := over / time.Duration(max(1, batches(len(all), batch)))
	for i, v := range all {
		if i > 0 && i%batch == 0 {
			select {
			case <-time.After(pause):
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

// LastBatch returns when Spread calls do for the last of n elements.
func LastBatch(n, batch int, over time.Duration) time.Duration {
	all := max(1, batches(n, batch))
	return over / time.Duration(all) * time.Duration(all-1)
}

func batches(n, batch int) int { return (n + batch - 1) / batch }

// Each calls do for all elements concurrently. The returned channel is closed when all calls
// have returned.
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

// Within waits until all of the channels are closed, for at most grace. It reports whether
// they are.
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
