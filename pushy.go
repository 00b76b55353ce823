// Package pushy adds realtime channels to a Go web app. Browsers subscribe over
// SockJS or a bare WebSocket, the app and its backends publish events, and members
// of private channels see each other.
//
// # Start
//
// A [Server] is an http.Handler. Mount it under its prefix and publish events:
//
//	srv, err := pushy.New(pushy.Options{SecretKey: os.Getenv("PUSHY_SECRET_KEY")})
//	if err != nil {
//		log.Fatal(err)
//	}
//	mux.Handle("/pushy/", srv)
//	…
//	err = srv.Publish(ctx, "news", "headline", map[string]string{"text": "Hello"})
//
// Pages load the browser client from /pushy/pushy.js. Its manual is
// client/pushy.d.ts. The protocol is documented in PROTOCOL.md in the repository.
//
// Use a pattern without a method: the Server handles GET and POST, and ServeMux
// panics if a pattern such as "GET /" conflicts with it. To mount the Server under
// another prefix, set [Options.Prefix]; behind http.StripPrefix it is "/".
//
// # Middleware and proxies
//
// WebSockets need the Hijack method of the server's ResponseWriter. The HTTP
// transports, to which clients fall back, need Flush, SetReadDeadline and
// SetWriteDeadline. Middleware that wraps the ResponseWriter must therefore have
// the method
//
//	Unwrap() http.ResponseWriter
//
// Hijack and Flush alone are not enough: with gin-contrib/gzip,
// NYTimes/gziphandler and older versions of negroni, WebSockets work and the HTTP
// transports fail. Mount pushy outside of such middleware and outside of
// http.TimeoutHandler. The Server logs the type of the writer when the first
// WebSocket arrives through such middleware.
//
// A reverse proxy must do three things: forward the Host header, because otherwise
// the Server refuses every page as a page of another origin (the alternative is to
// list the public origin in [Options.Origins]); forward the path unchanged, with %2F
// encoded; and send responses without buffering them. To use [Limits].PerAddress behind
// a proxy, set [Options.Address]:
//
//	Address: func(r *http.Request) string { return r.Header.Get("X-Real-IP") }
//
// The proxy must set that header itself (nginx: proxy_set_header X-Real-IP
// $remote_addr). In X-Forwarded-For, only the last entry comes from your proxy; the
// client chooses the first.
//
// # Channels
//
// A channel exists while it has subscribers. Names are case-insensitive. A channel
// is private if its name begins with "private-" or "presence-", or if
// [Options.Channel] makes it private. To subscribe to a private channel, a client needs a
// token, which it gets from [Server.AuthHandler] or, in a page that the host renders, from
// [SignToken]; an [Options.Authorizer] can demand something else. A subscription to a private
// channel can carry presence data, such as a user's name. The first one that does turns on the
// channel's presence: from then on all members receive the list of members, and an event when
// a member joins or leaves.
//
// # History
//
// A channel can keep its newest events ([ChannelOptions].Keep). A client that reconnects then
// receives the events that it has missed, or the reason why it cannot have all of them.
// [Server.Position] returns the position from which a page that the host renders continues:
// call it before reading the page's data, and publish an event after its change is committed.
//
// # Go code that subscribes
//
// [Server.Subscribe] yields the events of channels to code of the process, such as a bot or a
// search index. [Server.Listen] has more options, and has subscribed when it returns.
//
// # Commands
//
// [Handle] and [Server.RegisterCommand] add commands that clients can send, such as
// a move in a game or a line of chat. A command can have typed data and a reply. It
// works with a [Conn] and with [Channels].
//
// # Publishing from other processes
//
// Backends in any language POST signed requests to {prefix}/api/publish, and to other calls
// that list channels and members, read history, and remove users (PROTOCOL.md, section 15;
// docs/api.md shows each call). Go programs use package backend. A signature covers the time,
// an id, the path and the body. Servers carry out each id once, so a request can be sent again
// safely, and one that somebody records, such as a proxy, publishes nothing when it is
// repeated. It shows its body, and a recorded query can be repeated until 300 seconds after its
// time, so use TLS.
//
// Version 1, for publishers of the Node original, is a POST to {prefix}/channel/{name}/trigger
// with a key that [SignTrigger] computes. Anyone who can read such a request can have its
// event delivered again until 600 seconds after its timestamp, and the key is part of the URL,
// which is in the logs of proxies. Set [Options].DisableV1 when [Stats].Keys shows that nobody
// uses version 1 any more.
//
// # Several servers
//
// Servers whose [Options].Broker uses the same store act as one: events reach the
// subscribers of all of them, and a private channel has one list of members. The
// packages broker/redis and broker/nats are separate modules. Package broker/memory
// connects the Servers of one process, for tests. Package broker is the contract for
// other implementations. All Servers must have the same secret keys, limits and
// Options.Channel; they log the differences that they can detect.
//
// # Shutting down
//
// Call [Server.Shutdown] before http.Server.Shutdown, because that method does not
// close WebSockets.
package pushy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/control"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/httpapi"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/origin"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
	"github.com/gopushy/pushy/internal/ratelog"
	"github.com/gopushy/pushy/internal/sign"
	"github.com/gopushy/pushy/internal/token"
	"github.com/gopushy/pushy/internal/transport/sockjs"
)

