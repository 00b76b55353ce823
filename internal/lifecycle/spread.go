package lifecycle

import (
	"context"
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
