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
	"github.com/gopushy/pushy/internal/token"
)

// Options configure a Server. A field that is zero has its default. A negative number
// disables a limit or a timeout. Durations that can only be mistakes, such as a Heartbeat
// of 25, which is 25 ns, are errors.
type Options struct {
	// SecretKey signs tokens, and verifies them, signed requests and triggers. It must not be
	// empty, unless Authorizer is set, and DisableTrigger or DisableV1. A key of less than 16
	// bytes is logged as a warning.
	SecretKey string
	// OldSecretKeys are accepted in tokens, signed requests and triggers, and never used to
	// sign. With them the key can be changed without an interruption: docs/security.md.
	OldSecretKeys []string

	// DisableV1 refuses triggers and tokens of version 1, which version 2 replaces, with a log
	// line that names the cure. Set it when no publisher and no auth endpoint uses version 1
	// any more. Default: both versions are accepted. The signed API is version 2 and not
	// affected: it is off only without a SecretKey, and a proxy can refuse Prefix + "/api/".
	DisableV1 bool
	// TokenLife is the time after which the tokens of AuthHandler end, for clients that renew
	// their subscriptions before (PROTOCOL.md, section 6). The tokens of other clients are
	// valid as long as the connection, unless DisableV1 is set. From 1 s to 24 h; default 1 h.
	TokenLife time.Duration

	// Prefix is the path under which the Server handles requests. It is compared with the
	// path that the handler sees, so behind http.StripPrefix it is "/". Default "/pushy".
	Prefix string
	// SockJS configures the endpoints to which browsers connect.
	SockJS SockJS
	// DisableTrigger disables the trigger endpoint, which then has status 404. The signed API
	// (PROTOCOL.md, section 15) is not affected: it is off only without a SecretKey.
	DisableTrigger bool
	// RepeatWindow is how long the id of a request to the signed API is remembered after it was
	// used last. A request with the same key id, id and content within that time receives the first
	// answer, and nothing is done. It must be equal on all nodes. At least 11 min, because a
	// request is valid from 5 min before its time until 5 min after it, and for a clock that goes
	// back by up to 1 min; at most 20 min, because a Broker remembers the IDs of entries for that
	// time. Default 20 min.
	RepeatWindow time.Duration
	// AllowPrivateEvents allows triggers to publish events whose names begin with
	// "private-" or "presence-", in any case. By default they are refused, because the key
	// of such a trigger has the same form as a token: an auth endpoint that signs any
	// connection id would let a browser publish. The option does not affect Publish.
	AllowPrivateEvents bool

	// Origins lists the origins whose pages can connect, in addition to the host's own,
	// such as "https://app.example.com". In "https://*.example.com", the star stands for
	// one label or more; do not use it for a domain under which others register names, such
	// as co.uk or github.io. "file://" allows local pages of browsers that send this
	// origin, such as WebViews in apps. Desktop browsers send "null" instead, which any
	// page can cause; only AllowOrigin and "*" allow it. "*" allows all origins, also at
	// AuthHandler, so that any page can request tokens with the cookies of its visitor.
	// Default: none.
	Origins []string
	// AllowOrigin decides about origins that are neither the host's own nor in Origins,
	// "null" included. It is called from many goroutines, for every request of such a page,
	// with the origin as the browser sends it. If it returns true, the page is allowed as
	// if its origin were in Origins. A panic is logged, and the request is refused.
	// Requests that do not name their origin are refused without a call. Default: none.
	AllowOrigin func(r *http.Request, origin string) bool
	// Accept decides who can connect. It is called once for each connection, before the
	// connection is established. Conn.User returns the user. If the user is a string or has
	// a method UserID() string, that is the Conn.UserID; an id that is not valid UTF-8 of
	// at most 128 bytes is logged and ignored. If Accept returns an error, the connection
	// is refused with status 403, with 401 for ErrNeedAuth, or with the Code of an *Error
	// if that is a number from 400 to 499. The client sees only an *Error. All errors are
	// logged, with at most one line a minute for each origin. Default: all clients.
	Accept func(r *http.Request) (user any, err error)
	// Address returns the IP address of the client, with or without a port, for Limits.PerAddress
	// and ConnectRate, and for Ending.Address and the log. Default: the RemoteAddr of the request.
	// Behind a proxy this is the address of the proxy, and behind a Unix socket there is none.
	// Behind your own proxy, return a header that the proxy overwrites, such as nginx's X-Real-IP
	// (proxy_set_header X-Real-IP $remote_addr), or the last entry of X-Forwarded-For, which the
	// proxy appends. Never return the first entry: the client chooses it. If Address panics or
	// returns something else, RemoteAddr is used, and the failure is logged.
	Address func(r *http.Request) string
	// Channel returns the properties of a channel. name is in lower case, except of channels that
	// only Pusher clients can have (package pusher). Channel is called from many goroutines, when a
	// channel is opened, when the properties of a channel that is not open are needed, and for each
	// event that a client sends, so it must be fast. It must return the same result for the same
	// name each time and on all nodes. A panic is logged, and the request is refused. Nodes warn in
	// the log if only some of them have a Channel, and when they receive an event which its
	// publisher keeps in another way (ChannelOptions.Keep); they cannot detect other differences.
	// Default: the zero ChannelOptions.
	Channel func(name string) ChannelOptions
	// Authorizer decides every subscription. Default: public channels are open, and private
	// channels need a token (PROTOCOL.md, section 6).
	Authorizer Authorizer
	// CheckChannel and CheckEvent refuse names that the protocol allows. CheckChannel is called
	// with the name in lower case, except for Pusher clients. The client or publisher receives the
	// message of the error, even if its request is not signed.
	CheckChannel func(channel string) error
	CheckEvent   func(event string) error

	// Grace is how long a member stays in its channels after its connection has ended, so that
	// a client that loses its connection for a moment, a page that is reloaded, and a Server
	// that is replaced or fails are invisible to the other members. The client keeps its
	// memberId if it returns within that time, to this Server or to another one with the same
	// Broker and SecretKey. It applies to members of private channels with presence whose
	// client has asked for it, as the browser client does, and to every end of a connection
	// except the close codes 1000, 1008 and 3500 to 3999, after which members leave at once
	// (PROTOCOL.md, section 4). Without a SecretKey, clients can return only to a Server of
	// the same process.
	//
	// Grace is also the lease of a Server: if the Server fails, the others remove its members
	// after that time. It must be longer than a pause for a garbage collection, a suspended
	// virtual machine or a failover of the Broker, because otherwise members leave and join
	// again each time. It must be equal on all nodes. At least 1 s; default 15 s.
	Grace time.Duration
	// ReturnRate is how many clients may connect again a second after this Server has been
	// shut down or has failed, so that they do not overload the Servers that remain. When a
	// client connects, the Server sends it the time within which it must choose a random
	// moment to return: the number of the Server's connections divided by ReturnRate, from 1 s
	// to 60 s (returnWithin in PROTOCOL.md, section 2). After a connection that was lost
	// without a close frame, the time is at most 5 s. The browser client follows this;
	// clients that do not connect with "v=2" in their URL do not receive it. Shutdown makes
	// the lease of the Server longer by this time, if the Broker implements broker.Leaser, as
	// all Brokers of this repository do. In connections a second, at most 1,000,000; a
	// negative number turns it off. Default 2,000, or Limits.AcceptRate if that is less.
	ReturnRate int

	Hooks  Hooks
	Limits Limits
	// MaxBuffered limits the bytes that are queued for all connections together. Above the
	// limit the Server closes the connection with the most queued bytes, with
	// CloseSlowConsumer. Default 256 MiB.
	MaxBuffered int64
	// MaxKept limits the memory of this process for the events that channels keep
	// (ChannelOptions.Keep), in addition to that of the Broker. Above the limit, the Server
	// frees the events of the channels that have been quiet for the longest time, and reads
	// them from the Broker when a client needs them. Default 64 MiB.
	MaxKept int64
	// Heartbeat is the interval at which the Server sends a heartbeat to each connection. A
	// WebSocket from which it receives nothing for two intervals is closed without a close
	// frame. At least 1 s; default 25 s.
	Heartbeat time.Duration
	// WriteTimeout limits the time of one write to a client. Default 10 s.
	WriteTimeout time.Duration
	// BodyTimeout limits the time in which a client must send the body of a request.
	// Default 10 s.
	BodyTimeout time.Duration
	// MaxGather is the longest time that an event waits for others, so that one write sends
	// several events to a client. Events wait only while they arrive faster than they are
	// written, until the last of a burst has arrived, and no longer than it takes to write to
	// all clients; if that is less than 0.1 ms (1 ms with GOMAXPROCS=1, and on other systems than
	// Linux), they do not wait. At most 1 s; default 5 ms.
	MaxGather time.Duration
	// Compress compresses published events for clients whose WebSockets support that, as those of
	// browsers do (permessage-deflate, RFC 7692, also with SockJS). Package deflate has its values:
	// deflate.From(512) compresses events whose message has at least 512 bytes, which is a good
	// value where clients pay for bytes or have slow networks (docs/compression.md). An event is
	// compressed once for all receivers, and 1 KB takes about as long as the deliveries to five
	// clients; a connection needs no memory for it. Messages for one client, such as replies, the
	// success of a subscription and events that it has missed, are never compressed, because their
	// size could tell a secret that is in a message beside the client's own input. Do not publish
	// a secret in the same event as text that somebody else chooses. Limits.MessageBytes applies to
	// the messages of clients after they are decompressed. Default nil: off.
	Compress *Compression
	// CommandTimeout is the time after which the ctx of a command of Handle ends. Default
	// 30 s.
	CommandTimeout time.Duration

	// Broker connects Servers that act as one. Each Server needs its own Broker, and all
	// these Brokers use the same store. The Server opens the Broker and closes it; New
	// closes it if New fails. Packages broker/redis and broker/nats connect processes, and
	// broker/memory connects the Servers of one process. Default: this Server is the only
	// one.
	//
	// The Server validates what a Broker delivers, because other programs may be able to
	// write to the store. It skips invalid entries and logs at most one line a minute for
	// each kind. If a method of the Broker panics or calls runtime.Goexit, the call has
	// failed, and the failure is logged. There is one exception: if an Append of an event
	// calls runtime.Goexit, the goroutine that called Server.Publish ends, too.
	Broker broker.Broker

	// Logger receives the log lines of the Server. Default slog.Default().
	Logger *slog.Logger
}

