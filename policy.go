package pushy

import (
	"errors"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/names"
)

// ChannelOptions are the properties of a channel. The zero value is the default.
type ChannelOptions struct {
	// Access says whether the channel is private. Default AccessByName.
	Access Access
	// Presence controls what the members of a private channel see of each other.
	Presence PresenceOptions
}

// PresenceOptions control what the members of a private channel see of each other. The zero
// value is the default.
type PresenceOptions struct {
	// Off disables presence: presence data is ignored, and members do not see each other.
	// Default: the first member with data turns on the channel's presence (PROTOCOL.md,
	// section 4).
	Off bool
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
		Private:  o.Access.private(channel),
		Presence: !o.Presence.Off,
	}, nil
}
