package guard_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/guard"
)

func TestPanicsBecomeErrors(t *testing.T) {
	t.Parallel()
	plain := errors.New("plain")
	assert.NoError(t, guard.Run(func() {}))
	assert.Equal(t, plain, guard.Call(func() error { return plain }))
	assert.Empty(t, guard.Stack(plain).Key)

	var none []string
	err := guard.Run(func() { _ = none[len(none)] })
	var p *guard.PanicError
	require.ErrorAs(t, err, &p)
	assert.ErrorContains(t, err, "panic: runtime error: index out of range")
	assert.Contains(t, guard.Stack(fmt.Errorf("wrapped: %w", err)).Value.String(), "TestPanicsBecomeErrors")
	assert.ErrorIs(t, guard.Run(func() { panic(plain) }), plain)
}
