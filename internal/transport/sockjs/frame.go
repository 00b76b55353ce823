package sockjs

import (
	"bytes"
	"errors"

	"github.com/gopushy/pushy/internal/jsvalue"
)

var errFraming = errors.New("frame is not JSON")

// elements walks the messages of one SockJS frame: a JSON array of texts, or
// one JSON value alone, which counts as an array of that value.
type elements struct {
	rest []byte // from the next element on, without the array's brackets
}

// openValid starts with a frame that is known to be JSON. The frame is kept until
// next has returned false.
func (e *elements) openValid(frame []byte) {
	frame = bytes.Trim(frame, " \t\r\n")
	if frame[0] == '[' {
		frame = bytes.TrimLeft(frame[1:len(frame)-1], " \t\r\n")
	}
	e.rest = frame
}

// next returns the next element: the text of a string, and an empty text for
// anything else, which is no message.
func (e *elements) next() ([]byte, bool) {
	if len(e.rest) == 0 {
		return nil, false
	}
	text, _ := jsvalue.Text(e.cut())
	return []byte(text), true
}

// valueLen is the length of the JSON value at the start of b, which is valid
// JSON but for where it ends.
func valueLen(b []byte) int {
	depth, inString := 0, false
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
			if depth--; depth == 0 {
				return i + 1
			}
		case depth == 0 && (c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			return i // a number or a word
		}
	}
	return len(b)
}
