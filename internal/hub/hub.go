// Package hub is the core of one node: connections, channels, memberships and the
// replicas of their members. It handles events and depends on neither JSON nor HTTP.
// A Protocol turns a client's messages into calls of Conn's methods, and events into
// messages. A session.Session carries the bytes. A broker.Broker connects the nodes.
//
// # Locks
//
// Locks are taken in this order: the broker's own, a channel's fan, the registry's
// and the channel's mu, a connection's mu, its outbox's or the wheel's. While a lock is held, the code
// only changes maps and queues: no I/O, and no call of a hook, command or broker.
package hub

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/lifecycle"
	"github.com/gopushy/pushy/internal/ratelog"
	"github.com/gopushy/pushy/internal/session"
)

// Errors that callers of the hub tell apart.
var (
	// ErrClosed is returned for a connection that has ended, and by a Hub that has
	// begun to shut down.
	ErrClosed = errors.New("closed")
	// ErrNotMember is returned for a connection that is not in the channel.
	ErrNotMember = errors.New("not a member of the channel")

	// Join refuses with these, with a *RefusedError and with an *UnavailableError.
	ErrAlreadyMember   = errors.New("already a member of the channel")
	ErrTooManyChannels = errors.New("too many channels")
	ErrTooManyJoins    = errors.New("too many joins")
	ErrChannelFull     = errors.New("the channel is full")
	ErrDataTooLarge    = errors.New("the member's data is too large")
	ErrNeedAuth        = errors.New("authentication needed")
	ErrDenied          = errors.New("invalid credentials")

	// ErrNotKept is returned for the history of a channel that keeps no events.
	ErrNotKept = errors.New("the channel keeps no events")
	// ErrKeptWhole is returned for an event that is kept and that could be omitted.
	ErrKeptWhole = errors.New("an event of a channel that keeps events cannot be Latest or Droppable")
)

// RefusedError is the error of a Join that the host, or the protocol, refuses with
// its own reason.
type RefusedError struct {
	Reason   string // for the client; "" is possible if NeedAuth is set
	Code     string // or ""
	NeedAuth bool   // the error is an ErrNeedAuth
	Err      error  // for the log, or nil
}

func (e *RefusedError) Error() string { return "refused: " + e.Reason }

func (e *RefusedError) Unwrap() error { return e.Err }

// Is makes errors.Is find ErrNeedAuth.
func (e *RefusedError) Is(target error) bool { return e.NeedAuth && target == ErrNeedAuth }

// UnavailableError is the error of a Join that cannot be decided or performed now.
type UnavailableError struct {
	Err error // nil if it has been logged
}

