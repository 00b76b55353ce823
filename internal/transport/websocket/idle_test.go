package websocket

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
)

// Each idle connection has a socket. The limit is a size class of the allocator: a field more
// makes every connection larger by the distance to the next class.
func TestSocketIsSmall(t *testing.T) {
	t.Parallel()
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return // the classes are those of 64 bits
	}
	assert.LessOrEqual(t, unsafe.Sizeof(socket{}), uintptr(160))
}
