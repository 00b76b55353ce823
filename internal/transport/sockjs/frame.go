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
// JSON value.
func (e *elements) next() ([]byte, bool) {
	if len(e.rest) == 0 {
		return nil, false
	}
	text, _ := jsvalue.Text(e.nextValue())
	return []byte(text), true
}

// valueLen returns the length of the JSON value at the start of b. The value must be valid;
// anything can follow it.
func valueLen(b []byte) int {
	depth := 0
	inString := false
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
			}
			if inString || depth > 0 {
				continue
			}
			return i + 1
		case c == '"':
			inString = true
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
			if depth == 0 {
				return i + 1
			}
		case depth == 0 && (c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			return i // the end of a number, true, false or null
		}
	}
	return len(b)
}
