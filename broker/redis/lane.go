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

// A lane is the channels whose names hash to one of Redis's slots: their keys, and
// one connection for their subscriptions. A server that is no Cluster has one.
type lane struct {
	b      *Broker
	prefix string // the hash tag
	tag    string // what all keys and channels begin with: the hash tag and the version
	names  string // what Redis's names of our channels begin with

	joined     chan struct{} // closed when it is up for the first time
	joinedOnce sync.Once
	refused    chan error    // has room for one: a setting that keeps it from that
	wake       chan struct{} // for keep

	moved atomic.Bool // the Cluster has moved the slot
	due   atomic.Bool // a Reset of a channel is due

	// Under mu, which is taken before that of a follow.
	mu      sync.Mutex
	up      bool
	since   time.Time          // that it is up
	store   storeID            // as the last renewal found it
	follows map[string]*follow // by channel
	ops     []op               // to be sent, in order; only while linked
	opsC    chan struct{}      // there are some
	linked  bool               // connected: ops are taken
	// unsubs counts our own UNSUBSCRIBEs under way, by Redis's name: any other is a
	// slot that moves.
	unsubs map[string]int
}

const (
	firstPause = 50 * time.Millisecond // before connecting again
	lastPause  = time.Second
	batch      = 500 // commands sent at once
	// roleInterval is how often a connection with subscriptions asks for its
	// server's role.
	roleInterval = 5 * time.Second
)

func newLane(b *Broker, prefix string) *lane {
	tag := prefix + strconv.Itoa(broker.FormatVersion) + ":"
	return &lane{
		b:       b,
		prefix:  prefix,
		tag:     tag,
		names:   tag + "c:",
		joined:  make(chan struct{}),
		refused: make(chan error, 1),
		wake:    make(chan struct{}, 1),
		follows: map[string]*follow{},
		opsC:    make(chan struct{}, 1),
		unsubs:  map[string]int{},
	}
}

// Keys: that of the scripts, and that of the versions in use, which all versions know.
func (l *lane) storeKey() string    { return l.tag + "store" }
func (l *lane) versionsKey() string { return l.prefix + "versions" }

// Redis's names of channels: one of ours, and one that only proves that the node may
// subscribe.
func (l *lane) name(channel string) string { return l.names + channel }
func (l *lane) probe() string              { return l.tag + "probe" }

// run keeps the lane connected until Close.
func (l *lane) run() {
	pause := firstPause
	for l.b.ctx.Err() == nil {
		was := false
		err := l.b.guarded("session", func() error {
			return l.session(func() { was, pause = true, firstPause })
		})
		l.b.laneDown(err, was)
		if isSetting(err) {
			select {
			case l.refused <- err:
			default:
			}
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-l.b.ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, lastPause)
	}
}

// session is one connection, from first to last. up is called when it stands.
func (l *lane) session(up func()) error {
	ctx, cancel := context.WithTimeout(l.b.ctx, 3*l.b.opts.Timeout)
	defer cancel()
	k, err := l.b.connect(ctx)
	if err != nil {
		return err
	}
	conn, lost, err := l.dial(ctx, k)
	if err != nil {
		return l.b.opts.explain(err)
	}
	defer func() {
		conn.Close()
		for range lost { // after that no message comes
		}
	}()
	defer l.unlink()
	if err := l.samePrimary(k, conn); err != nil {
		return err
	}
	reason, release, err := l.holdLease(k) // before anybody joins, and while all channels are subscribed
	if err != nil {
		return l.b.opts.explain(err)
	}
	defer release()
	if err := l.subscribeAll(l.b.ctx, k, conn); err != nil {
		return err
	}
	up()
	l.goLive(k, reason)
	check := time.NewTicker(roleInterval)
	defer check.Stop()
	for {
		select {
		case err := <-lost:
			if l.moved.Swap(false) {
				err = errMoved
			}
			if err == nil {
				err = errLost
			}
			return err
		case <-k.ended:
			return l.b.opts.explain(k.reason)
		case <-l.opsC:
			if err := l.send(l.b.ctx, k, conn, false); err != nil {
				return err
			}
		case <-check.C:
			if err := l.samePrimary(k, conn); err != nil {
				return err
			}
		case <-l.b.ctx.Done():
			return broker.ErrClosed
		}
	}
}

// samePrimary ends the link when its subscriptions or its commands are at a server
// that has become a replica, or at two servers: behind one address that may happen.
func (l *lane) samePrimary(k *link, conn doer) error {
	ctx, cancel := l.b.bounded(l.b.ctx)
	defer cancel()
	hears, err := l.b.checkRole(ctx, conn)
	if err == nil {
		var commands string
		commands, err = l.b.checkRole(ctx, k)
		if err == nil && hears != commands {
			err = errOther
		}
	}
	if isRole(err) || err == errOther {
		k.end(err)
		return l.b.opts.explain(err)
	}
	return nil // a connection that is broken says so itself
}

// dial opens a connection for this lane's slot; lost is closed when it has ended.
func (l *lane) dial(ctx context.Context, k *link) (conn rueidis.DedicatedClient, lost <-chan error, err error) {
	from := k.side
	if l.b.opts.Cluster && !k.sharded {
		for _, node := range from.Nodes() { // plain messages reach all of them
			from = node
			break
		}
	}
	conn, _ = from.Dedicate()
	lost = conn.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: func(m rueidis.PubSubMessage) {
			_ = l.b.guarded("message", func() error {
				l.message(m.Channel, m.Message)
				return nil
			})
		},
		OnSubscription: func(s rueidis.PubSubSubscription) {
			switch s.Kind {
			case "subscribe", "ssubscribe":
				l.listening(s.Channel)
			case "unsubscribe", "sunsubscribe":
				if l.foreign(s.Channel) {
					l.moved.Store(true)
					go conn.Close() // begin anew where the slot is now
				}
			}
		},
	})
	// A Cluster's connection is made by its first command. Nobody is subscribed to the
	// other channel: that it is permitted to end a subscription is tried here, too.
	unused := l.tag + "unused"
	l.mu.Lock()
	l.unsubs[unused]++
	l.mu.Unlock()
	for _, o := range []op{{name: l.probe()}, {name: unused, off: true}} {
		err := conn.Do(ctx, command(k, conn, o)).Error()
		if err == nil {
			continue
		}
		conn.Close()
		for range lost {
		}
		l.b.judge(k, o.verb(k)+" "+l.tag+"*", err)
		return nil, nil, err
	}
	return conn, lost, nil
}

// goLive is the moment from which the node is not cut off. Every channel gets a Reset
// for the reason.
func (l *lane) goLive(k *link, reason string) {
	l.mu.Lock()
	l.up, l.since = true, time.Now()
	l.resetAllLocked(reason)
	l.mu.Unlock()
	l.b.laneUp(k)
	l.joinedOnce.Do(func() { close(l.joined) })
}

// unlink is the moment from which the node is cut off.
func (l *lane) unlink() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up, l.linked = false, false
	for _, o := range l.ops {
		o.done <- errLost
	}
	l.ops = nil
	clear(l.unsubs)
	for _, f := range l.follows {
		f.cutOff()
	}
}

// live returns the link if the lane is up, else an error that wraps ErrAway.
func (l *lane) live() (*link, error) {
	l.mu.Lock()
	up := l.up
	l.mu.Unlock()
	if !up {
		return nil, l.b.awayError()
	}
	return l.b.link.Load(), nil
}

// endFollows makes the lane deliver nothing any more.
func (l *lane) endFollows() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.follows {
		f.end()
	}
}
