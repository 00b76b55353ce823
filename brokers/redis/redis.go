// Package redis lets pushy Servers on several machines act as one, over a Redis
// that is there already: version 6 or newer, stand-alone, with Sentinel, or a
// Cluster.
//
//	shared, err := redis.New(ctx, redis.Options{Addresses: []string{"127.0.0.1:6379"}})
//	if err != nil {
//		log.Fatal(err)
//	}
//	srv, err := pushy.New(pushy.Options{SecretKey: key, Broker: shared, Presence: shared})
//
// Events go by Pub/Sub, sharded where the server is a Cluster of version 7 or
// newer: one subscription for each channel that has members on this node, one
// message for each event. Presence is one hash for each private channel, changed
// by scripts that log every change on the channel's subscription. Every node
// renews a lease; the members of one that died are logged as left by the others.
//
// # When Redis is away
//
// A node that loses its connection goes on alone: clients may subscribe, and what
// is published on it reaches its own members. When Redis is there again all its
// channels get pushy:resync and their presence anew, and channels that others
// have members in get pushy:resync for what was published here meanwhile. While
// the connection stands a command that fails, or takes over Options.Timeout, is
// an error: a trigger answers 503.
//
// # What Redis must be like
//
// Memory: presence takes some 300 bytes and its data for each member. Events take
// none. With a maxmemory policy that evicts keys members may vanish from lists until
// the next change of their channel; let it be noeviction. When memory is used up
// joins of private channels fail, all else goes on.
//
// An ACL's user needs the keys and channels that begin with "{" and Options.Prefix,
// Pub/Sub, scripts with their commands for hashes, sets, keys and texts, and INFO;
// in a Cluster CLUSTER too.
//
// After an upgrade of a Cluster from version 6 to 7 restart all pushy nodes
// together: the new kind of Pub/Sub is used from their start on.
package redis

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy"
)

// Options say where Redis is and how it is used. A zero field means its default.
type Options struct {
	// Addresses are host:port of the server, of the Sentinels, or of some nodes
	// of the Cluster. Default "127.0.0.1:6379".
	Addresses []string
	// Cluster says that Addresses are nodes of a Redis Cluster.
	Cluster bool
	// SentinelMaster is the name under which Sentinel knows the master, and says
	// that Addresses are Sentinels.
	SentinelMaster string

	Username string // default: Redis's user "default"
	Password string
	// SentinelUsername and SentinelPassword are for the Sentinels themselves.
	SentinelUsername string
	SentinelPassword string
	Database         int // not with Cluster
	TLS              *tls.Config

	// Prefix begins all keys and channels in Redis. Servers act as one if they
	// use one Prefix, and know nothing of each other if not. It has none of
	// "{}". Default "pushy".
	Prefix string
	// RequireAtStart makes New return an error when Redis cannot be reached. By
	// default the node begins alone, and joins when it can.
	RequireAtStart bool
	// Timeout is how long a command, a new connection, or Redis's answer to a
	// sign of life may take. Default 3 s.
	Timeout time.Duration
	// Lease is how long a node may be silent before its members count as gone;
	// all Servers that act as one should have the same. At least 1 s, default 15 s.
	Lease time.Duration
	// Logger is told when Redis goes away and comes back. Default slog.Default().
	Logger *slog.Logger

	plain bool // tests: no sharded Pub/Sub
}

// A SettingError says which of the Options is wrong.
type SettingError struct {
	Setting string // the field's name
	Err     error
}

func (e *SettingError) Error() string { return "redis: Options." + e.Setting + ": " + e.Err.Error() }
func (e *SettingError) Unwrap() error { return e.Err }

// Broker is a node's connection to Redis, both its pushy.Broker and its
// pushy.PresenceStore.
type Broker struct {
	opts  Options
	log   *slog.Logger
	node  string // its name in leases
	lanes []*lane

	ctx    context.Context // until Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	// Held for reading by deliveries that do not come from Redis.
	alone  sync.RWMutex
	closed bool

	closing  sync.Once
	closeErr error

	connecting sync.Mutex // held by the one who makes the client

	mu       sync.RWMutex
	receiver func(channel string, m pushy.Message) // Open's, nil before
	client   rueidis.Client                        // nil until the first connection
	sharded  bool
	counts   bool  // PUBLISH says how many subscribers there are, wherever they are
	away     error // why the last lane that went down did
	down     int   // lanes without a connection
}

var (
	_ pushy.Broker        = (*Broker)(nil)
	_ pushy.PresenceStore = (*Broker)(nil)
)

var (
	errClosed = errors.New("redis: broker closed")
	errLost   = errors.New("connection lost")
	errMoved  = errors.New("the Cluster has moved the channels")
)

// lanesOfCluster is how many hash slots a Cluster spreads the channels over: all
// nodes must agree on it. A connection for each is what that costs a node.
const lanesOfCluster = 16

// refreshInterval is how often the Sentinels are asked who the master is, for the
// case that their word of a change was missed.
const refreshInterval = 5 * time.Second