// Server is one node: the connections and channels of one process. It is an http.Handler.
// All methods are safe for concurrent use.
type Server struct {
	opts        Options
	log         *slog.Logger
	notices     *ratelog.Logger // what other parties cause: one line a minute for each kind
	keys        []string
	tokenKeys   token.Keys // for the same keys
	hub         *hub.Hub
	protocol    *pushyjson.Protocol
	engine      *fanout.Engine
	sockets     *sockjs.Handler
	socketBases []string // see socketPath
	local       bool     // the broker is the process's own: no code of the host runs
	channels    Channels
	node        string
	nodes       *control.Nodes
	origins     origin.Policy
	rates       rates
	unaddressed atomic.Bool // it was logged that connections have no IP address
	triggers    httpapi.TriggerReader
	repeats     httpapi.Repeats
	signed      httpapi.SignedReader
	calls       map[string]apiCall // of the signed API, by name
	ledger      broker.Ledger      // the Broker's, or one of this node only
	// sharedLedger means that the ledger is that of the Broker, or that there is no other node.
	sharedLedger bool
	// idsSince is when the ledger began to remember ids, or zero if these outlive the process.
	idsSince time.Time
	finished finished
	bans     bans
	keyUses  keyUses
	memory   memoryGuard
	endings  endings
	extras   sync.Map // see seam.Server
	counts   counts

	// The tests pin these. The clock can be pinned while the list of bans is read.
	clock     atomic.Pointer[func() time.Time] // nil is time.Now
	newConnID func() string

	mu       sync.RWMutex
	commands map[string]func(*Request) error // by lower-case name
	askable  map[string]askable
}

// New returns a Server. The error says which option is invalid or that the Broker cannot be
// opened. If New fails, it has closed Options.Broker, unless another Server uses it.
func New(options Options) (*Server, error) {
	s, err := newServer(options)
	inUse := errors.Is(err, broker.ErrClosed) // then another Server closes it
	if err != nil && options.Broker != nil && !inUse {
		err = errors.Join(err, closeBroker(options.Broker))
	}
	return s, err
}

