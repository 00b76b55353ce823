package pushy

import (
	"encoding/json"
	"errors"
	"iter"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// ErrNotMember is returned if the connection is not in the channel.
var ErrNotMember = errors.New("pushy: not a member of the channel")

// JoinError is the error of Channels.Join for a subscription that is refused. Reason is the
// text that clients receive with pushy:subscription-failed (PROTOCOL.md, section 3).
type JoinError struct {
	Channel string
	Reason  string
	Code    string // of the *Error that an Authorizer returned, or ""
	Err     error  // not shown to the client: an error of the Broker, or of the presence data; or nil
}

func (e *JoinError) Error() string {
	s := "pushy: join " + e.Channel + ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *JoinError) Unwrap() error { return e.Err }

// Channels has the channels of a Server that have subscribers on this node. Each command
// receives its own *Channels, which stays bound to that command: the messages that its Join
// and Leave send to the client have the command's id. The one that Server.Channels returns
// is not bound to a command. All methods are safe for concurrent use.
type Channels struct {
	srv *Server
	id  json.RawMessage // of the command; nil without one
}

// Lookup returns the channel with that name, if it has subscribers on this node. The name
// is case-insensitive.
func (cs *Channels) Lookup(name string) (*Channel, bool) {
	lower, err := names.Channel(name)
	if err != nil {
		return nil, false
	}
	ch := cs.srv.hub.Lookup(lower)
	if ch == nil {
		return nil, false
	}
	return hostChannel(ch), true
}

// All yields the channels that have subscribers on this node, in no order.
func (cs *Channels) All() iter.Seq[*Channel] {
	return func(yield func(*Channel) bool) {
		for _, ch := range cs.srv.hub.Channels() {
			if ch.Subscribers() > 0 && !yield(hostChannel(ch)) {
				return
			}
		}
	}
}

// Join makes conn a member of a channel without calling the Authorizer: the caller is
// responsible for that decision. data is the presence data for a private channel, or nil;
// for public channels it is ignored. On success the client is sent
// pushy:subscription-success before Join returns nil. On failure the client receives
// nothing, and the error is an *Error (301, 302), a *JoinError or ErrClosed. Join waits for
// the Broker until conn ends.
func (cs *Channels) Join(conn *Conn, name string, data json.RawMessage) error {
	lower, err := cs.srv.channelName(name)
	switch {
	case errors.Is(err, names.ErrNotChecked):
		return errorOf(pushyjson.ErrInternal)
	case err != nil:
		return errorOf(pushyjson.ErrInvalidChannel)
	case conn.c.Hub() != cs.srv.hub:
		return errors.New("pushy: join: the connection belongs to another Server")
	}
	err = conn.c.Join(hub.JoinRequest{
		Channel: lower,
		Data:    data,
		Request: cs.id,
		Trusted: true,
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, hub.ErrClosed):
		return ErrClosed
	case errors.Is(err, hub.ErrTooManyChannels):
		return errorOf(pushyjson.ErrTooManyChannels)
	}
	refused := &JoinError{Channel: lower}
	refused.Reason, refused.Code = pushyjson.Reason(err)
	var unavailable *hub.UnavailableError
	var own *hub.RefusedError
	switch {
	case errors.As(err, &unavailable):
		refused.Err = unavailable.Err
	case errors.As(err, &own):
		refused.Err = own.Err
	case errors.Is(err, hub.ErrDataTooLarge):
		refused.Err = err
	}
	return refused
}

// Leave ends conn's membership, and the client receives pushy:subscription-end. If conn is
// joining, its membership ends when the join is complete. The error is ErrNotMember.
func (cs *Channels) Leave(conn *Conn, name string) error {
	lower, err := names.Channel(name)
	if err != nil || conn.c.Hub() != cs.srv.hub || conn.c.Leave(lower, "", cs.id) != nil {
		return ErrNotMember
	}
	return nil
}
