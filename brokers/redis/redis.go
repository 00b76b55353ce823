// Package redis lets pushy Servers on several machines act as one, over a Redis
// that is there already: version 6 or newer, stand-alone, with Sentinel, or a
// Cluster.
//
//	shared, err := redis.New(ctx, redis.Options{Addresses: []string{"127.0.0.1:6379"}})
//	if err != nil {
//		log.Fatal(err)
//	}
//	srv, err := pushy.New(pushy.Options{SecretKey: key, Broker: shared}) // and its PresenceStore
//
// Events go by Pub/Sub, sharded where the server is a Cluster of version 7 or
// newer: one subscription for each channel that has members on this node, one
// message for each event. Presence is one hash for each private channel, changed
// by scripts that log every change on the channel's subscription. Every node
// renews a lease; if a node dies, the other nodes remove its members when the lease
// expires.
//
// # When Redis is away
//
// A node that loses its connection continues alone: clients can subscribe, and events
// published on it reach its own members. When Redis is available again, all channels of
// the node get pushy:resync and their current members, and the members of these channels
// on other nodes get pushy:resync if events were published here in the meantime. While
// the connection exists, a command that fails or takes longer than Options.Timeout is an
// error, and a trigger answers 503.
//
// A server that has become a replica, is loading its data, or runs a script for so long
// that it answers BUSY, counts as away: the node reconnects until it finds a primary that
// answers. It therefore follows a failover behind one address that always leads to the
// primary.
//
// # What Redis must be like
//
// Memory: presence takes about 300 bytes and its data for each member. Events take
// none. Set maxmemory-policy to noeviction: a policy that evicts keys can remove members
// from lists until the next change of their channel. When the memory is used up, joins of
// private channels fail and everything else continues.
//
// Fields and messages that pushy did not write are skipped, with one log line a minute.
//
// # Permissions
//
// These commands make a user for pushy with the default Prefix, on Redis 6.2 or newer.
// Since Redis 7 a new user may not use any channel unless it is granted:
//
//	ACL SETUSER pushy on >password ~{pushy* &{pushy*
//	ACL SETUSER pushy +hello +auth +ping +client|setname +select +role +info
//	ACL SETUSER pushy +subscribe +unsubscribe +publish +evalsha +eval
//	ACL SETUSER pushy +hget +hset +hdel +hexists +hlen +hkeys +hgetall +hincrby
//	ACL SETUSER pushy +exists +del +set +pexpire +sadd +srem +smembers +time
//
// With Cluster it needs these, too, the second line on Redis 7 or newer:
//
//	ACL SETUSER pushy +cluster +asking +readonly
//	ACL SETUSER pushy +ssubscribe +sunsubscribe +spublish
//
// Redis 6.0 has no permissions for channels: leave out the part that begins with "&".
// If a permission is missing, New returns a *SettingError that names the command.
// Without ROLE and INFO, which a Cluster requires, a replica is noticed only when it
// refuses a write.
//
// After an upgrade of a Cluster from version 6 to 7, restart all pushy nodes together:
// they choose the kind of Pub/Sub when they start.
package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/guard"
	"github.com/gopushy/pushy/internal/ratelog"
)

// Broker is a node's connection to Redis, both its pushy.Broker and its
// pushy.PresenceStore.
type Broker struct {
	opts    Options
	log     *slog.Logger
	notices *ratelog.Logger // what may happen again and again
	node    string          // its name in leases
	lanes   []*lane

	ctx    context.Context // until Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	// Held for reading by deliveries that do not come from Redis.
	alone  sync.RWMutex
	closed bool

	closing  sync.Once
	closeErr error

	connecting sync.Mutex           // held by the one who makes the link
	link       atomic.Pointer[link] // nil until the first connection

	mu       sync.RWMutex
	receiver func(channel string, m pushy.Message) // Open's, nil before
	away     error                                 // why the last lane that went down did
	down     int                                   // lanes without a connection
	// said is set when the log has a line of the outage, or of the start, and saidAt
	// when it last got one: connections that come and go must not fill it.
	said   bool
	saidAt time.Time
}

