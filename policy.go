package pushy

import (
	"errors"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/names"
)

// ChannelOptions is what a channel is. The zero value is the default.
type ChannelOptions struct {
	// Access says whether the channel is private. Default AccessByName.
	Access Access
	// Presence is what the members of a private channel see of each other.
	Presence PresenceOptions
}

// PresenceOptions is what the members of a private channel see of each other. The zero
// value is the default.
type PresenceOptions struct {
	// Off ignores the data that members bring, and shows nobody to anybody. Default:
	// the first member with data turns the channel's presence on (PROTOCOL.md, section 4).
	Off bool
}

// Access says whether a channel is private.
type Access uint8

const (
	AccessByName  Access = iota // private if its name begins with "private-"
	AccessPrivate               // clients need a token, or what Options.Authorizer asks for
	AccessPublic                // clients need no token
)

func (a Access) private(channel string) bool {
	return a == AccessPrivate || a == AccessByName && names.Private(channel)
}

var errPolicy = errors.New("pushy: Options.Channel failed")

// policy is what a channel is. It is asked when the channel is opened, and by whoever
// needs to know of a channel that is not open.
func (s *Server) policy(channel string) (hub.Policy, error) {
	var o ChannelOptions
	if s.opts.Channel != nil {
		if f := s.decide("Options.Channel", func() { o = s.opts.Channel(channel) }); f != nil {
			return hub.Policy{}, errPolicy
		}
	}
	return hub.Policy{
		Private:  o.Access.private(channel),
		Presence: !o.Presence.Off,
	}, nil
}
