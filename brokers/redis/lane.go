package redis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy"
)

// A lane is the channels whose names hash to one of Redis's slots: their keys, and
// one connection for their subscriptions. A server that is no Cluster has one.
type lane struct {
	b   *Broker
	tag string // what all its keys and channels begin with

	joined     chan struct{} // closed when it is up for the first time
	joinedOnce sync.Once
	refused    chan error    // has room for one: a setting that keeps it from that
	wake       chan struct{} // for keep

	left   bool         // it was up when the Broker closed
	moved  atomic.Bool  // the Cluster has moved the slot
	leased atomic.Int64 // when the lease was renewed last, in Unix milliseconds

	mu     sync.Mutex
	up     bool
	since  time.Time        // that it is up
	subs   map[string]*sub  // what is wanted, by Redis's name
	rooms  map[string]*room // by channel
	ops    []op             // to be sent, in order; only while connected
	opsC   chan struct{}    // there are some
	linked bool             // connected: ops are taken
	// unsubs counts our own UNSUBSCRIBEs under way, by Redis's name: any other is a
	// slot that moves.
	unsubs map[string]int
	missed map[string]bool // channels published to while alone
	many   bool            // too many to name
}

// sub is one subscription in Redis.
type sub struct {
	channel   string
	events    bool // the Broker's
	watched   bool // the PresenceStore's
	confirmed bool
}

const (
	firstPause = 50 * time.Millisecond // before connecting again
	lastPause  = time.Second
	batch      = 500 // commands sent at once
	// roleInterval is how often a connection with subscriptions asks for its server's role.
	roleInterval = 5 * time.Second
	// maxMissed is how many channels a lane remembers by name while it is alone.
	maxMissed = 1000
)

func newLane(b *Broker, tag string) *lane {
	return &lane{
		b:       b,
		tag:     tag,
		joined:  make(chan struct{}),
		refused: make(chan error, 1),
		wake:    make(chan struct{}, 1),
		subs:    map[string]*sub{},
		rooms:   map[string]*room{},
		opsC:    make(chan struct{}, 1),
		unsubs:  map[string]int{},
		missed:  map[string]bool{},
	}
}

// name is a channel's in Redis. The lane's own, which tells of all its channels, is
// the tag: no channel has an empty name.
func (l *lane) name(channel string) string { return l.tag + channel }

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
	release, err := l.holdLease(k) // before anybody joins, and while all channels are subscribed
	if err != nil {
		return err
	}
	defer release()
	if err := l.subscribeAll(l.b.ctx, k, conn); err != nil {
		return err
	}
	up()
	l.goLive(k)
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
			if err := l.stillPrimary(k, conn); err != nil {
				return err
			}
		case <-l.b.ctx.Done():
			return errClosed
		}
	}
}

// stillPrimary ends the link when its subscriptions or its commands are at a server
// that has become a replica: behind one address each may be at another one.
func (l *lane) stillPrimary(k *link, conn rueidis.DedicatedClient) error {
	if l.b.opts.Cluster {
		return nil // moved slots end a subscription there
	}
	ctx, cancel := l.b.bounded(l.b.ctx)
	defer cancel()
	for _, c := range []doer{conn, k} {
		if err := l.b.checkRole(ctx, c); isRole(err) {
			k.end(err)
			return l.b.opts.explain(err)
		}
	}
	return nil // a connection that is broken says so itself
}

// dial opens a connection for this lane's slot; lost is closed when it has ended.
func (l *lane) dial(ctx context.Context, k *link) (conn rueidis.DedicatedClient, lost <-chan error, err error) {
	var from rueidis.Client = k
	if l.b.opts.Cluster && !k.sharded {
		for _, node := range k.Nodes() { // plain messages reach all of them
			from = node
			break
		}
	}
	conn, _ = from.Dedicate()
	lost = conn.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: func(m rueidis.PubSubMessage) {
			_ = l.b.guarded("message", func() error {
				l.message(m)
				return nil
			})
		},
		OnSubscription: func(s rueidis.PubSubSubscription) {
			if (s.Kind == "unsubscribe" || s.Kind == "sunsubscribe") && l.foreign(s.Channel) {
				l.moved.Store(true)
				go conn.Close() // begin anew where the slot is now
			}
		},
	})
	// A Cluster's connection is made by its first command. Nobody is subscribed to the
	// other channel: that it is permitted to end a subscription is tried here, too.
	unused := l.name("try:")
	l.mu.Lock()
	l.unsubs[unused]++
	l.mu.Unlock()
	for _, o := range []op{{name: l.tag}, {name: unused, off: true}} {
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
	if !l.b.opts.Cluster {
		if err := l.b.checkRole(ctx, conn); err != nil { // another server than k's, maybe
			conn.Close()
			for range lost {
			}
			if isRole(err) {
				k.end(err)
			}
			return nil, nil, err
		}
	}
	return conn, lost, nil
}

