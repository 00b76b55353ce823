package pushy

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/safelog"
)

// Options configure a Server. A zero field means its default; a negative number
// means off. Durations that can only be mistakes, such as a Heartbeat of 25, which
// is 25 ns, are errors.
type Options struct {
	// SecretKey signs and checks triggers and tokens. Empty is an error, unless
	// Authorizer and DisableTrigger are set; under 16 bytes is a warning.
	SecretKey string
	// OldSecretKeys are still accepted, never used to sign.
	OldSecretKeys []string

	// Prefix is the path that everything is under, matched on the path that
	// the handler sees: "/" behind http.StripPrefix. Default "/pushy".
	Prefix string
	// SockJS configures what browsers connect to.
	SockJS SockJS
	// DisableTrigger answers 404 where triggers would be.
	DisableTrigger bool
	// AllowPrivateEvents lets triggers publish events whose names begin with
	// "private-", in any case. They are refused by default, because the key of such
	// a trigger is also what a careless auth endpoint signs as a token: one that
	// takes any connection id lets a browser publish. Publish is not concerned.
	AllowPrivateEvents bool

	// Origins lists the origins whose pages may connect beside the host's own,
	// such as "https://app.example.com". "https://*.example.com" allows one label
	// or more in place of the star; of a domain under which others register names,
	// such as co.uk or github.io, it would allow everybody's. "file://" allows
	// local pages whose browser sends that, as WebViews of apps do; desktop browsers
	// send null, which any page can, and which only AllowOrigin or "*" allows. "*"
	// allows any origin, at AuthHandler too: with it any page may ask for tokens with
	// its visitor's cookies. Default: none.
	Origins []string
	// AllowOrigin is asked about origins that are neither the host's own nor
	// listed, "null" among them, in the form that browsers send. It is called from
	// many goroutines for every request of such a page; true allows it all that
	// Origins does. A panic is logged and refuses. Pages that hide their origin
	// are refused unasked. Default: none.
	AllowOrigin func(r *http.Request, origin string) bool
	// Accept decides once per connection, before it is made, who may connect;
	// user is what Conn.User returns; if it is a string or has a method UserID() string,
	// that is Conn.UserID, if it is valid UTF-8 of at most 128 bytes; any other is logged
	// and counts as none. An error refuses with 403, or with 401
	// if it is ErrNeedAuth, or with an *Error's Code if that is a status from 400
	// to 499. The client sees an *Error; the log has every error, at most one line
	// a minute for each origin. Default: everybody.
	Accept func(r *http.Request) (user any, err error)
	// Address names the client's IP address, with a port or without, for
	// Limits.PerAddress. Default: the request's RemoteAddr, which behind a proxy is
	// the proxy's, and behind a Unix socket nobody's. Behind a proxy of your own
	// return a header that it overwrites, such as nginx's X-Real-IP (proxy_set_header
	// X-Real-IP $remote_addr), or the entry of X-Forwarded-For that it appends,
	// which is the last. Never return the first entry: the client writes it.
	// If it panics or returns what is no address, RemoteAddr counts, and the log
	// says so.
	Address func(r *http.Request) string
	// Channel says what a channel is, by its lower-cased name. It is called from many
	// goroutines when a channel is opened, and whenever somebody asks about one that is
	// not open, so it must be fast; it must give the same answer each time and on all
	// nodes. A panic is logged and refuses. Default: the zero ChannelOptions.
	Channel func(name string) ChannelOptions
	// Authorizer decides every subscription. Default: public channels are
	// open, private ones take a token (PROTOCOL.md, section 6).
	Authorizer Authorizer
	// CheckChannel and CheckEvent refuse names that the protocol would allow.
	// They are given the lower-cased channel and the event. The client or sender
	// receives the error's message, even without a key.
	CheckChannel func(channel string) error
	CheckEvent   func(event string) error

	Hooks  Hooks
	Limits Limits
	// MaxBuffered is how many bytes may be queued for all connections together.
	// Over it the Server closes the connection with the most queued bytes, with
	// CloseSlowConsumer. Default 256 MiB.
	MaxBuffered int64
	// Heartbeat is how often a connection is asked for a sign of life; one
	// that gives none for two heartbeats is dead. At least 1 s; default 25 s.
	Heartbeat time.Duration
	// WriteTimeout is how long one write to a client may take. Default 10 s.
	WriteTimeout time.Duration
	// BodyTimeout is how long a request may take to send its body. Default 10 s.
	BodyTimeout time.Duration
	// MaxGather is how long events may wait for others, so that one write takes
	// several to a client; only while they come faster than they are written.
	// At most 1 s; default 5 ms.
	MaxGather time.Duration
	// CommandTimeout is when the ctx of a command of Handle ends. Default 30 s.
	CommandTimeout time.Duration

	// Broker connects Servers that act as one; each has a Broker of its own, of the
	// same store. Default: this process alone. The Server opens and closes it, and New
	// closes it if it fails. The packages broker/redis, broker/nats and, within one
	// process, broker/memory have one.
	//
	// The Server trusts nothing that a Broker delivers, since others may write to what
	// it works with: it skips what is broken, and logs that once a minute. A method that
	// panics or ends its goroutine (runtime.Goexit) has failed, and the log says how.
	// Only an Append of an event that ends its goroutine also ends that of the caller of
	// Server.Publish.
	Broker broker.Broker

	// Logger takes what a host should know. Default slog.Default().
	Logger *slog.Logger
}

