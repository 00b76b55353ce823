package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// ErrClosed is returned by the methods of a connection that has ended, and by a Server that
// has begun to shut down.
var ErrClosed = errors.New("pushy: closed")

// Conn is the connection of one client, over any transport. All methods are safe for
// concurrent use, and none waits for the client.
//
// Each command receives its own *Conn, which stays bound to that command: Reply and
// ReplyError send the command's id, from any goroutine and also after the command has
// returned. A *Conn from a hook, Server.Conn or Channel.Conns is not bound to a command.
// Compare connections by ID, not by pointer.
type Conn struct {
	c  *hub.Conn
	of *purpose // nil for most, because each connection has a Conn
}

// purpose is the reason for which a Conn was made, if it is not that of the connection.
type purpose struct {
	id      json.RawMessage // of the command that it answers, or nil
	resumed bool            // see Conn.Resumed
	last    bool            // the client had sent no other command yet
	replied uint32          // 1 from the first answer on; atomic, and not an atomic.Bool because a Request can be copied
}

// now reports whether an answer is the first one to the only command that the client has sent. The
// next message of the Conn is then likely to be the answer to a command that has yet to arrive.
func (p *purpose) now() bool {
	return p != nil && p.last && atomic.SwapUint32(&p.replied, 1) == 0
}

// hostConn is the *Conn of a connection that belongs to no command.
func hostConn(c *hub.Conn) *Conn { return c.Host().(*Conn) }

// resumedConn returns the *Conn that a hook receives. Its Resumed returns resumed.
func resumedConn(c *hub.Conn, resumed bool) *Conn {
	if !resumed {
		return hostConn(c)
	}
	return &Conn{
		c:  c,
		of: &purpose{resumed: true},
	}
}

// ID returns the connection's id, which the protocol calls socketId. It is a UUID v4, or two decimal
// numbers with a dot between them for Pusher clients (package pusher).
// Tokens are signed for it, and no other client sees it.
func (c *Conn) ID() string { return c.c.ID() }

// User returns what Options.Accept returned for this connection, or nil.
func (c *Conn) User() any { return c.c.User() }

// UserID returns the id of the user of the connection. If Options.Accept returned a string,
// the id is that string. If it returned a value with a method UserID() string, the id is
// the result of that method, which is called once. Otherwise, or if the id is not valid
// UTF-8 of at most 128 bytes, UserID returns "".
func (c *Conn) UserID() string { return c.c.UserID() }

// Resumed reports, for the Conn that a hook receives, whether the membership continues: for
// Subscribe, the member has come from another node, where an Unsubscribe hook is called; for
// Unsubscribe, another node has taken it over. It is true for Resume, and false for every Conn
// that is not an argument of these hooks. See Options.Grace.
func (c *Conn) Resumed() bool { return c.of != nil && c.of.resumed }

// Protocol returns the transport's name, such as "websocket".
func (c *Conn) Protocol() string { return c.c.Transport() }

// Context returns a context that is canceled when the connection ends. It has none of the
// values of the HTTP request: Options.Accept can store what is needed from the request.
func (c *Conn) Context() context.Context { return c.c.Context() }

// Channels returns the names of the channels that the connection is in, sorted.
func (c *Conn) Channels() []string { return c.c.Channels() }

// Send queues a direct message, {"event":…,"data":…}. data is encoded as encoding/json
// does; a json.RawMessage is sent without its whitespace. The error is ErrClosed, or says
// why the name or the data is not valid. Send does not wait for the client: if more than
// Limits.ConnBuffer bytes are queued for a client that does not read, the connection is
// closed with CloseSlowConsumer.
func (c *Conn) Send(event string, data any) error { return c.send(event, data, nil, false) }

// Reply sends a direct message that answers the command to which c is bound: if the client
// gave the command an id, the message has that id (PROTOCOL.md, section 3). Reply can be
// called at any time, also after the command has returned. For a Conn that is not bound to
// a command, Reply is the same as Send.
func (c *Conn) Reply(event string, data any) error {
	return c.send(event, data, c.request(), c.of.now())
}

// ReplyError answers the command to which c is bound with pushy:error.
func (c *Conn) ReplyError(e *Error) error {
	return closedError(pushyjson.Fail(c.c, e.shown(), c.request()))
}

// request returns the id of the command that c answers, or nil.
func (c *Conn) request() json.RawMessage {
	if c.of == nil {
		return nil
	}
	return c.of.id
}

func (c *Conn) send(event string, data any, id json.RawMessage, now bool) error {
	if event == "" || !utf8.ValidString(event) {
		return fmt.Errorf("pushy: send: event name %q", event)
	}
	encoded, err := jsvalue.Encoded(data)
	if err != nil {
		return fmt.Errorf("pushy: %w", err)
	}
	defer encoded.Free()
	e := hub.Event{
		Kind:    hub.Direct,
		Name:    event,
		Data:    encoded.JSON,
		Request: id,
	}
	if now {
		return closedError(c.c.SendNow(&e))
	}
	return closedError(c.c.Send(&e))
}

// closedError turns the hub's only error of sending into the host's.
func closedError(err error) error {
	if err != nil {
		return ErrClosed
	}
	return nil
}

// Close ends the connection with a close code and a reason. The code is 1000, 1001, 1008,
// 1011 to 1014, or 3000 to 4999; the reason has at most 123 bytes. A bare WebSocket
// receives 1012 for CloseShutdown. Messages that are queued are still sent, within
// Options.WriteTimeout. Close does not wait: the Disconnect hook runs when the connection
// has ended. A second Close has no effect.
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
