package hub

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
)

// An idle connection has one of each of these. The limits are size classes of the allocator: a
// field more than fits makes every connection larger by the distance to the next class. A field
// that few connections need belongs into few.
func TestIdleStructsAreSmall(t *testing.T) {
	t.Parallel()
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return // the classes are those of 64 bits
	}
	assert.LessOrEqual(t, unsafe.Sizeof(Conn{}), uintptr(240), "Conn")
	assert.LessOrEqual(t, unsafe.Sizeof(membership{}), uintptr(128), "membership")
}