func (e *UnavailableError) Error() string {
	if e.Err == nil {
		return "temporarily unavailable"
	}
	return "temporarily unavailable: " + e.Err.Error()
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Close codes that a Hub sends.
const (
	CloseShutdown = session.CloseShutdown
	CloseAbuse    = 1008
	CloseRemoved  = 3500
	codeLost      = 1006 // never sent
)

// Policy has the properties of a channel. It is read when the channel is opened, and
// does not change until the channel is closed.
type Policy struct {
	// Private channels need an authorization, and the broker has their members.
	Private bool
	// Presence lets the members of a private channel see each other.
	Presence bool
	// PerUser shows the members of one user as one member.
	PerUser bool
	// ClientState lets clients set the state of their members.
	ClientState bool
	// ClientEvents lets the members of a private channel send events to each other.
	ClientEvents bool
	// Keep says how many of its events are kept.
	Keep broker.Keep
}

// Limits limit what one client can use. A limit that is not positive is off.
type Limits struct {
	Connections int
	PerNetwork  int // connections from one network
	Channels    int // of one connection
	Members     int // of a channel with presence that a client with PresenceList can join
	Paged       int // the same for clients with another PresenceMode
	Rate, Burst int // messages of one connection, a second and at once
	JoinRate    int // joins of one connection a second
	JoinBurst   int // joins at once
	EventRate   int // events that one connection sends to other clients, a second; twice that at once
}

// Hooks are called when something happens, with no lock held. Any can be nil.
type Hooks struct {
	Connect    func(c *Conn)
	Disconnect func(c *Conn, code int, reason string)
	// Subscribe and Unsubscribe are called for each membership. moved means that the member
	// has come from another node, or that another node has taken it over.
	Subscribe   func(c *Conn, ch *Channel, moved bool)
	Unsubscribe func(c *Conn, ch *Channel, moved bool)
	// Resume is called instead of Subscribe if c has taken over a member that was on this
	// node already. Then there was no Unsubscribe.
	Resume   func(c *Conn, ch *Channel, oldConnID string)
	Occupied func(ch *Channel)
	Vacated  func(ch *Channel)
	// Ended is called after Disconnect. It must not block.
	Ended func(e Ending)
	// Fault is called when a client has broken a rule of its transport.
	Fault func(c *Conn, code int)
}

// Config configures a Hub. All fields must be set, unless their comment says otherwise.
type Config struct {
	Node     string // a random id
	Broker   broker.Broker
	Lease    time.Duration // of the node's members, and how long members are held
	Settings map[string]string
	// Local means that the broker serves this node only and never blocks.
	Local bool
	// Linger is how long a channel stays open without members.
	Linger time.Duration
	// Timeout limits one call of a broker that is not local.
	Timeout  time.Duration
	Engine   *fanout.Engine
	Protocol Protocol
	// Policy returns the properties of a channel. An error refuses the request.
	Policy func(channel string) (Policy, error)
	// Authorize decides a Join. ErrNeedAuth, ErrDenied and a *RefusedError refuse it; an
	// *UnavailableError means that it cannot be decided.
	Authorize func(ctx context.Context, r AuthRequest) (Grant, error)
	Limits    Limits
	// Banned returns whether a user or, if channel is not "", nobody may be in a channel, and the
	// reason for the clients. It does not block, and can be nil.
	Banned func(user, channel string) (reason string, banned bool)
	// ReturnRate is how many clients may return a second after this node has lost its
	// connections. If it is not positive, clients are not told when to return.
	ReturnRate int
	// ReplayBytes is the largest size of the events that one client is sent when it
	// subscribes.
	ReplayBytes int
	// Keeps means that Policy can return a Keep. KeptBytes is the largest size of the data of
	// an event that is kept; if it is not positive, there is no limit.
	Keeps     bool
	KeptBytes int
	// MaxKept limits the memory for kept events, beside the broker's own.
	MaxKept int64
	// MemberKey returns the key with which a client of a user, see Hub.identity, can take over a
	// member.
	MemberKey      func(channel, member, user string) string
	MemberKeyValid func(channel, member, user, key string) bool
	// SignedUser returns the id of the user that presence data names, or "". It is nil if
	// nothing proves that the data is right.
	SignedUser func(data []byte) string
	// UserMemberID returns the id under which clients see a user in a channel with
	// Policy.PerUser. It must be the same on all nodes.
	UserMemberID func(channel, identity string) string
	// Digest returns a number for which it is hard to find data with the same number. It must
	// be the same on all nodes.
	Digest func(data []byte) uint64
	Hooks  Hooks
	// HostConn and HostChannel return the host's own values for a connection and a
	// channel, which are stored with them.
	HostConn    func(c *Conn) any
	HostChannel func(ch *Channel) any
	// Now is the clock, and the other funcs return new ids. Owner ids are secrets of
	// the nodes.
	Now         func() time.Time
	NewConnID   func() string
	NewMemberID func() string
	NewOwner    func() string
	Log         *slog.Logger
	Notices     *ratelog.Logger // for faults of clients, other nodes and the broker
}

const shardCount = 64

// shard is a part of the registry of channels.
type shard struct {
	mu       sync.RWMutex
	channels map[string]*Channel
}

// Hub is the core of one node. All methods are safe for concurrent use.
type Hub struct {
	cfg       Config
	admission *Admission
	seed      maphash.Seed
	shards    [shardCount]shard
	backlog   backlog
	absent    absences
	began     time.Time // when New was called
	issued    issued
	settled   atomic.Bool    // issued is not used any more
	history   broker.History // nil if the broker keeps no events
	keeper    keeper
	wheel     wheel
	reserves  sync.Map // *Reserved by channel, see Reserve
	observers observers
	listeners listeners
	heals     chan struct{}                            // has an element for each channel that is being healed
	patience  atomic.Int64                             // a time.Duration, see SetPatience
	watched   atomic.Pointer[map[*Conn]func(Decision)] // nil unless a connection is watched
	foreign   atomic.Pointer[[]Foreign]                // nil if there are no other protocols

	window  atomic.Int64  // the time.Duration that clients were last sent, see windowIs
	growing chan struct{} // has an element while clients are sent a window, so that the last one is the longest

	published atomic.Uint64 // events that the broker accepted
	counts    counts
	leavers   atomic.Int64    // goroutines that log leaves, in addition to the readers
	tasks     lifecycle.Tasks // readers, transitions of channels, and the funcs of Go
	serving   lifecycle.Tasks // what a client waits for; Shutdown closes it after the last connection
	publishes lifecycle.Tasks // calls of Publish that are in progress

	ctx    context.Context // ends after all connections have ended; broker calls use it
	cancel context.CancelFunc

	stopping context.Context // ends when Shutdown begins
	stop     context.CancelFunc

	closed   context.Context // ends when Close is called, so that Shutdown stops waiting
	closeNow context.CancelFunc

	aborting  context.Context // ends when the remaining connections are closed without a close frame
	abortRest context.CancelFunc

	ended    chan struct{} // closed after both errors are set
	endErr   error         // the result of Shutdown
	closeErr error         // the error of the broker's Close, which is part of endErr
}

var _ broker.Sink = (*Hub)(nil)

// New returns a Hub and opens its broker. If New fails, the caller must close the
// broker.
func New(cfg Config) (*Hub, error) {
	h := &Hub{
		cfg:       cfg,
		admission: newAdmission(cfg.Limits),
		seed:      maphash.MakeSeed(),
		began:     time.Now(),
		counts:    newCounts(),
		growing:   make(chan struct{}, 1),
		ended:     make(chan struct{}),
	}
	for i := range h.shards {
		h.shards[i].channels = map[string]*Channel{}
	}
	h.backlog.hub = h
	h.wheel.hub = h
	h.history, _ = cfg.Broker.(broker.History)
	h.heals = make(chan struct{}, maxHeals)
	h.stopping, h.stop = context.WithCancel(context.Background())
	h.aborting, h.abortRest = context.WithCancel(context.Background())
	h.closed, h.closeNow = context.WithCancel(context.Background())
	h.ctx, h.cancel = context.WithCancel(context.Background())
	ctx, cancel := h.operation(h.ctx)
	defer cancel()
	options := broker.OpenOptions{
		Node:     cfg.Node,
		Lease:    cfg.Lease,
		Settings: cfg.Settings,
	}
	if err := cfg.Broker.Open(ctx, options, h); err != nil {
		h.cancel()
		return nil, err
	}
	return h, nil
}

// Admission returns the Admission, in which places for connections are reserved.
func (h *Hub) Admission() *Admission { return h.admission }

// Conn returns the connection with that id, or nil if it is not on this node or
// its Connect hook has not returned.
func (h *Hub) Conn(id string) *Conn {
	c := h.admission.find(id)
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.greeted {
		return nil
	}
	return c
}

// Conns returns the connections whose Connect hook has returned, in no order.
func (h *Hub) Conns() []*Conn {
	all := h.admission.all()
	greeted := all[:0]
	for _, c := range all {
		c.mu.Lock()
		if c.greeted {
			greeted = append(greeted, c)
		}
		c.mu.Unlock()
	}
	return greeted
}

// Published returns the number of events of this node that the broker accepted.
func (h *Hub) Published() uint64 { return h.published.Load() }

// Away returns why the broker cannot be reached, or nil.
func (h *Hub) Away() error {
	if health, ok := h.cfg.Broker.(broker.Health); ok {
		return health.Away()
	}
	return nil
}

// Wants reports whether this node needs the entries of a channel: whether the channel
// is open or being opened here.
func (h *Hub) Wants(channel string) bool { return h.find(channel) != nil || h.reserved(channel) != nil }

// PolicyOf returns the policy of a channel; if it is open, the one it was opened with.
func (h *Hub) PolicyOf(channel string) (Policy, error) {
	if ch := h.find(channel); ch != nil {
		return ch.policy, nil
	}
	return h.cfg.Policy(channel)
}

func (h *Hub) shard(channel string) *shard {
	return &h.shards[maphash.String(h.seed, channel)%shardCount]
}

func (h *Hub) find(channel string) *Channel {
	s := h.shard(channel)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.channels[channel]
}

// Lookup returns a channel that has members on this node, or nil.
func (h *Hub) Lookup(channel string) *Channel {
	ch := h.find(channel)
	if ch == nil || !ch.inUse() {
		return nil
	}
	return ch
}

// Channels returns all channels in any state, in no order. Those without members are
// being opened or closed.
func (h *Hub) Channels() []*Channel {
	var all []*Channel
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.RLock()
		for _, ch := range s.channels {
			all = append(all, ch)
		}
		s.mu.RUnlock()
	}
	return all
}

