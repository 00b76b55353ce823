// Package websocket is the transport over WebSockets (RFC 6455): the handshake, the reader
// of frames, heartbeats, and the closing handshake. A Framing adds what a protocol such as
// SockJS puts around messages.
package websocket

import (
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/transport"
)

// Config configures a WebSocket.
type Config struct {
	transport.Config
	Framing Framing  // nil for a bare WebSocket, whose text messages are the messages of the Session
	Dialect *Dialect // how another protocol than pushy's uses bare WebSockets, or nil

	deflates bool    // the WebSocket has permessage-deflate
	deflated *Config // the same with deflates, or nil
}

// New returns a Config. If c.Deflate is set, WebSockets negotiate permessage-deflate, except those with
// a Dialect, whose frames are not compressed.
func New(c Config) *Config {
	if c.Deflate != nil && c.Dialect == nil {
		deflated := c
		deflated.deflates = true
		c.deflated = &deflated
	}
	return &c
}

// Dialect is how another protocol than pushy's uses bare WebSockets.
type Dialect struct {
	Form fanout.Form // in which an Outbox encodes frames
	// Name is the name of the protocol, and Transport is the result of the Session's Protocol.
	Name      string
	Transport string
	// Silent is the close code for a peer from which nothing was received for two heartbeats. If
	// it is 0, the connection is lost, without a close frame.
	Silent int
	// Slow is the close code for a peer that does not read, instead of CloseSlow.
	Slow int
	// NoBinary closes the connection with code 1003 for a binary message.
	NoBinary bool
	// Ping is a WebSocket frame that is sent if nothing was received for half a heartbeat after a
	// ping: a request of the protocol for a sign of life. It can be nil.
	Ping []byte
}

// Framing is a protocol between a WebSocket and the messages of a Session: each text
// message of the WebSocket is a frame, which contains messages. It keeps no state.
type Framing interface {
	// Form returns the form in which an Outbox encodes frames.
	Form() fanout.Form
	// Protocol returns the result of the Session's Protocol.
	Protocol() string
	// ShutdownCode returns the result of the Session's ShutdownCode.
	ShutdownCode() int
	// Limit returns the largest size of a frame if max is the largest size of a message,
	// both in bytes.
	Limit(max int) int
	// Opening returns the first frame.
	Opening() *fanout.Frame
	// Heartbeat returns a WebSocket frame that is sent with each ping.
	Heartbeat() []byte
	// Parse validates a frame, and returns its messages for Next; they can be empty. The
	// error is a *FramingError, or ErrTooBig if a message has more than max bytes. After an
	// error, no message of the frame is used.
	Parse(frame []byte, max int) (messages []byte, err error)
	// Next splits off the next message; there is one if messages is not empty.
	Next(messages []byte) (message, rest []byte)
	// CloseFrame returns the WebSocket frame that is sent before the closing handshake.
	CloseFrame(code int, reason string) []byte
}

// FramingError is the error of a client that does not implement the framing. It receives
// only a WebSocket close frame.
type FramingError struct {
	Reason string // in the close frame
	Err    error
}

func (e *FramingError) Error() string { return e.Err.Error() }

func (e *FramingError) Unwrap() error { return e.Err }
