package pushy

import "github.com/gopushy/pushy/internal/protocol/pushyjson"

// Close codes that a Server sends. Clients reconnect after the codes 3000 to 3499 and not
// after 3500 to 3999 (PROTOCOL.md, section 3).
const (
	CloseShutdown     = 3001 // the server shuts down; a bare WebSocket receives 1012, "service restart"
	CloseSlowConsumer = 3008 // the client does not read what is sent to it
	CloseRemoved      = 3500 // the host removed the connection
	CloseRefused      = 3501 // the host refuses the client
)

// codeTooBig ends a connection whose message is over Limits.MessageBytes.
const codeTooBig = 1009

// Error is an error that the client sees, as pushy:error. For any other error of a command
// the client receives "Internal error", and the log has the error itself. Code can be any
// string; the codes of the protocol are numbers from 100 to 599.
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