var (
	_ pushy.Broker        = (*Broker)(nil)
	_ pushy.PresenceStore = (*Broker)(nil)
)

// lanesOfCluster is how many hash slots a Cluster spreads the channels over: all
// nodes must agree on it. A connection for each is what that costs a node.
const lanesOfCluster = 16

// refreshInterval is how often the Sentinels are asked who the master is, for the
// case that their word of a change was missed.
const refreshInterval = 5 * time.Second

// New connects to Redis. ctx bounds the first attempt, which takes no longer than
// twice Options.Timeout. The error is a *SettingError for Options that are wrong, or
// that Redis does not accept: a wrong password, certificate or permission, or TLS on
// one side only. With RequireAtStart it also says that Redis is away, or a replica.
func New(ctx context.Context, o Options) (*Broker, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &Broker{
		opts:    o,
		log:     o.Logger,
		notices: ratelog.New(o.Logger),
		node:    randomName(),
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	n := 1
	if o.Cluster {
		n = lanesOfCluster
	}
	b.down, b.away, b.said = n, errors.New("not connected yet"), true
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

// start makes the first attempt and leaves the rest to the lanes.
func (b *Broker) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*b.opts.Timeout)
	defer cancel()
	_, err := b.connect(ctx)
	if isSetting(err) || err != nil && b.opts.RequireAtStart {
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
		case err := <-l.refused:
			return err
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

// outageInterval is how often an outage may be logged.
const outageInterval = time.Minute

// laneDown and laneUp keep count, and log when the first goes and the last comes.
func (b *Broker) laneDown(err error, was bool) {
	b.mu.Lock()
	if was && b.down == 0 {
		b.said = false
	}
	if was {
		b.down++
	}
	b.away = err
	say := !b.said && time.Since(b.saidAt) > outageInterval
	if say {
		b.said, b.saidAt = true, time.Now()
	}
	b.mu.Unlock()
	switch {
	case b.ctx.Err() != nil:
	case isSetting(err):
		b.complain("this node serves its own clients alone until a setting is right", "", err)
	case say:
		b.log.Warn("redis is away: this node serves its own clients alone until it is back", "error", err)
	}
}

func (b *Broker) laneUp(k *link) {
	b.mu.Lock()
	b.down--
	say := b.down == 0 && b.said
	b.mu.Unlock()
	if say {
		b.log.Info("redis is connected", "addresses", b.opts.Addresses, "sharded", k.sharded)
	}
}

// Away returns why this node is alone, or nil: Redis cannot be reached, or refuses
// this node, which is a *SettingError.
func (b *Broker) Away() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.down == 0 {
		return nil
	}
	if isSetting(b.away) {
		return b.away
	}
	return fmt.Errorf("redis: away: %w", b.away)
}

// complain logs what may happen again and again: one line a minute for each kind and
// subject.
func (b *Broker) complain(kind, subject string, err error) {
	if b.ctx.Err() != nil {
		return
	}
	attrs := []slog.Attr{slog.Any("error", err), guard.Stack(err)}
	if subject != "" {
		attrs = append(attrs, slog.String("subject", subject))
	}
	b.notices.Warn("redis: "+kind, subject, attrs...)
}

// guarded runs what a goroutine of the Broker does: a panic is logged and becomes an
// error, and the goroutine goes on.
func (b *Broker) guarded(what string, run func() error) error {
	err := guard.Call(run)
	var panicked *guard.PanicError
	if errors.As(err, &panicked) {
		b.complain("a background task panicked", what, err)
	}
	return err
}

// Close ends the connection. The members of this node are logged as left. A second Close does nothing, so a Server may be given one Broker for
// both.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		b.alone.Lock()
		b.closed = true
		b.alone.Unlock()
		b.cancel()
		b.tasks.Wait()
		k := b.link.Load()
		if k == nil {
			return
		}
		b.closeErr = b.farewell(k)
		k.close()
	})
	return b.closeErr
}

// bounded is a context for one command of the Broker's own.
func (b *Broker) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.opts.Timeout)
}