// New connects to Redis. ctx bounds the first attempt, which takes no longer than
// twice Options.Timeout. The error is a *SettingError for Options that are wrong, or
// that Redis does not accept, and says that Redis is away with RequireAtStart.
func New(ctx context.Context, o Options) (*Broker, error) {
	if len(o.Addresses) == 0 {
		o.Addresses = []string{"127.0.0.1:6379"}
	}
	if o.Prefix == "" {
		o.Prefix = "pushy"
	}
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Lease == 0 {
		o.Lease = 15 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	b := &Broker{opts: o, log: o.Logger, node: randomName()}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	n := 1
	if o.Cluster {
		n = lanesOfCluster
	}
	b.down, b.away = n, errors.New("not connected yet")
	for i := range n {
		tag := "{" + o.Prefix + "}"
		if o.Cluster {
			tag = "{" + o.Prefix + ":" + strconv.Itoa(i) + "}"
		}
		b.lanes = append(b.lanes, newLane(b, tag))
	}
	if err := b.start(ctx); err != nil {
		_ = b.Close()
		return nil, err
	}
	return b, nil
}

func randomName() string {
	var name [8]byte
	_, _ = rand.Read(name[:])
	return hex.EncodeToString(name[:])
}

func (o *Options) check() error {
	wrong := func(setting, format string, args ...any) error {
		return &SettingError{setting, fmt.Errorf(format, args...)}
	}
	for _, a := range o.Addresses {
		if host, port, ok := cutPort(a); !ok || host == "" || port == "" {
			return wrong("Addresses", "%q is not host:port", a)
		}
	}
	switch {
	case strings.ContainsAny(o.Prefix, "{}"):
		return wrong("Prefix", "%q has a brace", o.Prefix)
	case o.Cluster && o.SentinelMaster != "":
		return wrong("Cluster", "a Cluster has no Sentinels: set it or SentinelMaster")
	case o.Cluster && o.Database != 0:
		return wrong("Database", "a Cluster has only database 0")
	case o.Database < 0:
		return wrong("Database", "%d is negative", o.Database)
	case !o.Cluster && o.SentinelMaster == "" && len(o.Addresses) > 1:
		return wrong("Addresses", "%d of them, but neither Cluster nor SentinelMaster is set", len(o.Addresses))
	case o.Timeout < 0:
		return wrong("Timeout", "%v is negative", o.Timeout)
	case o.Lease < time.Second:
		return wrong("Lease", "%v is under 1s", o.Lease)
	}
	return nil
}

func cutPort(address string) (host, port string, ok bool) {
	i := strings.LastIndexByte(address, ':')
	if i < 0 {
		return "", "", false
	}
	return address[:i], address[i+1:], true
}

// start makes the first attempt and leaves the rest to the lanes.
func (b *Broker) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*b.opts.Timeout)
	defer cancel()
	_, err := b.connect(ctx)
	var wrong *SettingError
	if errors.As(err, &wrong) && !isAway(wrong) || err != nil && b.opts.RequireAtStart {
		return err
	}
	if err != nil {
		b.log.Warn("redis is away: this node serves its own clients alone until it can be reached", "error", err)
		b.mu.Lock()
		b.away = err
		b.mu.Unlock()
	}
	for _, l := range b.lanes {
		b.tasks.Go(l.run)
		b.tasks.Go(l.keep)
	}
	if err != nil {
		return nil
	}
	for _, l := range b.lanes {
		select {
		case <-l.joined:
		case <-ctx.Done():
			if b.opts.RequireAtStart {
				return fmt.Errorf("redis: subscribe: %w", b.Away())
			}
			return nil
		}
	}
	return nil
}

func (b *Broker) deliver(channel string, m pushy.Message) {
	b.mu.RLock()
	receiver := b.receiver
	b.mu.RUnlock()
	if receiver != nil {
		receiver(channel, m)
	}
}

// lane returns where a channel belongs.
func (b *Broker) lane(channel string) *lane {
	if len(b.lanes) == 1 {
		return b.lanes[0]
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(channel))
	return b.lanes[h.Sum32()%uint32(len(b.lanes))]
}

// laneDown and laneUp keep count, and log when the first goes and the last comes.
func (b *Broker) laneDown(err error, was bool) {
	b.mu.Lock()
	first := was && b.down == 0
	if was {
		b.down++
	}
	b.away = err
	b.mu.Unlock()
	if first && b.ctx.Err() == nil {
		b.log.Warn("redis is away: this node serves its own clients alone until it is back", "error", err)
	}
}

func (b *Broker) laneUp() {
	b.mu.Lock()
	b.down--
	all := b.down == 0
	b.mu.Unlock()
	if all {
		b.log.Info("redis is connected", "addresses", b.opts.Addresses, "sharded", b.sharded)
	}
}

// Away returns why Redis cannot be reached, or nil.
func (b *Broker) Away() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down == 0 {
		return nil
	}
	return fmt.Errorf("redis: away: %w", b.away)
}

// Close ends the connection. What members this node has in presence are logged as
// left. A second Close does nothing, so a Server may be given one Broker for
// both.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		b.alone.Lock()
		b.closed = true
		b.alone.Unlock()
		b.cancel()
		b.tasks.Wait()
		b.mu.Lock()
		client := b.client
		b.mu.Unlock()
		if client == nil {
			return
		}
		b.closeErr = b.farewell()
		client.Close()
	})
	return b.closeErr
}

// bounded is a context for one command of the Broker's own.
func (b *Broker) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.opts.Timeout)
}
