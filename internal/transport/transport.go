// Package transport carries pushy's messages: each client connection is a
// session.Session, whatever it runs over. A Session decodes what the client sends
// into single messages, keeps the rules of its transport (limits, heartbeats, the
// closing handshake) and writes what its fanout.Outbox hands it. It knows
// nothing of channels or commands, and does not check origins.
package transport

import "time"

// Close codes that transports give themselves (RFC 6455, section 7.4.1).
const (
	codeProtocol   = 1002
	codeNoCode     = 1005 // never sent
	codeNotUTF8    = 1007
	codeTooBig     = 1009
	codeNoTLS      = 1015 // never sent
	maxCloseReason = 123
)

// Config holds a Session's bounds; each must be set but Heartbeat.
type Config struct {
	MaxMessage   int           // bytes of one message, fragments joined and SockJS's escapes undone
	Heartbeat    time.Duration // between heartbeats; none if not above zero
	WriteTimeout time.Duration // for the handshake's answer, and in Linger for what still waits
	CloseTimeout time.Duration // in Linger, for the peer's answer to our goodbye
}
