package pushy

import (
	"cmp"
	"errors"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
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
		return names.Private(channel)
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
		Private:     o.Access.private(channel),
		Presence:    !o.Presence.Off,
		PerUser:     o.Presence.PerUser,
		ClientState: o.Presence.ClientState,
		Keep:        s.keep(o.Keep),
	}, nil
}
