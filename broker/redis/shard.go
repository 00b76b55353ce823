package redis

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy/broker"
)

// A shard is the part of the channels whose names hash to one of Redis's slots: their keys,
// and one connection for their subscriptions. Without a Cluster there is one shard.
type shard struct {
	b      *Broker
	prefix string // the hash tag
	tag    string // prefix of all keys and channels: the hash tag and the format version
	names  string // prefix of the names that pushy's channels have in Redis

	joined     chan struct{} // closed when it is up for the first time
	joinedOnce sync.Once
	refused    chan error    // buffered: the *SettingError that prevents the first connection
	wake       chan struct{} // buffered: wakes resetLoop

	moved  atomic.Bool // the Cluster has moved the slot
	heard  atomic.Bool // the last message of checkHearing has arrived
	deafAt time.Time   // when errDeaf last ended a session; only run uses it
	due    atomic.Bool // a Reset of a channel is due

	// Guarded by mu, which is locked before the mu of a follow.
	mu      sync.Mutex
	up      bool
	since   time.Time          // when it connected
	store   storeID            // as the last renewal returned it
	follows map[string]*follow // by channel
	ops     []op               // to be sent, in order; only while linked
	opsC    chan struct{}      // buffered: ops is not empty
	linked  bool               // connected, so that ops can be queued
	// ownUnsubscribes counts the UNSUBSCRIBE commands of this node that have no reply yet,
	// by Redis's name of the channel. Any other unsubscription means that the slot moves.
	ownUnsubscribes map[string]int
}

const (
	minPause = 50 * time.Millisecond // before the next attempt to connect
	maxPause = time.Second
	batch    = 500 // commands that are sent at once
	// roleInterval is how often a connection with subscriptions is checked: the role of its
	// server, and whether messages arrive on it.
	roleInterval = 5 * time.Second
	// deafPause is the shortest time between two connections that end because no messages
	// arrive, each of which causes Resets.
	deafPause = time.Minute
)

func newShard(b *Broker, prefix string) *shard {
	tag := prefix + strconv.Itoa(broker.FormatVersion) + ":"
	return &shard{
		b:               b,
		prefix:          prefix,
		tag:             tag,
		names:           tag + "c:",
		joined:          make(chan struct{}),
		refused:         make(chan error, 1),
		wake:            make(chan struct{}, 1),
		follows:         map[string]*follow{},
		opsC:            make(chan struct{}, 1),
		ownUnsubscribes: map[string]int{},
	}
}

// storeKey is the key that all scripts are called with. versionsKey has the format versions
// in use; its name is the same in all of them.
func (sh *shard) storeKey() string    { return sh.tag + "store" }
func (sh *shard) versionsKey() string { return sh.prefix + "versions" }

// name returns the name that a channel of pushy has in Redis. probe is the name of one that
// tests the permission to subscribe, and whether messages arrive.
func (sh *shard) name(channel string) string { return sh.names + channel }
func (sh *shard) probe() string              { return sh.tag + "probe" }

// run keeps the shard connected until Close.
func (sh *shard) run() {
	pause := minPause
	for sh.b.ctx.Err() == nil {
		wasUp := false
		err := sh.b.guarded("session", func() error {
			return sh.session(func() {
				wasUp = true
				pause = minPause
			})
		})
		sh.b.shardDown(err, wasUp)
		if isSetting(err) {
			select {
			case sh.refused <- err:
			default:
			}
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-sh.b.ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, maxPause)
	}
}

// session makes one connection and serves it until it ends. It calls up when the connection
// can be used.
func (sh *shard) session(up func()) error {
	ctx, cancel := context.WithTimeout(sh.b.ctx, 3*sh.b.opts.Timeout)
	defer cancel()
	k, err := sh.b.connect(ctx)
	if err != nil {
		return err
	}
	conn, lost, err := sh.dial(ctx, k)
	if err != nil {
		return sh.b.opts.explain(err)
	}
	defer func() {
		conn.Close()
		for range lost { // after it is closed, no message is delivered
		}
	}()
	defer sh.unlink()
	if err := sh.samePrimary(k, conn); err != nil {
		return err
	}
	// A Join needs the lease, and subscribing to many channels can take longer than it lasts.
	reason, release, err := sh.holdLease(k)
	if err != nil {
		return sh.b.opts.explain(err)
	}
	defer release()
	if err := sh.subscribeAll(sh.b.ctx, k, conn); err != nil {
		return err
	}
	up()
	sh.goLive(k, reason)
	check := time.NewTicker(roleInterval)
	defer check.Stop()
	for {
		select {
		case err := <-lost:
			if sh.moved.Swap(false) {
				err = errMoved
			}
			if err == nil {
				err = errLost
			}
			return err
		case <-k.ended:
			return sh.b.opts.explain(k.reason)
		case <-sh.opsC:
			if err := sh.send(sh.b.ctx, k, conn, false); err != nil {
				return err
			}
		case <-check.C:
			if err := sh.samePrimary(k, conn); err != nil {
				return err
			}
			if err := sh.checkHearing(k, conn); err != nil {
				return err
			}
		case <-sh.b.ctx.Done():
			return broker.ErrClosed
		}
	}
}