// newServer is New, except that it does not close the broker if it fails.
func newServer(options Options) (*Server, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts:      o,
		log:       o.Logger,
		notices:   ratelog.New(o.Logger),
		newConnID: names.NewUUID,
		commands:  map[string]func(*Request) error{},
		askable:   map[string]askable{},
		local:     o.Broker == nil,
		node:      names.RandomHex(8),
		counts:    newCounts(),
	}
	s.channels.srv = s
	if t, own := o.Authorizer.(*tokens); own {
		t.srv = s
	}
	s.socketBases = o.socketBases()
	o.warnOfLimits()
	if o.SecretKey != "" {
		s.keys = append([]string{o.SecretKey}, o.OldSecretKeys...)
		s.tokenKeys = token.NewKeys(s.keys)
		if len(o.SecretKey) < 16 {
			s.log.Warn("the secret key is under 16 bytes: it can be guessed")
		}
	}
	s.keyUses = newKeyUses(s.keys)
	s.bans.wake = make(chan struct{}, 1)
	s.registerAsks()
	if s.origins, err = origin.New(o.Origins); err != nil {
		return nil, fmt.Errorf("pushy: Options.Origins: %w", err)
	}
	s.engine = fanout.New(fanout.Config{
		MaxBytes:     limit.Or(o.Limits.ConnBuffer, math.MaxInt),
		MaxTotal:     limit.Or(o.MaxBuffered, math.MaxInt64),
		WriteTimeout: limit.Or(o.WriteTimeout, forever),
		MaxGather:    o.MaxGather,
		Compress:     o.Compress.engine(),
	})
	s.protocol = &pushyjson.Protocol{
		Channel:       s.channelName,
		Command:       s.runCommand,
		Measured:      s.counts.command,
		PresenceBytes: o.Limits.PresenceBytes,
		Unavailable:   s.historyUnavailable,
		ClientEvents:  s.clientEvents(),
	}
	cfg := s.hubConfig()
	s.nodes = s.newNodes(&cfg)
	if s.hub, err = hub.New(cfg); errors.Is(err, broker.ErrClosed) {
		return nil, fmt.Errorf("pushy: Options.Broker is in use by another Server, or closed: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("pushy: open broker: %w", err)
	}
	s.openNodes()
	s.sockets = sockjs.NewHandler(sockjs.Config{
		Config:           s.transportConfig(),
		DisableWebSocket: o.SockJS.DisableWebSocket,
		ResponseLimit:    limit.Or(o.SockJS.ResponseLimit, math.MaxInt),
		DisconnectDelay:  limit.Or(o.SockJS.DisconnectDelay, forever),
		JSessionID:       o.SockJS.JSessionID,
		Legacy:           o.SockJS.Legacy,
		ScriptURL:        o.SockJS.ScriptURL,
		SessionID:        names.IsToken,
		BodyTimeout:      limit.Or(o.BodyTimeout, forever),
		Refused:          s.hub.Admission().Refuse,
		Admit:            s.admit,
		Log:              s.log,
	})
	s.triggers = httpapi.TriggerReader{
		Keys:               s.keys,
		MaxBody:            o.Limits.TriggerBytes,
		BodyTimeout:        limit.Or(o.BodyTimeout, forever),
		Now:                s.now,
		Channel:            s.channelName,
		Event:              s.eventName,
		AllowPrivateEvents: o.AllowPrivateEvents,
		Used:               func(key int) { s.keyUses.add(1, key, s.now()) },
	}
	s.newAPI(cfg.Broker)
	s.openBans()
	s.repeats.Full = s.repeatsFull
	s.rates.set(&o.Limits)
	s.guardMemory()
	return s, nil
}

// now is the time of triggers, signed requests and members.
func (s *Server) now() time.Time {
	if now := s.clock.Load(); now != nil {
		return (*now)()
	}
	return time.Now()
}

// hubConfig is what the core needs of the options.
func (s *Server) hubConfig() hub.Config {
	o := &s.opts
	l := &o.Limits
	cfg := hub.Config{
		Node:       s.node,
		Lease:      o.Grace,
		ReturnRate: o.ReturnRate,
		Settings:   s.settings(),
		Timeout:    operationTimeout,
		Engine:     s.engine,
		Protocol:   s.protocol,
		Policy:     s.policy,
		Authorize:  s.authorize,
		MemberKey: func(channel, member, user string) string {
			return sign.Member(s.memberKeys()[0], channel, member, user)
		},
		MemberKeyValid: func(channel, member, user, key string) bool {
			return sign.MemberValid(s.memberKeys(), channel, member, user, key)
		},
		Limits: hub.Limits{
			Connections: l.Connections,
			PerNetwork:  l.PerAddress,
			Channels:    l.Channels,
			Members:     l.Members,
			Paged:       l.PagedMembers,
			Rate:        l.CommandRate,
			Burst:       l.CommandBurst,
			JoinRate:    l.JoinRate,
			JoinBurst:   l.JoinBurst,
			EventRate:   l.ClientEventRate,
		},
		ReplayBytes: replayBytes(l.ConnBuffer),
		Keeps:       o.Channel != nil,
		KeptBytes:   limit.Or(l.TriggerBytes, 0),
		MaxKept:     limit.Or(o.MaxKept, math.MaxInt64),
		Hooks:       s.hubHooks(),
		HostConn:    func(c *hub.Conn) any { return &Conn{c: c} },
		HostChannel: func(ch *hub.Channel) any { return &Channel{ch} },
		Now:         s.now,
		NewConnID:   func() string { return s.newConnID() },
		NewMemberID: func() string { return names.RandomHex(16) },
		UserMemberID: func(channel, identity string) string {
			sum := sha256.Sum256([]byte(channel + "\x00" + identity))
			return hex.EncodeToString(sum[:16])
		},
		Digest: func(data []byte) uint64 {
			sum := sha256.Sum256(data)
			return binary.BigEndian.Uint64(sum[:])
		},
		Banned:   s.banned,
		NewOwner: func() string { return names.RandomHex(8) },
		Log:      s.log,
		Notices:  s.notices,
	}
	if _, signed := o.Authorizer.(*tokens); signed {
		cfg.SignedUser = pushyjson.User
	}
	if s.local {
		cfg.Broker, cfg.Local = memory.New(), true
		return cfg
	}
	cfg.Broker, cfg.Linger = s.checked(o.Broker), linger
	return cfg
}

