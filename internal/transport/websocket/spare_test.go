package websocket

import (
	"bytes"
	"crypto/tls"
	"testing"

	"github.com/stretchr/testify/assert"
)

// If a version of Go has a tls.Conn without these fields, an idle connection over TLS takes 3.5 KiB more, until
// spareBuffers has the new ones.
func TestSpareBuffersOfThisGo(t *testing.T) {
	t.Parallel()
	assert.Len(t, spareBuffers, 2)
	assert.Nil(t, offsetsOf[tls.Conn, bytes.Buffer]("rawInput", "absent"))
	assert.Nil(t, offsetsOf[tls.Conn, bytes.Buffer]("rawInput", "input"), "which is a bytes.Reader")
	type embeds struct{ bytes.Buffer }
	assert.Nil(t, offsetsOf[struct{ embeds }, []byte]("buf"), "of an embedded struct")
}
