package fanout

import (
	"github.com/gopushy/pushy/internal/jsvalue"
)

// Part is a part of the texts of several messages, such as the members in the lists of clients that
// come one after another. It is escaped for SockJS only once. It begins and ends between two
// characters. The zero value is empty. It is not safe for concurrent use.
type Part struct {
	text    []byte
	escaped []byte // what Framed has of the first bytes of text
	done    int    // the number of these bytes
}

// Add appends to the text.
func (p *Part) Add(text []byte) { p.text = append(p.text, text...) }

// Len returns the number of bytes of the text.
func (p *Part) Len() int { return len(p.text) }

// Reset makes p empty.
func (p *Part) Reset() {
	p.text = p.text[:0]
	p.escaped = p.escaped[:0]
	p.done = 0
}

// in returns the part as a form has it.
func (p *Part) in(form Form) []byte {
	if form != Framed {
		return p.text
	}
	if p.done < len(p.text) {
		p.escaped = jsvalue.AppendEscaped(p.escaped, p.text[p.done:])
		p.done = len(p.text)
	}
	return p.escaped
}

// NewListOf is NewList for a list that only one Outbox will have, whose form it has. The text is head,
// the parts one after another, and tail, all of which it copies.
func NewListOf(head []byte, parts []*Part, tail []byte, form Form) *Frame {
	form = form.Plain() // lists are not compressed
	size := framedSize(head) + framedSize(tail)
	for _, p := range parts {
		size += len(p.in(form))
	}
	wire := make([]byte, maxHeader, size)
	if form == Framed {
		wire = append(wire, framedHead...)
		wire = jsvalue.AppendEscaped(wire, head)
	} else {
		wire = append(wire, head...)
	}
	for _, p := range parts {
		wire = append(wire, p.in(form)...)
	}
	if form == Framed {
		wire = jsvalue.AppendEscaped(wire, tail)
		wire = append(wire, framedTail...)
	} else {
		wire = append(wire, tail...)
	}
	if form != Framed && form != Bare {
		return NewList(wire[maxHeader:])
	}
	return RawList(putHeader(wire, finText))
}
