package lifecycle_test

import (
	"runtime/debug"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/lifecycle"
)

func TestGrowStackMakesRoomForDeepCalls(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection makes stacks smaller
	moved := make(chan bool)
	go func() {
		lifecycle.GrowStack()
		var here byte
		before := address(&here)
		deep(16)
		moved <- before != address(&here)
	}()
	require.False(t, <-moved, "the stack was copied after GrowStack")
}

func address(p *byte) uintptr { return uintptr(unsafe.Pointer(p)) }

// deep uses between 2 and 4 KiB of the stack.
//
//go:noinline
func deep(calls int) int {
	var frame [64]byte
	if calls > 0 {
		frame[calls] = byte(deep(calls - 1))
	}
	return int(frame[calls])
}