func command(k *link, conn rueidis.DedicatedClient, o op) rueidis.Completed {
	switch {
	case k.sharded && o.off:
		return conn.B().Sunsubscribe().Channel(o.name).Build()
	case k.sharded:
		return conn.B().Ssubscribe().Channel(o.name).Build()
	case o.off:
		return conn.B().Unsubscribe().Channel(o.name).Build()
	default:
		return conn.B().Subscribe().Channel(o.name).Build()
	}
}

// foreign reports whether an unsubscription is not of our making.
func (l *lane) foreign(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unsubs[name] > 0 {
		if l.unsubs[name]--; l.unsubs[name] == 0 {
			delete(l.unsubs, name)
		}
		return false
	}
	return true
}

func isMoved(err error) bool {
	if said, ok := rueidis.IsRedisErr(err); ok {
		_, moved := said.IsMoved()
		_, asked := said.IsAsk()
		return moved || asked || said.IsClusterDown()
	}
	return false
}

// goLive is the moment from which the node is not alone.
func (l *lane) goLive(k *link) {
	l.mu.Lock()
	l.up, l.since = true, time.Now()
	resync := l.subscribedLocked()
	missed, many := l.missed, l.many
	l.missed, l.many = map[string]bool{}, false
	for _, r := range l.rooms {
		r.lose()
	}
	l.mu.Unlock()
	l.b.laneUp(k)
	l.joinedOnce.Do(func() { close(l.joined) })
	l.rouse()
	for _, channel := range resync {
		l.b.deliver(channel, resyncMessage)
	}
	if many {
		missed = map[string]bool{"": true}
	}
	told := resyncMessage
	told.Node = l.b.node
	for channel := range missed {
		if _, err := l.publish(l.b.ctx, k, channel, told); err != nil {
			l.b.complain("other nodes could not be notified of missed events", "", err)
		}
	}
}

var resyncMessage = pushy.Message{Event: pushy.EventResync, Data: []byte("{}")}

// subscribedLocked returns the Broker's channels.
func (l *lane) subscribedLocked() (channels []string) {
	for _, s := range l.subs {
		if s.events {
			channels = append(channels, s.channel)
		}
	}
	return channels
}

// unlink is the moment from which the node is alone.
func (l *lane) unlink() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = l.up && l.b.ctx.Err() != nil
	l.up, l.linked = false, false
	for _, o := range l.ops {
		o.done <- nil
	}
	l.ops = nil
	clear(l.unsubs)
	for _, s := range l.subs {
		s.confirmed = false
	}
}

// message takes what came. It is called for one at a time.
func (l *lane) message(m rueidis.PubSubMessage) {
	if m.Channel == l.tag { // resyncMessage, for all channels
		l.resyncAll(m.Message)
		return
	}
	l.mu.Lock()
	s := l.subs[m.Channel]
	if s == nil {
		l.mu.Unlock()
		return
	}
	channel, events, r := s.channel, s.events, l.rooms[s.channel]
	l.mu.Unlock()
	var err error
	switch {
	case m.Message == "":
		err = errFormat
	case m.Message[0] == kindEvent:
		if !events {
			return
		}
		var message pushy.Message
		message, err = decode(m.Message)
		if err == nil && (message.Event != pushy.EventResync || message.Node != l.b.node) { // goLive has delivered that
			l.b.deliver(channel, message)
		}
	case m.Message[0] == kindPresence:
		if r != nil {
			err = r.changed(m.Message)
		}
	default:
		err = errFormat
	}
	if err != nil {
		l.b.complain("skipped a message that pushy did not send", "", fmt.Errorf("channel %q: %w", channel, err))
	}
}

// resyncAll takes a message for all channels.
func (l *lane) resyncAll(text string) {
	message, err := decode(text)
	if err != nil || message.Event != pushy.EventResync {
		l.b.complain("skipped a message that pushy did not send", "", fmt.Errorf("channel %q: %w", l.tag, errFormat))
		return
	}
	if message.Node == l.b.node {
		return // goLive has delivered it
	}
	l.mu.Lock()
	resync := l.subscribedLocked()
	l.mu.Unlock()
	for _, channel := range resync {
		l.b.deliver(channel, resyncMessage)
	}
}

// rouse has keep look around now.
func (l *lane) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// isUp reports whether the node is not alone with this lane's channels.
func (l *lane) isUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

// live returns the link if the lane is up.
func (l *lane) live() (*link, error) {
	if !l.isUp() {
		return nil, errAlone
	}
	return l.b.link.Load(), nil
}
