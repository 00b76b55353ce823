// Package websocket is the transport over WebSockets (RFC 6455): the handshake, the
// reader of frames, heartbeats, and the closing handshake. What an application protocol
// puts around messages, as SockJS does, is a Framing.
package websocket

import (
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/transport"
)

// Config is what a WebSocket needs.
type Config struct {
	transport.Config
	Framing Framing // nil for a bare WebSocket, whose messages are the client's and ours
}

// Framing is a protocol between WebSockets and the Session's messages: each text
// message is a frame of its own that has messages in it. It keeps no state.
type Framing interface {
	// Form is how an Outbox encodes frames.
	Form() fanout.Form
	// Protocol is the Session's.
	Protocol() string
	// ShutdownCode is the Session's.
	ShutdownCode() int
	// Limit returns how many bytes a frame may have if its messages may have at
	// most max.
	Limit(max int) int
	// Opening is the first frame.
	Opening() *fanout.Frame
	// Heartbeat is a WebSocket frame that goes with each ping.
	Heartbeat() []byte
	// Parse checks a frame, of which no part counts if there is an error: a
	// *FramingError, or ErrTooBig for a message of over max bytes. It returns what
	// Next takes, which may be empty.
	Parse(frame []byte, max int) (messages []byte, err error)
	// Next splits the next message off; there is one if messages is not empty.
	Next(messages []byte) (message, rest []byte)
	// Goodbye returns the WebSocket frame that goes before the closing handshake.
	Goodbye(code int, reason string) []byte
}

// FramingError is a client that does not speak the framing. All that it is sent is a
// close frame.
type FramingError struct {
	Reason string // in the close frame
	Err    error
}

func (e *FramingError) Error() string { return e.Err.Error() }

func (e *FramingError) Unwrap() error { return e.Err }
