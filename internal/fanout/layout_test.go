package fanout

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
)

// Of each connection, a delivery uses one cache line of the Outbox, and of the queue one for a few
// frames. A field more in one of them costs some percent of the CPU time with thousands of
// connections, whose memory is not in the processor's cache. The allocator aligns objects whose
// size is a multiple of a cache line.
func TestHotFieldsShareACacheLine(t *testing.T) {
	t.Parallel()
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return // the sizes are those of 64 bits
	}
	const line = 64
	var o Outbox
	assert.Equal(t, uintptr(line), unsafe.Offsetof(o.flusher), "the first field that a delivery does not use")
	assert.Equal(t, uintptr(2*line), unsafe.Sizeof(o))
	var q queue
	assert.Equal(t, uintptr(2*line), unsafe.Sizeof(q))
	assert.Equal(t, uintptr(line), unsafe.Offsetof(q.place)+3*unsafe.Sizeof(q.place[0]), "places in the first line")
	var f Frame
	assert.LessOrEqual(t, unsafe.Offsetof(f.wire)+unsafe.Sizeof(f.wire), uintptr(line))
}
