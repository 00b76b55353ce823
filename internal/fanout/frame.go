// Package fanout is the write side of pushy: messages encoded once for all
// their receivers, a bounded outbox for each connection, and what writes them
// out. It knows nothing of channels, commands or HTTP.
package fanout

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// Form is the shape in which a transport wants a Frame's bytes.
type Form uint8

const (
	// Text is the message's JSON text, for transports that frame it themselves.
	Text Form = iota
	// Framed is a WebSocket text frame that holds SockJS's a["…"].
	Framed
	// Bare is a WebSocket text frame that holds the text.
	Bare
)

// Frame is one message. Each form is encoded at most once (twice, if two
// connections are the first to ask at the same moment), however many outboxes
// hold the Frame. A Frame is immutable and safe for concurrent use.
type Frame struct {
	text []byte
	raw  bool
	list bool                      // see NewList
	refs atomic.Int64              // of a list: the outboxes that hold it
	size atomic.Int64              // of a list: what Engine.Waiting counts for it
	wire [2]atomic.Pointer[[]byte] // Framed and Bare, made when first asked for
}

// NewFrame returns a Frame of a message's JSON text, which must be valid UTF-8
// and must not change afterwards.
func NewFrame(text []byte) *Frame { return &Frame{text: text} }

// NewList is NewFrame for a list that clients have asked for, such as the members
// of a channel. It does not count towards the bound of an Outbox, so a client is
// not disconnected for what it asked; Outbox.AwaitRoom bounds lists instead. In
// Engine.Waiting one counts once, however many outboxes hold it.
func NewList(text []byte) *Frame { return &Frame{text: text, list: true} }

// RawFrame returns a Frame of bytes that are the same in every form: what a
// transport says for itself, such as SockJS's open frame.
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
