package hub

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConnContextEnds(t *testing.T) {
	var before, after connContext
	done := before.Done()
	require.NoError(t, before.Err())
	require.Same(t, before.real(), before.real())
	before.cancel()
	after.cancel()
	<-done
	for _, ctx := range []*connContext{&before, &after} {
		<-ctx.Done() // of after it is made only now
		require.ErrorIs(t, ctx.Err(), context.Canceled)
		require.ErrorIs(t, ctx.real().Err(), context.Canceled)
		require.ErrorIs(t, context.Cause(ctx), context.Canceled)
		ctx.cancel()
	}
}

func TestConnContextNeedsNoGoroutineForDerivedContexts(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	var ctx connContext
	derived, cancel := context.WithTimeout(&ctx, time.Hour)
	defer cancel()
	defer context.AfterFunc(&ctx, func() {})()
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	ctx.cancel()
	<-derived.Done()
	require.ErrorIs(t, derived.Err(), context.Canceled)
}

func TestConnContextEndsWhileItIsMade(t *testing.T) {
	for range 1000 {
		var ctx connContext
		var both sync.WaitGroup
		both.Go(func() { <-ctx.Done() })
		both.Go(func() { <-ctx.Done() })
		both.Go(ctx.cancel)
		both.Wait()
		require.ErrorIs(t, ctx.Err(), context.Canceled)
	}
}
