package pushy

import (
	"cmp"
	"encoding/json"
	"errors"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/names"
)

// ChannelOptions are the properties of a channel. The zero value is the default.
type ChannelOptions struct {
	// Access says whether the channel is private. Default AccessByName.
	Access Access
	// Presence controls what the members of a private channel see of each other.
	Presence PresenceOptions
	// Keep says how many of the channel's events are kept, so that clients that reconnect
	// receive what they have missed, and new clients the newest events (PROTOCOL.md, section
	// 14). A Size of 0 keeps none. A TTL of 0 is 24 hours, and Bytes of 0 are
	// Limits.KeepBytes. The data of an event can then have at most Limits.TriggerBytes. While
	// the Broker cannot be reached, events of such a channel cannot be published. A Broker
	// that does not implement broker.History keeps nothing.
	//
	// Everyone who may subscribe to the channel can read what it keeps, unless
	// Options.Authorizer returns ErrNoHistory.
	Keep broker.Keep
	// ClientEvent lets the members of the channel send events to each other, such as
	// "client-typing", without a command of the host (PROTOCOL.md, section 3). It decides about
	// each event, and returns the data that the other members receive: data itself, or other
	// data. If it returns nil and no error, they receive nothing. The client receives an *Error
	// that it returns; any other error is logged, and the client receives "Internal error", as
	// it does after a panic.
	//
	// The channel must be private. The name of the event begins with "client-", and data is
	// valid JSON of at most Limits.ClientEventBytes; it is null if the client sent none. The
	// other members, on all nodes, also receive the memberId of the sender; the connection that
	// sent the event does not receive it. The event is not kept. The func is called from many
	// goroutines at once, with no lock held, at most Limits.ClientEventRate times a second for
	// one connection, whose next message is read when it has returned. conn is not bound to a
	// command. A client that may not send events, because its token or
	// Options.Authorizer does not allow it (Grant.ClientEvents), is refused without a call.
	// Default nil: the Server ignores events that clients send.
	ClientEvent func(conn *Conn, event string, data json.RawMessage) (json.RawMessage, error)
}

// keepTTL is the default of ChannelOptions.Keep.TTL.
const keepTTL = 24 * time.Hour

// keep returns the Keep of a channel with its defaults.
func (s *Server) keep(k broker.Keep) broker.Keep {
	if k.Size <= 0 {
		return broker.Keep{}
	}
	k.TTL = cmp.Or(max(k.TTL, 0), keepTTL)
	if k.Bytes <= 0 {
		k.Bytes = limit.Or(s.opts.Limits.KeepBytes, 0)
	}
	return k
}

// PresenceOptions control what the members of a private channel see of each other. The zero
// value is the default.
type PresenceOptions struct {
	// Off disables presence: presence data is ignored, and members do not see each other.
	// Default: the first member with data turns on the channel's presence (PROTOCOL.md,
	// section 4).
	Off bool
	// PerUser shows the members of one user, such as the tabs of a browser, as one member.
	// Members are one user's if their Conn.UserID is equal or, if they have none, if their
	// presence data has an equal field "user". The latter counts only if Options.Authorizer
	// is not set, because then a token has signed the data. A member without a user is a user
	// of its own. See PROTOCOL.md, section 4.
	PerUser bool
	// ClientState lets clients set the state of their own member with pushy:update. The host
	// can always set it, with Channel.Update. Default: clients cannot.
	ClientState bool
}

// Access says whether a channel is private.
type Access uint8

const (
	AccessByName  Access = iota // private if its name begins with "private-" or "presence-"
	AccessPrivate               // clients need a token, or what Options.Authorizer demands
	AccessPublic                // clients need no token
)

func (a Access) private(channel string) bool {
	if a == AccessByName {
		// Other protocols have names with capitals, which must not evade the rule.
		return names.Private(jsvalue.Lower(channel))
	}
	return a != AccessPublic
}

var errPolicy = errors.New("pushy: Options.Channel failed")

// policy returns the properties of a channel. It is called when the channel is opened, and
// for questions about a channel that is not open.
func (s *Server) policy(channel string) (hub.Policy, error) {
	var o ChannelOptions
	if s.opts.Channel != nil {
		if f := s.decide("Options.Channel", func() { o = s.opts.Channel(channel) }); f != nil {
			return hub.Policy{}, errPolicy
		}
	}
	return hub.Policy{
		Private:      o.Access.private(channel),
		Presence:     !o.Presence.Off,
		PerUser:      o.Presence.PerUser,
		ClientState:  o.Presence.ClientState,
		ClientEvents: o.ClientEvent != nil,
		Keep:         s.keep(o.Keep),
	}, nil
}