// processKey signs the keys of members if there is no secret key.
var processKey = sync.OnceValue(func() string { return names.RandomHex(32) })

// memberKeys returns the secrets that sign the keys of members. The first one signs.
func (s *Server) memberKeys() []string {
	if len(s.keys) == 0 {
		return []string{processKey()}
	}
	return s.keys
}

// hubHooks are the host's hooks, of which those that fail are logged.
func (s *Server) hubHooks() (h hub.Hooks) {
	o := s.opts.Hooks
	h.Fault = s.logFault
	h.Ended = s.ended
	if o.Connect != nil {
		h.Connect = func(c *hub.Conn) {
			s.hook("Connect", func() { o.Connect(hostConn(c)) })
		}
	}
	if o.Disconnect != nil {
		h.Disconnect = func(c *hub.Conn, code int, reason string) {
			s.hook("Disconnect", func() { o.Disconnect(hostConn(c), code, reason) })
		}
	}
	if o.Subscribe != nil {
		h.Subscribe = func(c *hub.Conn, ch *hub.Channel, moved bool) {
			s.hook("Subscribe", func() { o.Subscribe(resumedConn(c, moved), hostChannel(ch)) })
		}
	}
	if o.Unsubscribe != nil {
		h.Unsubscribe = func(c *hub.Conn, ch *hub.Channel, moved bool) {
			s.hook("Unsubscribe", func() { o.Unsubscribe(resumedConn(c, moved), hostChannel(ch)) })
		}
	}
	if o.Resume != nil {
		h.Resume = func(c *hub.Conn, ch *hub.Channel, oldConnID string) {
			s.hook("Resume", func() { o.Resume(resumedConn(c, true), hostChannel(ch), oldConnID) })
		}
	}
	if o.ChannelOccupied != nil {
		h.Occupied = func(ch *hub.Channel) {
			s.hook("ChannelOccupied", func() { o.ChannelOccupied(hostChannel(ch)) })
		}
	}
	if o.ChannelVacated != nil {
		h.Vacated = func(ch *hub.Channel) {
			s.hook("ChannelVacated", func() { o.ChannelVacated(hostChannel(ch)) })
		}
	}
	return h
}

// logFault logs why a client was disconnected that has broken a rule.
func (s *Server) logFault(c *hub.Conn, code int) {
	if code != codeTooBig {
		return
	}
	most := s.opts.Limits.MessageBytes
	s.notices.Warn("connection closed: a message is too large", "",
		slog.Int("limit", most),
		slog.String("conn", c.ID()),
		slog.String("hint", fmt.Sprintf("a message is over the limit of %d bytes: "+
			"send less, or raise Options.Limits.MessageBytes", most)))
}

const (
	// linger is how long a channel stays open without subscribers if there is a Broker,
	// so that a page that reloads does not cost two round trips to it.
	linger = time.Second
	// operationTimeout bounds a call of a Broker.
	operationTimeout = 10 * time.Second
	closeTimeout     = 5 * time.Second
	forever          = 1 << 30 * time.Second
)

// Conn returns the connection with that id. It finds only connections on this node whose
// Connect hook has returned.
func (s *Server) Conn(id string) (*Conn, bool) {
	c := s.hub.Conn(id)
	if c == nil {
		return nil, false
	}
	return hostConn(c), true
}

// Channels returns the channels on this node.
func (s *Server) Channels() *Channels { return &s.channels }

func (s *Server) channelName(name string) (lower string, err error) {
	if lower, err = names.Channel(name); err == nil && s.opts.CheckChannel != nil {
		err = s.check("Options.CheckChannel", s.opts.CheckChannel, lower)
	}
	return lower, err
}

func (s *Server) eventName(event string) error {
	if err := names.Event(event); err != nil || s.opts.CheckEvent == nil {
		return err
	}
	return s.check("Options.CheckEvent", s.opts.CheckEvent, event)
}
