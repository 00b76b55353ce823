// Package fanout is the write side of pushy: messages that are encoded once for all
// receivers, a bounded outbox for each connection, and the goroutines that write. It does
// not depend on channels, commands or HTTP.
//
// # When events wait for others
//
// A write costs about the same whatever its size, so events that arrive in a burst are written together:
// before a pass, its flusher waits until the burst is over. It waits only if the next event is expected before
// the pass would end: by the average of the last intervals, or, because the average also has the pauses between
// bursts, if a quarter of the recent isolated events began bursts with shorter intervals. The burst is over when no
// event has arrived for twice the longest of the recent intervals that were less than a millisecond; or for a
// millisecond, if that is the shortest time that the flusher can wait (shortestPause), or if the last event
// came a millisecond or more after the one before, so that it may be the first of a burst. The wait ends in any
// case when it has taken as long as the pass will, or Config.MaxGather, or when a connection has enough
// bytes for a full write; and there is none if the pass takes less than the shortest useful wait (leastGather).
package fanout

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// Form is the form in which a transport needs the bytes of a Frame. The forms of other protocols
// follow those below, see NewFamily.
type Form uint8

const (
	// Text is the JSON text of the message, for transports that add the framing themselves.
	Text Form = iota
	// Framed is a WebSocket text frame that contains the SockJS frame a["…"].
	Framed
	// Bare is a WebSocket text frame that contains the JSON text.
	Bare
	// FramedDeflate and BareDeflate are Framed and Bare for a WebSocket with permessage-deflate. A
	// Frame differs there only if Engine.Compress has compressed it.
	FramedDeflate
	BareDeflate
)

// Frame is one message. Each form is encoded at most once, even if many outboxes have the
// Frame; it is encoded twice if two connections need it first at the same moment. A Frame
// is immutable and safe for concurrent use.
type Frame struct {
	// A delivery uses these, so they share a cache line.
	text []byte
	raw  bool
	list bool                      // see NewList
	seen atomic.Uint32             // the last census that has counted it, see Engine.Census; here it takes no memory
	made int64                     // when NewFrame was called, see clock; 0 for other Frames
	omit *Omit                     // nil if every client must receive it
	wire [2]atomic.Pointer[[]byte] // Framed and Bare, encoded at first use
	more atomic.Pointer[encoded]   // the forms of other protocols; nil until one is needed

	refs atomic.Int32  // of a list: the number of outboxes that have it
	size atomic.Uint32 // of a list: the bytes that Engine.Waiting counts for it
}

// NewFrame returns a Frame for the JSON text of a message. The text must be valid UTF-8 and
// must not be changed afterwards.
func NewFrame(text []byte) *Frame {
	return &Frame{
		text: text,
		made: clock(),
	}
}

// NewList is NewFrame for a list that clients have requested, such as the members of a
// channel. It does not count towards the limit of an Outbox, so that a client is not
// disconnected because of its own request; Outbox.AwaitRoom limits lists instead. In
// Engine.Waiting a list counts once, even if many outboxes have it.
func NewList(text []byte) *Frame { return &Frame{text: text, list: true} }

// NewRun returns a list with several messages, which is queued and written as one frame. form is
// that of the Outbox, and Joins.
func NewRun(texts [][]byte, form Form) *Frame {
	frames := make([][]byte, len(texts))
	for i, text := range texts {
		frames[i] = wireOf(text, form)
	}
	return &Frame{
		text: bytes.Join(frames, nil),
		raw:  true,
		list: true,
	}
}

// NewDirect is NewFrame for a message that only one Outbox will have, whose form it has. It copies
// the text. Direct messages are not compressed.
func NewDirect(text []byte, form Form) *Frame {
	f := &Frame{made: clock()}
	if form == Text || form >= ownForms {
		f.text = bytes.Clone(text)
	} else {
		f.text = wireOf(text, form.Plain())
		f.raw = true
	}
	return f
}

