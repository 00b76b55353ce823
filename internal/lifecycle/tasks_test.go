package lifecycle_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/lifecycle"
)

func TestTasks(t *testing.T) {
	t.Parallel()
	var tasks lifecycle.Tasks
	require.True(t, tasks.Start())
	require.True(t, tasks.Start())
	tasks.End()
	none := tasks.Close()
	assert.False(t, tasks.Start(), "closed")
	select {
	case <-none:
		t.Fatal("one still runs")
	default:
	}
	tasks.End()
	<-none
	var empty lifecycle.Tasks
	<-empty.Close()
}

func TestWaitPrefersDone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan struct{})
	assert.ErrorIs(t, lifecycle.Wait(ctx, done), context.Canceled)
	close(done)
	for range 100 {
		assert.NoError(t, lifecycle.Wait(ctx, done))
	}
}
