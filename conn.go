package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// ErrClosed is returned for a connection that has ended, and by a Server that
// has begun to shut down.
var ErrClosed = errors.New("pushy: closed")

// Conn is one client's connection, whatever transport carries it. All methods
// are safe for concurrent use and none blocks on the client.
//
// Each command gets a *Conn of its own, which always belongs to that command:
// Reply and ReplyError carry the command's id, from any goroutine and also after
// the command has returned. A *Conn from anywhere else, such as a hook,
// Server.Conn or Channel.Conns, belongs to no command. Compare connections by ID,
// not by pointer.
type Conn struct {
	c  *hub.Conn
	id json.RawMessage // of the command that it answers, or nil
}

// hostConn is the *Conn of a connection that belongs to no command.
func hostConn(c *hub.Conn) *Conn { return c.Host().(*Conn) }

// ID returns the connection's id, its socketId in the protocol: a UUID v4 that
// tokens are signed over and that no other client is shown.
func (c *Conn) ID() string { return c.c.ID() }

// User returns what Options.Accept returned for this connection, or nil.
func (c *Conn) User() any { return c.c.User() }

// UserID returns the id of the connection's user: what Options.Accept returned, if it
// is a string or has a method UserID() string, which is called once; else "". An id that
// is not valid UTF-8 of at most 128 bytes counts as none.
func (c *Conn) UserID() string { return c.c.UserID() }

// Protocol returns the transport's name, such as "websocket".
func (c *Conn) Protocol() string { return c.c.Transport() }

// Context returns a context that is cancelled when the connection ends. It
// carries no values of the HTTP request: Accept keeps what is needed of that.
func (c *Conn) Context() context.Context { return c.c.Context() }

// Channels returns the names of the channels the connection is in, sorted.
func (c *Conn) Channels() []string { return c.c.Channels() }

// Send queues a direct message, {"event":…,"data":…}. data is encoded as
// encoding/json does, a json.RawMessage without its blanks. The error is ErrClosed
// or says why data cannot be encoded. It does not wait for the client: if more than
// Limits.ConnBuffer bytes are queued for one that does not read, the connection is
// closed with CloseSlowConsumer.
func (c *Conn) Send(event string, data any) error { return c.send(event, data, nil) }

// Reply is Send for the answer to the command that c belongs to: if the client
// gave the command an id, the message carries it back (PROTOCOL.md, section 3).
// It may be called at any time, also after the command has returned. A Conn that
// belongs to no command sends data as it is.
func (c *Conn) Reply(event string, data any) error { return c.send(event, data, c.id) }

// ReplyError answers the command that c belongs to with pushy:error.
func (c *Conn) ReplyError(e *Error) error {
	return closedError(pushyjson.Fail(c.c, e.shown(), c.id))
}

func (c *Conn) send(event string, data any, id json.RawMessage) error {
	if event == "" || !utf8.ValidString(event) {
		return fmt.Errorf("pushy: send: event name %q", event)
	}
	raw, err := jsvalue.Encode(data)
	if err != nil {
		return fmt.Errorf("pushy: %w", err)
	}
	return closedError(c.c.Send(&hub.Event{
		Kind:    hub.Direct,
		Name:    event,
		Data:    raw,
		Request: id,
	}))
}

// closedError turns the hub's only error of sending into the host's.
func closedError(err error) error {
	if err != nil {
		return ErrClosed
	}
	return nil
}

// Close ends the connection with a close code and a reason of at most 123
// bytes: code 1000, 1001, 1008, 1011 to 1014, or 3000 to 4999. A bare WebSocket
// gets 1012 for CloseShutdown. What was queued before is still sent, within the
// write timeout. Close does not wait: the Disconnect hook runs when the connection
// has ended. A second Close does nothing.
func (c *Conn) Close(code int, reason string) error {
	switch {
	case code == 1000, code == 1001, code == 1008, code >= 1011 && code <= 1014, code >= 3000 && code <= 4999:
	default:
		return fmt.Errorf("pushy: close: code %d is not one that a server may send", code)
	}
	if len(reason) > 123 || !utf8.ValidString(reason) {
		return errors.New("pushy: close: reason must be valid UTF-8 of at most 123 bytes")
	}
	c.c.Close(code, reason)
	return nil
}