// RawFrame returns a Frame whose bytes are the same in every form. Transports use it for
// their own frames, such as the open frame of SockJS.
func RawFrame(wire []byte) *Frame { return &Frame{text: wire, raw: true} }

// RawList is RawFrame for a list, see NewList.
func RawList(wire []byte) *Frame { return &Frame{text: wire, raw: true, list: true} }

// Bytes returns the Frame in one form. The caller must not change the bytes.
func (f *Frame) Bytes(form Form) []byte {
	if f.raw || form == Text {
		return f.text
	}
	if form > Bare {
		return f.bytesOf(form)
	}
	slot := &f.wire[form-Framed]
	if p := slot.Load(); p != nil {
		return *p
	}
	b := wireOf(f.text, form)
	slot.Store(&b)
	return b
}

func wireOf(text []byte, form Form) []byte {
	if form == Bare {
		return TextFrame(text)
	}
	wire := appendFramed(make([]byte, maxHeader, framedSize(text)), text)
	return putHeader(wire, finText)
}

// appendWire appends the bytes of a direct message in one of pushy's own forms.
func appendWire(dst, text []byte, form Form) []byte {
	switch form.Plain() {
	case Text:
		return append(dst, text...)
	case Bare:
		return append(appendHeader(dst, finText, len(text)), text...)
	}
	var header [maxHeader]byte
	at := len(dst)
	dst = append(dst, header[:]...)
	dst = appendFramed(dst, text)
	payload := dst[at+maxHeader:]
	n := at + copy(dst[at:], appendHeader(header[:0], finText, len(payload)))
	return dst[:n+copy(dst[n:], payload)]
}

// framedSize returns the capacity that a Framed message with space for its header needs.
func framedSize(text []byte) int {
	const brackets = len(framedHead + framedTail)
	// Most texts have no other characters that need escapes.
	escapes := bytes.Count(text, []byte{'"'}) + bytes.Count(text, []byte{'\\'})
	return maxHeader + brackets + len(text) + escapes
}

// What precedes and follows a text in a SockJS frame.
const (
	framedHead = `a["`
	framedTail = `"]`
)

// appendFramed appends the SockJS frame with a text.
func appendFramed(dst, text []byte) []byte {
	dst = append(dst, framedHead...)
	dst = jsvalue.AppendEscaped(dst, text)
	return append(dst, framedTail...)
}

// putHeader returns the WebSocket frame whose payload is in wire, after maxHeader bytes.
func putHeader(wire []byte, first byte) []byte {
	var header [maxHeader]byte
	n := len(appendHeader(header[:0], first, len(wire)-maxHeader))
	copy(wire[maxHeader-n:], header[:n])
	return wire[maxHeader-n:]
}

// Has reports whether the Frame has its bytes in one form already.
func (f *Frame) Has(form Form) bool {
	switch {
	case f.raw || form == Text:
		return true
	case form > Bare:
		e := f.encoding(form)
		if form < familySize && (e == nil || !e.Has(form)) {
			return f.Has(form.Plain())
		}
		return e != nil && e.Has(form)
	}
	return f.wire[form-Framed].Load() != nil
}

// maxHeader is the size of the longest header of an unmasked WebSocket frame.
const maxHeader = 10

// TextFrame returns payload as one unmasked WebSocket text frame (RFC 6455,
// section 5.2).
func TextFrame(payload []byte) []byte {
	b := appendHeader(make([]byte, 0, len(payload)+maxHeader), finText, len(payload))
	return append(b, payload...)
}

// The first byte of the header of a WebSocket text frame that is a whole message.
const (
	finText  = 0x81
	deflated = 0x40 // added for a compressed message (RFC 7692, section 6)
)

// appendHeader appends the header of a text frame with n bytes.
func appendHeader(b []byte, first byte, n int) []byte {
	switch {
	case n < 126:
		return append(b, first, byte(n))
	case n < 1<<16:
		b = append(b, first, 126)
		return binary.BigEndian.AppendUint16(b, uint16(n))
	}
	b = append(b, first, 127)
	return binary.BigEndian.AppendUint64(b, uint64(n))
}
