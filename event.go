package pushy

import (
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/wire"
)

// Event names of the protocol (PROTOCOL.md, sections 2 to 4).
const (
	eventConnect      = "pushy:connect"
	eventError        = "pushy:error"
	eventReply        = "pushy:reply"
	eventSuccess      = "pushy:subscription-success"
	eventFailed       = "pushy:subscription-failed"
	eventNeedAuth     = "pushy:subscription-needauth"
	eventEnd          = "pushy:subscription-end"
	eventPresenceAdd  = "pushy:presence-add"
	eventPresenceQuit = "pushy:presence-quit"
	eventPresenceSync = "pushy:presence-sync"
)

// Close codes that a Server gives (PROTOCOL.md, section 3, says after which codes
// clients reconnect: after 3000 to 3499 they do, after 3500 to 3999 they do not).
const (
	CloseShutdown     = 3001 // the server shuts down; a bare WebSocket gets 1012, "service restart"
	CloseSlowConsumer = 3008 // the client does not read what is sent to it
	CloseRemoved      = 3500 // the host removed the connection
	CloseRefused      = 3501 // the host refuses this client
)

// codeLost is never sent: the connection ended without a word.
const codeLost = 1006

// codeTooBig ends a connection whose message is over Limits.MessageBytes.
const codeTooBig = 1009

// codeServiceRestart is what a bare WebSocket gets for CloseShutdown (RFC 6455's
// registry of close codes).
const codeServiceRestart = 1012

// Error is an error that a client may see, as pushy:error. Any other error of
// a command reaches it as "Internal error" and the log in full. Code is free
// text; the protocol's own are numbers from 100 to 599.
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string { return "pushy: " + e.Message + " (" + e.Code + ")" }

// The errors of PROTOCOL.md, section 3. "recieved" is how the original spells it.
var (
	errBogus           = &Error{"100", "Bogus message recieved"}
	errUnknownCommand  = &Error{"200", "Unknown command"}
	errNoChannel       = &Error{"300", "No channel specified"}
	errInvalidChannel  = &Error{"301", "Invalid channel name"}
	errTooManyChannels = &Error{"302", "Too many channels"}
	errTooManyRequests = &Error{"429", "Too many requests"}
	errChannelNotFound = &Error{"404", "Channel not found"}
	errNotSubscribed   = &Error{"403", "Not subscribed to this channel"}
	errInternal        = &Error{"500", "Internal error"}
	errTimedOut        = &Error{"504", "Command timed out"}
)

func replyFrame(event string, data, id []byte) *fanout.Frame {
	return fanout.NewFrame(wire.Reply(event, data, id))
}

func eventFrame(event, channel string, data []byte) *fanout.Frame {
	return fanout.NewFrame(wire.Event(event, channel, data))
}
