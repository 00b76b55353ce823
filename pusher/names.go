package pusher

import (
	"errors"
	"regexp"
	"strings"

	"github.com/gopushy/pushy/internal/names"
)

const (
	// toUser begins the name under which clients subscribe to the events for their user.
	toUser = "#server-to-user-"
	// clientEvent begins the names of events that clients send.
	clientEvent = "client-"
)

var (
	channelPattern = regexp.MustCompile(`^[A-Za-z0-9_\-=@,.;]{1,164}$`)
	socketPattern  = regexp.MustCompile(`^\d{1,20}\.\d{1,20}$`)
)

var errChannelName = errors.New("is not the name of a channel: it must have 1 to 164 of A-Z a-z 0-9 _ - = @ , . ;")

// checkChannel applies the rules of Pusher, and then those of the host.
func (a *Adapter) checkChannel(name string) error {
	if !channelPattern.MatchString(name) || name == "." || name == ".." {
		return errChannelName
	}
	return a.parts.CheckChannel(name)
}

// checkEvent applies the rules of Pusher, and then those of the host.
func (a *Adapter) checkEvent(name string) error {
	switch {
	case isReserved(name):
		return errors.New(`must not begin with "pusher:" or "pusher_internal:"`)
	}
	if err := names.Received(name); err != nil {
		return err
	}
	return a.parts.CheckEvent(name)
}

// isReserved reports whether the name of an event is one of the protocol's own.
func isReserved(name string) bool {
	return strings.HasPrefix(name, "pusher:") || strings.HasPrefix(name, "pusher_internal:")
}
