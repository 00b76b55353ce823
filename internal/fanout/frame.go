// Package fanout is the write side of pushy: messages that are encoded once for all
// receivers, a bounded outbox for each connection, and the goroutines that write. It does
// not depend on channels, commands or HTTP.
package fanout

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// Form is the form in which a transport needs the bytes of a Frame.
type Form uint8

const (
	// Text is the JSON text of the message, for transports that add the framing themselves.
	Text Form = iota
	// Framed is a WebSocket text frame that contains the SockJS frame a["…"].
	Framed
	// Bare is a WebSocket text frame that contains the JSON text.
	Bare
)

// Frame is one message. Each form is encoded at most once, even if many outboxes have the
// Frame; it is encoded twice if two connections need it first at the same moment. A Frame
// is immutable and safe for concurrent use.
type Frame struct {
	text []byte
	raw  bool
	list bool                      // see NewList
	refs atomic.Int64              // of a list: the number of outboxes that have it
	size atomic.Int64              // of a list: the bytes that Engine.Waiting counts for it
	wire [2]atomic.Pointer[[]byte] // Framed and Bare, encoded at first use
}

// NewFrame returns a Frame for the JSON text of a message. The text must be valid UTF-8 and
// must not be changed afterwards.
func NewFrame(text []byte) *Frame { return &Frame{text: text} }

// NewList is NewFrame for a list that clients have requested, such as the members of a
// channel. It does not count towards the limit of an Outbox, so that a client is not
// disconnected because of its own request; Outbox.AwaitRoom limits lists instead. In
// Engine.Waiting a list counts once, even if many outboxes have it.
func NewList(text []byte) *Frame { return &Frame{text: text, list: true} }

// RawFrame returns a Frame whose bytes are the same in every form. Transports use it for
// their own frames, such as the open frame of SockJS.
func RawFrame(wire []byte) *Frame { return &Frame{text: wire, raw: true} }

// Bytes returns the Frame in one form. The caller must not change the bytes.
func (f *Frame) Bytes(form Form) []byte {
	if f.raw || form == Text {
		return f.text
	}
	slot := &f.wire[form-Framed]
	if p := slot.Load(); p != nil {
		return *p
	}
	var b []byte
	if form == Framed {
		body := make([]byte, 0, len(f.text)+len(f.text)/8+8)
		body = append(body, "a["...)
		body = jsvalue.AppendQuote(body, f.text)
		body = append(body, ']')
		b = TextFrame(body)
	} else {
		b = TextFrame(f.text)
	}
	slot.Store(&b)
	return b
}

// Has reports whether the Frame has its bytes in one form already.
func (f *Frame) Has(form Form) bool {
	return f.raw || form == Text || f.wire[form-Framed].Load() != nil
}

// TextFrame returns payload as one unmasked WebSocket text frame (RFC 6455,
// section 5.2).
func TextFrame(payload []byte) []byte {
	const finText = 0x81
	n := len(payload)
	b := make([]byte, 0, n+10)
	switch {
	case n < 126:
		b = append(b, finText, byte(n))
	case n < 1<<16:
		b = append(b, finText, 126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, finText, 127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, payload...)
}