// samePrimary ends the link if the server of its subscriptions or of its commands has become
// a replica, or if these are two different servers, which can happen behind one address.
func (sh *shard) samePrimary(k *link, conn doer) error {
	ctx, cancel := sh.b.bounded(sh.b.ctx)
	defer cancel()
	subscribedAt, err := sh.b.checkRole(ctx, conn)
	if err == nil {
		var commands string
		commands, err = sh.b.checkRole(ctx, k)
		if err == nil && subscribedAt != commands {
			err = errOther
		}
	}
	if isRole(err) || err == errOther {
		k.end(err)
		return sh.b.opts.explain(err)
	}
	return nil // a broken connection is detected elsewhere
}

// checkHearing publishes a message to this node. It returns errDeaf if the message does not
// arrive before the reply to a later command on the same connection.
func (sh *shard) checkHearing(k *link, conn doer) error {
	if sh.b.opts.Cluster && !k.sharded {
		return nil // the message comes from another server than the reply
	}
	if !sh.deafAt.IsZero() && time.Since(sh.deafAt) < deafPause {
		return nil
	}
	ctx, cancel := sh.b.bounded(sh.b.ctx)
	defer cancel()
	publish := k.B().Publish().Channel(sh.probe()).Message(sh.b.node).Build()
	if k.sharded {
		publish = k.B().Spublish().Channel(sh.probe()).Message(sh.b.node).Build()
	}
	sh.heard.Store(false)
	if k.Do(ctx, publish).Error() != nil || conn.Do(ctx, conn.B().Ping().Build()).Error() != nil {
		return nil // a broken connection is detected elsewhere
	}
	if !sh.heard.Load() {
		sh.deafAt = time.Now()
		return errDeaf
	}
	return nil
}

// dial opens a connection for the slot of this shard. lost is closed when it has ended.
func (sh *shard) dial(ctx context.Context, k *link) (conn rueidis.DedicatedClient, lost <-chan error, err error) {
	from := k.side
	if sh.b.opts.Cluster && !k.sharded {
		for _, node := range from.Nodes() { // without sharded Pub/Sub, all nodes receive all messages
			from = node
			break
		}
	}
	conn, _ = from.Dedicate()
	lost = conn.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: func(m rueidis.PubSubMessage) {
			if m.Channel == sh.probe() {
				if m.Message == sh.b.node {
					sh.heard.Store(true)
				}
				return
			}
			_ = sh.b.guarded("message", func() error {
				sh.message(m.Channel, m.Message)
				return nil
			})
		},
		OnSubscription: func(s rueidis.PubSubSubscription) {
			switch s.Kind {
			case "subscribe", "ssubscribe":
				sh.listening(s.Channel)
			case "unsubscribe", "sunsubscribe":
				if sh.isUnexpectedUnsubscribe(s.Channel) {
					sh.moved.Store(true)
					go conn.Close() // run connects to the node that has the slot now
				}
			}
		},
	})
	// In a Cluster, the first command makes the connection. The UNSUBSCRIBE, of a channel
	// without subscriptions, only tests the permission.
	unused := sh.tag + "unused"
	sh.mu.Lock()
	sh.ownUnsubscribes[unused]++
	sh.mu.Unlock()
	for _, o := range []op{{name: sh.probe()}, {name: unused, off: true}} {
		err := conn.Do(ctx, command(k, conn, o)).Error()
		if err == nil {
			continue
		}
		conn.Close()
		for range lost {
		}
		sh.b.noteError(k, o.verb(k)+" "+sh.tag+"*", err)
		return nil, nil, err
	}
	return conn, lost, nil
}

// goLive marks the shard as connected. Every channel gets a Reset with the reason.
func (sh *shard) goLive(k *link, reason string) {
	sh.mu.Lock()
	sh.up = true
	sh.since = time.Now()
	sh.resetAllLocked(reason)
	sh.mu.Unlock()
	sh.b.shardUp(k)
	sh.joinedOnce.Do(func() { close(sh.joined) })
}

// unlink marks the shard as disconnected.
func (sh *shard) unlink() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.up = false
	sh.linked = false
	for _, o := range sh.ops {
		o.done <- errLost
	}
	sh.ops = nil
	clear(sh.ownUnsubscribes)
	for _, f := range sh.follows {
		f.cutOff()
	}
}

// live returns the link if the shard is up, and otherwise an error that wraps ErrAway.
func (sh *shard) live() (*link, error) {
	sh.mu.Lock()
	up := sh.up
	sh.mu.Unlock()
	if !up {
		return nil, sh.b.awayError()
	}
	return sh.b.link.Load(), nil
}

// endFollows ends all deliveries of the shard.
func (sh *shard) endFollows() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, f := range sh.follows {
		f.end()
	}
}
