package sockjs

import (
	"bytes"
	"encoding/json"
	"math"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/transport/websocket"
)

// The limit of a message counts its own bytes, as a bare WebSocket carries it.
// SockJS carries messages as JSON strings, whose escapes may make them six times
// as long (\u0001), and jsonp's form may make each of those bytes three (%5C).

const (
	// frameRoom is what a SockJS frame may have around its messages.
	frameRoom = 1 << 10
	// maxElements is how many messages one SockJS frame may have.
	maxElements = 1000
)

// frameLimit returns how many bytes a SockJS frame may have if its messages may
// have at most max.
func frameLimit(max int) int {
	if max > (math.MaxInt32-frameRoom)/6 {
		return math.MaxInt32
	}
	return 6*max + frameRoom
}

// formLimit is frameLimit for a frame that a form carries.
func formLimit(max int) int {
	limit := frameLimit(max)
	if limit > math.MaxInt32/3 {
		return math.MaxInt32
	}
	return 3 * limit
}

// checkFrame returns errFraming for a SockJS frame that is not JSON, and
// websocket.ErrTooBig for one with a message of over max bytes, or with too many.
func checkFrame(frame []byte, max int) error {
	if !json.Valid(frame) {
		return errFraming
	}
	if len(frame) <= max && len(frame) <= 2*maxElements {
		return nil // whatever is in it
	}
	var e elements
	e.openValid(frame)
	for n := 1; len(e.rest) > 0; n++ {
		value := e.cut()
		if n > maxElements || len(value) > max && messageLen(value) > max {
			return websocket.ErrTooBig
		}
	}
	return nil
}

// messageLen returns how many bytes the message in a valid JSON value has. What
// is not a string is no message, and counts as it is.
func messageLen(value []byte) int {
	if value[0] != '"' {
		return len(value)
	}
	return jsvalue.TextLen(value)
}

// messagesLen returns how many bytes the messages of a valid SockJS frame have.
func messagesLen(frame []byte) (bytes int64) {
	var e elements
	e.openValid(frame)
	for len(e.rest) > 0 {
		bytes += int64(messageLen(e.cut()))
	}
	return bytes
}

// cut removes and returns the next element as it was sent. There must be one.
func (e *elements) cut() []byte {
	n := valueLen(e.rest)
	value := e.rest[:n]
	e.rest = bytes.TrimLeft(e.rest[n:], " \t\r\n")
	if len(e.rest) == 0 {
		e.rest = nil // keeps nothing of the frame
	} else {
		e.rest = bytes.TrimLeft(e.rest[1:], " \t\r\n") // after the comma
	}
	return value
}
