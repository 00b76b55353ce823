package websocket

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"unsafe"
)

// spareBuffers are the offsets of the read buffers in a tls.Conn. They are nil if crypto/tls has other fields than
// today; then releaseSpare does nothing.
var spareBuffers = offsetsOf[tls.Conn, bytes.Buffer]("rawInput", "hand")

// offsetsOf returns the offsets of fields of the struct S, or nil unless S has all of them, with the type F.
func offsetsOf[S, F any](names ...string) []uintptr {
	var offsets []uintptr
	for _, name := range names {
		field, ok := reflect.TypeFor[S]().FieldByName(name)
		if !ok || field.Type != reflect.TypeFor[F]() || len(field.Index) > 1 {
			return nil
		}
		offsets = append(offsets, field.Offset)
	}
	return offsets
}

// releaseSpare releases the read buffers of a tls.Conn that are empty. A tls.Conn keeps them, with the size of the
// ClientHello, 3.5 KiB with post-quantum keys, for as long as it lives, which is more than a third of its memory. There
// is no other way than this one, by their offsets. An empty bytes.Buffer can always be replaced by a new one: it
// differs only in its capacity. Only Read uses the buffers after the handshake, so only the reader can call this.
func releaseSpare(conn *tls.Conn) {
	for _, offset := range spareBuffers {
		if b := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(conn), offset)); b.Len() == 0 {
			*b = bytes.Buffer{}
		}
	}
}
