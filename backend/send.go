package backend

import (
	"context"
	"fmt"

	"github.com/gopushy/pushy/internal/calls"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// Message is a direct message for Send.
type Message struct {
	// User is the Conn.UserID whose connections receive the message, and Conn the id of the only
	// connection that receives it. Exactly one of them is set.
	User string
	Conn string
	// Event is the name of the event, by the rules of PROTOCOL.md, section 5.
	Event string
	// Data is encoded as encoding/json does, and nil as {}.
	Data any
	// ID is the id of the call, as Batch.ID. Default: a random one.
	ID string
}

// Sent is the result of SendUser, SendConn and Send.
type Sent struct {
	Sent int // the connections for which the message was queued, on the nodes that have answered
	Coverage
}

// SendUser sends a direct message, {"event":…,"data":…}, to all connections of a user, on all
// nodes. data is encoded with encoding/json. The message is not stored: a user without a
// connection does not receive it. Send does the same with more options.
//
// The errors are those of Publish. If the server cannot ask its other nodes, it has sent the
// message to the connections of one node only, and SendUser tries again, so a client can receive
// the message more than once. If that does not succeed in time, the error comes with the last
// answer.
func (c *Client) SendUser(ctx context.Context, user, event string, data any) (Sent, error) {
	return c.Send(ctx, Message{
		User:  user,
		Event: event,
		Data:  data,
	})
}

// SendConn is SendUser for one connection, on any node.
func (c *Client) SendConn(ctx context.Context, connID, event string, data any) (Sent, error) {
	return c.Send(ctx, Message{
		Conn:  connID,
		Event: event,
		Data:  data,
	})
}

// Send sends a direct message. See SendUser.
func (c *Client) Send(ctx context.Context, m Message) (Sent, error) {
	body := calls.Send{
		User:  m.User,
		Conn:  m.Conn,
		Event: m.Event,
	}
	err := validUTF8("user", m.User, "conn", m.Conn, "event", m.Event)
	if err == nil && m.Data != nil {
		if body.Data, err = jsvalue.Encode(m.Data); err != nil {
			err = fmt.Errorf("data: %w", err)
		}
	}
	if err != nil {
		return Sent{}, failed("send", err)
	}
	var result Sent
	err = change(ctx, c, "send", m.ID, body, func(a calls.SendAnswer) {
		result = Sent{
			Sent:     a.Sent,
			Coverage: coverage(a.Coverage),
		}
	})
	return result, err
}