// SockJS configures the endpoints that browsers connect to.
type SockJS struct {
	// Prefix is their path. Default Options.Prefix + "/socket".
	Prefix string
	// DisableWebSocket makes clients use other transports.
	DisableWebSocket bool
	// ResponseLimit is how many bytes a streaming response carries before the
	// client has to ask for the next. Default 128 KiB.
	ResponseLimit int
	// DisconnectDelay is how long a client over HTTP may be without a request that
	// the Server can answer before it counts as disconnected. Default 5 s.
	DisconnectDelay time.Duration
	// JSessionID sets a cookie of that name, by which some load balancers send
	// all requests of a client to one server.
	JSessionID bool
	// Legacy serves the transports of old browsers, too: jsonp, htmlfile and,
	// with ScriptURL, the page for iframes, which loads sockjs-client from there.
	Legacy    bool
	ScriptURL string
}

// Limits bound what clients and publishers may ask for (PROTOCOL.md, section 3).
type Limits struct {
	Connections   int // at once; default 100,000
	PerAddress    int // of them, of one IPv4 address or IPv6 /64, see Options.Address; default off
	Channels      int // for one connection; default 200
	Members       int // of a channel with presence; default 1,000
	PresenceBytes int // of one member's data, as sent; default 4 KiB
	MessageBytes  int // of one client message, escapes undone; default 64 KiB
	TriggerBytes  int // of a trigger's body; default 256 KiB
	CommandRate   int // messages a second from one connection; default 100
	CommandBurst  int // and at once after a pause; default 200, or Channels if that is more
	// ConnBuffer is how many bytes of events and answers may wait for one
	// connection. The lists of members that a client gets when it subscribes do
	// not count: while more bytes of them wait, its next SUBSCRIBE does. Default
	// 1 MiB.
	ConnBuffer int
}

// Hooks observe. Any may be nil. They are called with no lock held, from many
// goroutines at once, and may use every method of this package except as said below.
// A hook delays the connection or channel that it is called for, and nothing else.
// For one connection Connect comes first and Disconnect last. A hook that panics or
// ends its goroutine (runtime.Goexit) is logged with its stack and counts as having
// returned: it undoes nothing. Options.Accept and Options.Authorizer are for refusing.
type Hooks struct {
	// Connect runs once for each connection, when it is accepted and before the
	// client receives anything: pushy:connect is sent when Connect has returned, and
	// what Connect itself sends comes after that. Until then no command of the client
	// is read, and Server.Conn does not find the connection.
	Connect func(conn *Conn)
	// Disconnect runs once for each connection, when the connection has ended and its
	// Unsubscribe hooks have returned; if they have not by the deadline of a Shutdown,
	// it runs all the same. The client receives nothing any more, conn's methods
	// return ErrClosed, and Server.Conn does not find it. code is the close code that
	// ended the connection: the client's own, one that the Server gave, or 1006 for one
	// that was lost. For a Shutdown it is CloseShutdown, whatever transport the client
	// has.
	Disconnect func(conn *Conn, code int, reason string)
	// Subscribe runs after each successful subscription, when conn is a member and
	// pushy:subscription-success is queued: the client may have received it, and
	// events of the channel, before Subscribe runs. The command that subscribed, or the
	// host's call of Channels.Join, returns after it, and whatever ends the membership
	// takes effect after it.
	Subscribe func(conn *Conn, ch *Channel)
	// Unsubscribe runs once for each membership that has ended, after the Subscribe
	// hook of the same membership has returned: when conn is no member any more,
	// pushy:subscription-end is queued (if the connection is still there), and the
	// Broker has appended the leave or failed. A membership that the host ends,
	// with Channel.Remove, can be followed by the client's next one at once: that one's
	// Subscribe may run at the same time.
	Unsubscribe func(conn *Conn, ch *Channel)
	// ChannelOccupied runs before the channel's first subscriber on this node is a
	// member: those that subscribe wait for it, so it must not wait for one of them. If
	// the first subscription then fails, ChannelVacated follows without a Subscribe.
	ChannelOccupied func(ch *Channel)
	// ChannelVacated runs after the channel's last subscriber on this node has left
	// and its Unsubscribe hook has returned; with a Broker of the host's about a second
	// later, if nobody has subscribed again. Those that subscribe meanwhile wait for it,
	// and ChannelOccupied runs again. For one channel the two never run at the same time.
	ChannelVacated func(ch *Channel)
}

