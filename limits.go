package pushy

import "fmt"

// Limits limit what clients and publishers can use (PROTOCOL.md, section 3).
type Limits struct {
	Connections int // open connections; default 100,000
	PerAddress  int // open connections from one IPv4 address or IPv6 /64, see Options.Address; default off
	// ConnectRate limits the new connections of one IPv4 address or IPv6 /64, see Options.Address.
	// Others are refused with status 429 and Retry-After, before Options.Accept is called. Behind
	// a proxy, all clients would have one address; so it is off by default unless
	// Options.Address is set. The Server remembers 65,536 addresses, in about 3 MiB.
	ConnectRate  int // connections a second; default 10 with Options.Address, otherwise off
	ConnectBurst int // connections at once after a pause; default 50, or ConnectRate if that is more
	// AcceptRate limits the new connections of this Server, so that very many clients that come
	// back at once do not slow down those that are connected. Up to 200 a second more are accepted
	// if they are WebSockets, and closed with code 1013, because that is all that the page of a
	// browser is told. Others are refused with status 503 and Retry-After. Both happen before
	// Options.Accept is called, and clients try again later. Requests of a SockJS session that is
	// open do not count.
	AcceptRate int // connections a second, and that number at once after a pause; default off
	// PublishRate limits the events that this Server publishes for other processes: those of
	// triggers and of the signed API, where an event counts once for each of its channels. Others
	// are refused with status 429 and Retry-After. Publish and its relatives are not limited.
	PublishRate   int // events a second, and twice that number at once; default off
	Channels      int // channels of one connection; default 200
	Members       int // members of a channel with presence; default 1,000, see PagedMembers
	PresenceBytes int // bytes of one member's data, as the client sends it; default 4 KiB
	MessageBytes  int // bytes of one client message, without JSON escapes; default 64 KiB
	TriggerBytes  int // bytes of a trigger's body, and of an event's data in the signed API; default 256 KiB
	// A command with a large answer counts as several messages (PROTOCOL.md, section 3).
	CommandRate  int // messages a second from one connection; default 100
	CommandBurst int // messages at once after a pause; default 200, or Channels if that is more
	// JoinRate limits the subscriptions of one connection; Channels.Join is not limited. One that
	// sends much counts as several (PROTOCOL.md, section 3), and one that takes a member over
	// (Options.Grace) does not count.
	JoinRate  int // subscriptions a second; default 50
	JoinBurst int // subscriptions at once after a pause; default 200, or Channels if that is more
	// Memory limits the memory, in bytes, that the Server uses for its clients: what is queued
	// for them and for Listeners, with an event that many wait for counted once; messages and
	// bodies that arrive; the members of channels; and the events that channels keep. Stats.Memory
	// has these parts. At 80 % the kept events are freed, and if that is not enough, new connections are
	// refused with status 503; at 90 % Ready returns ErrOverloaded, and events are not published:
	// triggers and the call publish are answered with 503; at 100 % the connections with the
	// most queued bytes are closed with CloseSlowConsumer, and if more is queued for Listeners than
	// for connections, the Listeners with the most queued bytes end with ErrSlowConsumer. Each of
	// these ends by itself, 5 percentage points lower.
	//
	// Garbage, what arrives between two of ten measurements a second, and what other limits bound
	// come on top, so choose at most 75 % of what the process may have. The latter are: an idle
	// connection, 4 KiB on Linux, or 11 KiB over TLS in the process (Connections; 100,000 of them
	// take 0.4 or 1.1 GiB), and its subscriptions (Channels), of which each that ends with its
	// token takes 35 bytes more; the addresses of ConnectRate, 3 MiB; and, without a Broker, the
	// ids of signed requests and of their events, 0.6 GB and the answers of more than 38 bytes,
	// which only your own publishers can send.
	//
	// MaxBuffered and MaxKept apply as well. A negative number turns it off. Default: 75 % of the
	// limit that GOMEMLIMIT or debug.SetMemoryLimit has set when New is called, otherwise off.
	Memory int64
	// Events that one connection sends to other clients (ChannelOptions.ClientEvent).
	ClientEventRate  int // events a second, and twice that number at once; default 10
	ClientEventBytes int // bytes of the data of one event, as the client sends it; default 10 KiB
	// PagedMembers is Members for clients that subscribe with the presence mode "diff",
	// "count" or "none" (PROTOCOL.md, section 4), such as the browser client. A client with
	// the mode "list" can join a channel that has fewer than Members members, and these can
	// join one that has fewer than PagedMembers. Default 100,000, or Members if that is more.
	PagedMembers int
	// ConnBuffer limits the bytes of events and answers that are queued for one connection.
	// The lists of members that a client receives when it subscribes do not count; instead,
	// while more than this number of bytes of lists is queued, the next subscription waits.
	// The kept events that a client receives when it subscribes do not count either; they are
	// limited to 256 KiB, and to less than half of ConnBuffer. Default 1 MiB.
	ConnBuffer int
	// KeepBytes limits the bytes of the data of the events that one channel keeps
	// (ChannelOptions.Keep). Default 256 KiB.
	KeepBytes int
}

