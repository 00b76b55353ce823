package fanout

import (
	"sync/atomic"
)

// Compress is what Engine.Compress needs. The zero value compresses nothing.
type Compress struct {
	From int // bytes of the text of a message from which it is compressed
	// Append appends the payload of a WebSocket message to dst, compressed as RFC 7692 prescribes
	// without context takeover. It is nil if nothing is compressed.
	Append func(dst, payload []byte) []byte
}

// Plain returns the form without compression.
func (form Form) Plain() Form {
	if form.deflates() {
		return form - FramedDeflate + Framed
	}
	return form
}

// Deflate is the inverse of Plain, for Framed and Bare.
func (form Form) Deflate() Form { return form - Framed + FramedDeflate }

func (form Form) deflates() bool { return form == FramedDeflate || form == BareDeflate }

// Compress compresses a Frame, which no Outbox has yet, for the WebSockets that have this form. It
// does nothing if the message is smaller than Compress.From, and the Frame stays as it is if the
// compressed bytes are not fewer. It takes as long as several deliveries, so no lock should be held.
func (e *Engine) Compress(f *Frame, form Form) {
	if !form.deflates() || e.cfg.Compress.Append == nil || len(f.text) < e.cfg.Compress.From || f.raw {
		return
	}
	d, ok := f.encoding(form).(*compressed)
	if !ok {
		d = &compressed{}
		f.SetEncoding(form, d)
	}
	slot := d.slot(form)
	if *slot != nil {
		return
	}
	payload := f.text
	if form == FramedDeflate {
		payload = appendFramed(make([]byte, 0, framedSize(f.text)), f.text)
	}
	*slot = e.deflatedFrame(payload)
	after := len(payload)
	if *slot != nil {
		after = len(*slot)
	}
	e.deflated.events.Add(1)
	e.deflated.before.Add(uint64(len(payload)))
	e.deflated.after.Add(uint64(after))
}

// deflatedFrame returns a payload as one unmasked WebSocket text frame that is compressed, or nil if
// that has not fewer bytes.
func (e *Engine) deflatedFrame(payload []byte) []byte {
	wire := e.cfg.Compress.Append(make([]byte, maxHeader, maxHeader+len(payload)), payload)
	if len(wire)-maxHeader >= len(payload) {
		return nil
	}
	return putHeader(wire, finText|deflated)
}

// compressed is the Encoding of a Frame in the forms of WebSockets with permessage-deflate. A form
// that is nil is as without compression. It does not change when an Outbox has the Frame.
type compressed [2][]byte

func (c *compressed) slot(form Form) *[]byte { return &c[form-FramedDeflate] }

// Bytes implements Encoding.
func (c *compressed) Bytes(form Form) []byte { return *c.slot(form) }

// Has implements Encoding.
func (c *compressed) Has(form Form) bool { return *c.slot(form) != nil }

// Size implements Encoding.
func (c *compressed) Size() int { return len(c[0]) + len(c[1]) }

// deflations counts what Compress has done.
type deflations struct{ events, before, after atomic.Uint64 }

// Compressed is what Engine.Compress has done.
type Compressed struct {
	Events uint64 // one that WebSockets with and without SockJS receive counts twice
	Before uint64 // bytes
	After  uint64 // bytes; those of Before for messages that did not become smaller
}

// Compressed returns the sums since New.
func (e *Engine) Compressed() Compressed {
	return Compressed{
		Events: e.deflated.events.Load(),
		Before: e.deflated.before.Load(),
		After:  e.deflated.after.Load(),
	}
}