// acquire returns the channel of that name, opens it if necessary, and keeps it open until
// its lifetime is released. It waits for the broker until ctx ends.
func (h *Hub) acquire(ctx context.Context, name string, policy Policy) (*Channel, error) {
	for {
		ch := h.entry(name, policy)
		held, err := ch.life.acquire(ctx)
		if held || err != nil {
			return ch, err
		}
		h.drop(ch)
	}
}

func (h *Hub) entry(name string, policy Policy) *Channel {
	if ch := h.find(name); ch != nil {
		return ch
	}
	s := h.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ch := s.channels[name]; ch != nil {
		return ch
	}
	ch := &Channel{
		hub:    h,
		name:   name,
		policy: policy,
	}
	ch.history = h.newHistory(policy.Keep)
	if policy.Private {
		ch.replica = newReplica(ch)
		ch.watching = &watching{}
	}
	ch.host = h.cfg.HostChannel(ch)
	ch.life = newLifetime(lifetimePlan{
		open:   ch.open,
		close:  ch.close,
		gone:   func() { h.drop(ch) },
		linger: h.cfg.Linger,
		run:    h.background,
	})
	s.channels[name] = ch
	return ch
}

// drop removes a closed channel from the registry.
func (h *Hub) drop(ch *Channel) {
	s := h.shard(ch.name)
	s.mu.Lock()
	if s.channels[ch.name] == ch {
		delete(s.channels, ch.name)
	}
	s.mu.Unlock()
}

// Go calls run in a goroutine that Shutdown waits for. The ctx of run ends when
// Shutdown begins. Go returns false if Shutdown has begun.
func (h *Hub) Go(run func(ctx context.Context)) bool {
	if !h.tasks.Start() {
		return false
	}
	go func() {
		defer h.tasks.End()
		run(h.stopping)
	}()
	return true
}

// operation limits the time of a call of the broker.
func (h *Hub) operation(ctx context.Context) (context.Context, context.CancelFunc) {
	if h.cfg.Local {
		return ctx, func() {} // a local broker does not block, so no timer is needed
	}
	return context.WithTimeout(ctx, h.cfg.Timeout)
}

// background runs a channel's transition. It runs at once if the broker is local, which
// cannot block, or if Shutdown does not wait for goroutines any more. Otherwise it runs in
// a goroutine that Shutdown waits for.
func (h *Hub) background(transition func()) {
	if h.cfg.Local || !h.tasks.Start() {
		transition()
		return
	}
	go func() {
		defer h.tasks.End()
		transition()
	}()
}

func wrap(what string, err error) error { return fmt.Errorf("%s: %w", what, err) }
