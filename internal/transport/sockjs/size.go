package sockjs

import (
	"math"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/transport/websocket"
)

// MaxMessage limits the bytes of the message itself, as on a bare WebSocket. SockJS encodes
// messages as JSON strings, whose escapes can make them six times as long (\u0001), and the
// form of jsonp can encode each of those bytes as three (%5C).

const (
	// frameRoom is the number of bytes that a SockJS frame can have in addition to its
	// messages.
	frameRoom = 1 << 10
	// maxElements is the largest number of messages in one SockJS frame.
	maxElements = 1000
)

// frameLimit returns the largest size of a SockJS frame if max is the largest size of a
// message.
func frameLimit(max int) int {
	if max > (math.MaxInt32-frameRoom)/6 {
		return math.MaxInt32
	}
	return 6*max + frameRoom
}

// formLimit is frameLimit for a frame in a form.
func formLimit(max int) int {
	limit := frameLimit(max)
	if limit > math.MaxInt32/3 {
		return math.MaxInt32
	}
	return 3 * limit
}

// checkFrame returns errFraming for a SockJS frame that is not JSON, and websocket.ErrTooBig
// for a frame with a message of more than max bytes or with more than maxElements messages.
func checkFrame(frame []byte, max int) error {
	if !jsvalue.Valid(frame) {
		return errFraming
	}
	if len(frame) <= max && len(frame) <= 2*maxElements {
		return nil // no content of this size can exceed the limits
	}
	var e elements
	e.openValid(frame)
	for n := 1; len(e.rest) > 0; n++ {
		value := e.nextValue()
		if n > maxElements || len(value) > max && messageLen(value) > max {
			return websocket.ErrTooBig
		}
	}
	return nil
}

// messageLen returns the number of bytes of the message in a valid JSON value. A value that
// is not a string is not a message, and counts with its own length.
func messageLen(value []byte) int {
	if value[0] != '"' {
		return len(value)
	}
	return jsvalue.TextLen(value)
}

// messagesLen returns the number of bytes of all messages of a valid SockJS frame.
func messagesLen(frame []byte) (bytes int64) {
	var e elements
	e.openValid(frame)
	for len(e.rest) > 0 {
		bytes += int64(messageLen(e.nextValue()))
	}
	return bytes
}