// withDefaults returns a checked copy.
func (o Options) withDefaults() (Options, error) {
	if o.SecretKey == "" && (o.Authorizer == nil || !o.DisableTrigger) {
		return o, errors.New("pushy: Options.SecretKey is empty; without one, set Authorizer and DisableTrigger")
	}
	for _, old := range o.OldSecretKeys {
		if old == "" {
			return o, errors.New("pushy: Options.OldSecretKeys has an empty key")
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = safelog.New(o.Logger)
	var err error
	if o.Prefix, err = names.Prefix(o.Prefix, "/pushy"); err != nil {
		return o, fmt.Errorf("pushy: Options.Prefix %w", err)
	}
	if o.SockJS.Prefix, err = names.Prefix(o.SockJS.Prefix, o.Prefix+"/socket"); err != nil {
		return o, fmt.Errorf("pushy: Options.SockJS.Prefix %w", err)
	}
	if o.Authorizer == nil {
		o.Authorizer = tokens{keys: append([]string{o.SecretKey}, o.OldSecretKeys...)}
	}
	l := &o.Limits
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.Connections, 100_000},
		{&l.Channels, 200},
		{&l.Members, 1000},
		{&l.PresenceBytes, 4 << 10},
		{&l.MessageBytes, 64 << 10},
		{&l.TriggerBytes, 256 << 10},
		{&l.CommandRate, 100},
		{&l.CommandBurst, max(200, l.Channels)},
		{&l.ConnBuffer, 1 << 20},
	} {
		limit.Default(f.field, f.value)
	}
	if l.CommandBurst < 0 {
		l.CommandRate = -1
	}
	limit.Default(&o.SockJS.ResponseLimit, 128<<10)
	limit.Default(&o.SockJS.DisconnectDelay, 5*time.Second)
	limit.Default(&o.MaxBuffered, 256<<20)
	limit.Default(&o.Heartbeat, 25*time.Second)
	limit.Default(&o.WriteTimeout, 10*time.Second)
	limit.Default(&o.BodyTimeout, 10*time.Second)
	limit.Default(&o.MaxGather, 5*time.Millisecond)
	limit.Default(&o.CommandTimeout, 30*time.Second)
	return o, o.check()
}

// check refuses values that can only be mistakes.
func (o *Options) check() error {
	for _, f := range []struct {
		name  string
		value time.Duration
		right limit.Range
	}{
		{"Heartbeat", o.Heartbeat, limit.Range{Min: time.Second, Unit: time.Second}},
		{"WriteTimeout", o.WriteTimeout, limit.Range{Min: time.Millisecond, Unit: time.Second}},
		{"BodyTimeout", o.BodyTimeout, limit.Range{Min: time.Millisecond, Unit: time.Second}},
		{"CommandTimeout", o.CommandTimeout, limit.Range{Min: time.Millisecond, Unit: time.Second}},
		{"SockJS.DisconnectDelay", o.SockJS.DisconnectDelay, limit.Range{Min: time.Millisecond, Unit: time.Second}},
		{"MaxGather", o.MaxGather, limit.Range{Min: time.Microsecond, Max: time.Second, Unit: time.Millisecond}},
	} {
		if err := f.right.Check(f.value); err != nil {
			return fmt.Errorf("pushy: Options.%s %w", f.name, err)
		}
	}
	if o.SecretKey == "" && len(o.OldSecretKeys) > 0 {
		return errors.New("pushy: Options.OldSecretKeys is set, but Options.SecretKey is empty: " +
			"tokens and triggers are off without it")
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