// SockJS configures the endpoints to which browsers connect.
type SockJS struct {
	// Prefix is the path of the endpoints. Default Options.Prefix + "/socket".
	Prefix string
	// DisableWebSocket disables WebSockets, so that clients use other transports.
	DisableWebSocket bool
	// ResponseLimit is the number of bytes after which a streaming response ends and the
	// client requests the next one. The second response of a client can be as short as a
	// quarter of that, so that the clients of a channel do not all send their requests at
	// the same time. Default 128 KiB.
	ResponseLimit int
	// DisconnectDelay is the time after which a client of an HTTP transport is disconnected
	// if it has no open request that the Server can answer. Default 5 s.
	DisconnectDelay time.Duration
	// JSessionID sets the cookie JSESSIONID, which some load balancers use to send all
	// requests of a client to the same server.
	JSessionID bool
	// Legacy enables the transports of old browsers: jsonp, htmlfile and, if ScriptURL is
	// set, the iframe page, which loads sockjs-client from ScriptURL.
	Legacy    bool
	ScriptURL string
}

// withDefaults returns a checked copy.
func (o Options) withDefaults() (Options, error) {
	if o.SecretKey == "" && (o.Authorizer == nil || !o.DisableTrigger && !o.DisableV1) {
		return o, errors.New("pushy: Options.SecretKey is empty; make one with \"openssl rand -hex 32\", " +
			"or set Authorizer and DisableTrigger to do without one")
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
		o.Authorizer = &tokens{}
	}
	l := &o.Limits
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.Connections, 100_000},
		{&l.Channels, 200},
		{&l.Members, 1000},
		{&l.PagedMembers, max(100_000, l.Members)},
		{&l.PresenceBytes, 4 << 10},
		{&l.MessageBytes, 64 << 10},
		{&l.TriggerBytes, 256 << 10},
		{&l.CommandRate, 100},
		{&l.CommandBurst, max(200, l.Channels)},
		{&l.JoinRate, 50},
		{&l.JoinBurst, max(200, l.Channels)},
		{&l.ConnBuffer, 1 << 20},
		{&l.KeepBytes, 256 << 10},
		{&l.ClientEventRate, 10},
		{&l.ClientEventBytes, 10 << 10},
	} {
		limit.Default(f.field, f.value)
	}
	if o.Address != nil {
		limit.Default(&l.ConnectRate, 10)
	}
	limit.Default(&l.ConnectBurst, max(50, l.ConnectRate))
	if l.ConnectBurst < 0 {
		l.ConnectRate = -1
	}
	if l.JoinBurst < 0 {
		l.JoinRate = -1
	}
	if l.CommandBurst < 0 {
		l.CommandRate = -1
	}
	limit.Default(&o.TokenLife, token.DefaultLife)
	limit.Default(&o.SockJS.ResponseLimit, 128<<10)
	limit.Default(&o.SockJS.DisconnectDelay, 5*time.Second)
	limit.Default(&o.MaxBuffered, 256<<20)
	limit.Default(&l.Memory, defaultMemory())
	limit.Default(&o.MaxKept, 64<<20)
	limit.Default(&o.Heartbeat, 25*time.Second)
	limit.Default(&o.WriteTimeout, 10*time.Second)
	limit.Default(&o.BodyTimeout, 10*time.Second)
	limit.Default(&o.MaxGather, 5*time.Millisecond)
	limit.Default(&o.Grace, 15*time.Second)
	if l.AcceptRate > 0 {
		limit.Default(&o.ReturnRate, min(2000, l.AcceptRate))
	}
	limit.Default(&o.ReturnRate, 2000)
	limit.Default(&o.RepeatWindow, 20*time.Minute)
	limit.Default(&o.CommandTimeout, 30*time.Second)
	return o, o.check()
}

