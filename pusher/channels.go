package pusher

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/pusherform"
)

// Channels returns a func for Options.Channel of a Server: that of the host, which can be nil, with
// what the names of channels mean for Pusher clients. Use it on all nodes, also on those that serve
// no Pusher clients. It can only make a channel stricter:
//
//   - Names that begin with "private-" or "presence-", in any case, are private.
//   - In channels whose names begin with "presence-", members are users (PresenceOptions.PerUser).
//   - Channels whose names begin with "cache-", "private-cache-", "presence-cache-" or
//     "private-encrypted-cache-" keep their newest event for 30 minutes, unless the host's func
//     says that they keep more.
func Channels(next func(name string) pushy.ChannelOptions) func(name string) pushy.ChannelOptions {
	return func(name string) pushy.ChannelOptions { return channelOptions(next, name, false) }
}

// ChannelsWithClientEvents is Channels and lets the members of private channels send events to each
// other, as Pusher's "client events" do, unless their names begin with "private-encrypted-" or
// the host's func has a ClientEvent of its own for the channel. Clients of pushy's own protocol can
// do that then, too.
func ChannelsWithClientEvents(next func(name string) pushy.ChannelOptions) func(name string) pushy.ChannelOptions {
	return func(name string) pushy.ChannelOptions { return channelOptions(next, name, true) }
}

const cacheTime = 30 * time.Minute

func channelOptions(next func(string) pushy.ChannelOptions, name string, clientEvents bool) pushy.ChannelOptions {
	var o pushy.ChannelOptions
	if next != nil {
		o = next(name)
	}
	if isPrivate(name) {
		o.Access = pushy.AccessPrivate
		if clientEvents && o.ClientEvent == nil && !isEncrypted(name) {
			o.ClientEvent = relay
		}
	}
	if pusherform.IsPresence(name) {
		o.Presence.PerUser = true
	}
	if isCache(name) && o.Keep.Size < 1 {
		o.Keep = broker.Keep{
			Size: 1,
			TTL:  cacheTime,
		}
	}
	return o
}

func relay(_ *pushy.Conn, _ string, data json.RawMessage) (json.RawMessage, error) { return data, nil }

func isEncrypted(name string) bool { return pusherform.HasPrefix(name, "private-encrypted-") }

// isPrivate reports whether a name begins as that of a private channel.
func isPrivate(name string) bool {
	return pusherform.HasPrefix(name, "private-") || pusherform.IsPresence(name)
}

// isCache reports whether a name is that of a cache channel.
func isCache(name string) bool {
	for _, prefix := range []string{"cache-", "private-cache-", "presence-cache-", "private-encrypted-cache-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// showsUsers reports whether clients see users as the members of a channel.
func showsUsers(p hub.Policy) bool { return p.Private && p.Presence && p.PerUser }
