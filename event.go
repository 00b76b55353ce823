package pushy

import "github.com/gopushy/pushy/internal/protocol/pushyjson"

// Close codes that a Server gives (PROTOCOL.md, section 3, says after which codes
// clients reconnect: after 3000 to 3499 they do, after 3500 to 3999 they do not).
const (
	CloseShutdown     = 3001 // the server shuts down; a bare WebSocket gets 1012, "service restart"
	CloseSlowConsumer = 3008 // the client does not read what is sent to it
	CloseRemoved      = 3500 // the host removed the connection
	CloseRefused      = 3501 // the host refuses this client
)

// codeTooBig ends a connection whose message is over Limits.MessageBytes.
const codeTooBig = 1009

// Error is an error that a client may see, as pushy:error. Any other error of
// a command reaches it as "Internal error" and the log in full. Code is free
// text; the protocol's own are numbers from 100 to 599.
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string { return "pushy: " + e.Message + " (" + e.Code + ")" }

// shown is e as the protocol shows it.
func (e *Error) shown() *pushyjson.Error {
	return &pushyjson.Error{
		Code:    e.Code,
		Message: e.Message,
	}
}

// errorOf is an error of the protocol's own as the host sees it.
func errorOf(e *pushyjson.Error) *Error {
	return &Error{
		Code:    e.Code,
		Message: e.Message,
	}
}
