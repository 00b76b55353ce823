package sockjs

import (
	"bytes"
	"errors"

	"github.com/gopushy/pushy/internal/jsvalue"
)

var errFraming = errors.New("frame is not JSON")

// elements iterates over the messages of one SockJS frame: a JSON array of strings, or a
// single JSON value, which is treated as an array with that element.
type elements struct {
	rest []byte // from the next element on, without the brackets of the array
}

// openValid starts the iteration of a frame that is known to be valid JSON. It keeps the
// frame until next has returned false.
func (e *elements) openValid(frame []byte) {
	frame = bytes.Trim(frame, " \t\r\n")
	if frame[0] == '[' {
		frame = bytes.TrimLeft(frame[1:len(frame)-1], " \t\r\n")
	}
	e.rest = frame
}

// next returns the next element: the value of a string, and an empty message for any other
// JSON value. It overwrites the part of the frame that it has read.
func (e *elements) next() ([]byte, bool) {
	if len(e.rest) == 0 {
		return nil, false
	}
	r := jsvalue.NewReader(e.rest)
	if r.Kind() != '"' {
		e.nextValue()
		return []byte{}, true
	}
	text := r.String()
	e.skipTo(r.Rest())
	return text.InPlace(), true
}

// nextValue removes and returns the next element in its JSON form. There must be one.
func (e *elements) nextValue() []byte {
	r := jsvalue.NewReader(e.rest)
	value := r.Raw()
	e.skipTo(r.Rest())
	return value
}

// skipTo continues with the element after the next comma of rest.
func (e *elements) skipTo(rest []byte) {
	e.rest = bytes.TrimLeft(rest, " \t\r\n")
	if len(e.rest) == 0 {
		e.rest = nil // so that the frame can be collected
	} else {
		e.rest = bytes.TrimLeft(e.rest[1:], " \t\r\n") // after the comma
	}
}