// checkKept checks the limits of events that are kept. Whether a channel keeps events is not
// known before it is used, but without Options.Channel none does.
func (o *Options) checkKept() error {
	l := o.Limits
	if o.Channel == nil || l.TriggerBytes <= 0 {
		return nil
	}
	if l.ConnBuffer > 0 && l.TriggerBytes >= l.ConnBuffer/2 {
		return fmt.Errorf("pushy: Options.Limits.TriggerBytes is %d, but with Options.Channel it must be less than half of "+
			"Limits.ConnBuffer, which is %d: a client that reconnects could not be sent such an event",
			l.TriggerBytes, l.ConnBuffer)
	}
	if l.KeepBytes > 0 && l.TriggerBytes > l.KeepBytes {
		return fmt.Errorf("pushy: Options.Limits.TriggerBytes is %d, but with Options.Channel it must be at most "+
			"Limits.KeepBytes, which is %d: such an event could not be kept", l.TriggerBytes, l.KeepBytes)
	}
	return nil
}

// warnOfLimits logs which limits do not fit each other. None of these is an
// error: the Server works, but some clients cannot use what another limit allows.
func (o *Options) warnOfLimits() {
	l := o.Limits
	const around = 150 // what the server adds to a member's data
	list := int64(l.Members) * int64(l.PresenceBytes+around)
	for _, rule := range []struct {
		broken              bool
		small, large        string
		smallSize, needSize int64
		effect              string
	}{
		{
			l.Members > 0 && l.PresenceBytes > 0 && o.MaxBuffered > 0 && list > o.MaxBuffered/2,
			"MaxBuffered", "Limits.Members * Limits.PresenceBytes", o.MaxBuffered, 2 * list,
			"one full list of members may disconnect other clients; raise MaxBuffered, or lower one of the others",
		},
		{
			l.ConnBuffer > 0 && o.MaxBuffered > 0 && int64(l.ConnBuffer) > o.MaxBuffered,
			"MaxBuffered", "Limits.ConnBuffer", o.MaxBuffered, int64(l.ConnBuffer),
			"one slow client fills the buffers of all; raise MaxBuffered or lower ConnBuffer",
		},
		{
			l.ConnBuffer > 0 && l.Memory > 0 && int64(l.ConnBuffer) > l.Memory/10,
			"Limits.Memory", "Limits.ConnBuffer", l.Memory, 10 * int64(l.ConnBuffer),
			"a few slow clients fill the memory of all; raise Memory or lower ConnBuffer",
		},
		{
			l.ConnBuffer > 0 && l.TriggerBytes > 0 && l.TriggerBytes > l.ConnBuffer,
			"Limits.ConnBuffer", "Limits.TriggerBytes", int64(l.ConnBuffer), int64(l.TriggerBytes),
			"two large events disconnect a client; raise ConnBuffer or lower TriggerBytes",
		},
		{
			l.MessageBytes > 0 && l.PresenceBytes > 0 && l.PresenceBytes > l.MessageBytes,
			"Limits.MessageBytes", "Limits.PresenceBytes", int64(l.MessageBytes), int64(l.PresenceBytes),
			"presence data of that size cannot be sent; raise MessageBytes or lower PresenceBytes",
		},
		{
			l.CommandRate > 0 && l.CommandBurst > 0 && l.Channels > l.CommandBurst,
			"Limits.CommandBurst", "Limits.Channels", int64(l.CommandBurst), int64(l.Channels),
			"a client that reconnects cannot subscribe to all its channels at once; raise CommandBurst or lower Channels",
		},
	} {
		if rule.broken {
			o.Logger.Warn("limits do not fit each other", "small", rule.small, "is", rule.smallSize,
				"needs", rule.needSize, "because of", rule.large, "effect", rule.effect)
		}
	}
}