const maxReturnRate = 1_000_000

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
		{"Grace", o.Grace, limit.Range{Min: time.Second, Unit: time.Second}},
		{"RepeatWindow", o.RepeatWindow, limit.Range{Min: 11 * time.Minute, Max: 20 * time.Minute, Unit: time.Second}},
		{"CommandTimeout", o.CommandTimeout, limit.Range{Min: time.Millisecond, Unit: time.Second}},
		{"SockJS.DisconnectDelay", o.SockJS.DisconnectDelay, limit.Range{Min: time.Millisecond, Unit: time.Second}},
		{"TokenLife", o.TokenLife, limit.Range{Min: time.Second, Max: token.MaxLife, Unit: time.Second}},
		{"MaxGather", o.MaxGather, limit.Range{Min: time.Microsecond, Max: time.Second, Unit: time.Millisecond}},
	} {
		if err := f.right.Check(f.value); err != nil {
			return fmt.Errorf("pushy: Options.%s %w", f.name, err)
		}
	}
	if err := o.checkKept(); err != nil {
		return err
	}
	if o.TokenLife < 0 {
		return fmt.Errorf("pushy: Options.TokenLife is %v, must be from 1s to %v: tokens always end",
			o.TokenLife, token.MaxLife)
	}
	if o.Grace < 0 {
		return fmt.Errorf("pushy: Options.Grace is %v, must be at least 1s: it is also the lease of the Server's members",
			o.Grace)
	}
	if o.RepeatWindow < 0 {
		return fmt.Errorf("pushy: Options.RepeatWindow is %v, must be at least 11m0s: a request could be repeated",
			o.RepeatWindow)
	}
	if o.ReturnRate > maxReturnRate {
		return fmt.Errorf("pushy: Options.ReturnRate is %d, must be at most %d: it is a number of connections a second",
			o.ReturnRate, maxReturnRate)
	}
	if l := o.Limits.Memory; l > 0 && l < minMemory {
		return fmt.Errorf("pushy: Options.Limits.Memory is %d bytes, must be at least %d; a negative number turns it off",
			l, minMemory)
	}
	if o.SecretKey == "" && len(o.OldSecretKeys) > 0 {
		return errors.New("pushy: Options.OldSecretKeys is set, but Options.SecretKey is empty: " +
			"tokens and triggers are off without it")
	}
	return nil
}
