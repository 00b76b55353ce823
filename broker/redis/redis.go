package redis

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
	"github.com/gopushy/pushy/internal/guard"
	"github.com/gopushy/pushy/internal/ratelog"
)

// Broker is a node's connection to Redis. It implements all interfaces of package
// broker. Its methods are safe for concurrent use.
type Broker struct {
	opts    Options // checked by Open
	log     *slog.Logger
	notices *ratelog.Logger // for messages that can be frequent

	// Set by Open.
	node     string
	lease    time.Duration // of OpenOptions
	settings map[string]string
	sink     broker.Sink
	shards   []*shard
	opened   atomic.Bool

	extended atomic.Int64 // the lease that Extend has set, or 0; a time.Duration

	ctx    context.Context // until Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	compared brokerkit.Settings

	connecting sync.Mutex           // held while a link is created
	link       atomic.Pointer[link] // nil until the first connection

	mu     sync.Mutex
	begun  bool  // Open was called
	reason error // why the shard that was disconnected last has no connection
	down   int   // shards without a connection
	// logged is set if the current outage, or the start, has been logged, and loggedAt is
	// the time of that line. So a connection that is lost again and again does not fill
	// the log.
	logged   bool
	loggedAt time.Time
}

var (
	_ broker.Broker  = (*Broker)(nil)
	_ broker.History = (*Broker)(nil)
	_ broker.Ledger  = (*Broker)(nil)
	_ broker.Health  = (*Broker)(nil)
	_ broker.Cluster = (*Broker)(nil)
	_ broker.Leaser  = (*Broker)(nil)

	_ broker.IDForgetter = (*Broker)(nil)
)

// clusterShards is the number of hash slots over which the channels of a Cluster are
// distributed. It must be equal on all nodes. Each slot needs one connection of a node.
const clusterShards = 16

// New returns a Broker that is not open yet. Open checks the Options.
func New(o Options) *Broker {
	b := &Broker{opts: o}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// Open implements broker.Broker. It makes the first attempt to connect, which takes at most
// twice Options.Timeout. The error is a *SettingError if an option is invalid or Redis does
// not accept it: a wrong password, certificate or permission, or TLS on one side only. The
// error wraps broker.ErrVersion if nodes of another format use the same Prefix. With
// RequireAtStart, Open also returns an error if Redis is away.
func (b *Broker) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	if o.Node == "" || o.Lease <= 0 || sink == nil {
		return errors.New("redis: open: a node id, a positive lease and a sink are required")
	}
	b.mu.Lock()
	again := b.begun
	b.begun = true
	b.mu.Unlock()
	if again || b.ctx.Err() != nil {
		return wrapped("open", broker.ErrClosed)
	}
	checked, err := b.opts.withDefaults()
	if err != nil {
		return err
	}
	b.opts = checked
	b.log = checked.Logger
	b.notices = ratelog.New(checked.Logger)
	b.node = o.Node
	b.lease = o.Lease
	b.settings = o.Settings
	b.sink = sink
	if !checked.Cluster {
		b.shards = []*shard{newShard(b, "{"+checked.Prefix+"}")}
	}
	for i := 0; checked.Cluster && i < clusterShards; i++ {
		b.shards = append(b.shards, newShard(b, "{"+checked.Prefix+":"+strconv.Itoa(i)+"}"))
	}
	b.down = len(b.shards)
	b.reason = errors.New("not connected yet")
	b.logged = true
	if err := b.start(ctx); err != nil {
		b.stop(ctx)
		return err
	}
	b.opened.Store(true)
	return nil
}

// start makes the first attempt to connect. The shards make all later ones.
func (b *Broker) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*b.opts.Timeout)
	defer cancel()
	connected := make(chan error, 1)
	b.tasks.Go(func() {
		_, err := b.connect(ctx)
		connected <- err
	})
	var err error
	select {
	case err = <-connected:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if isSetting(err) || err != nil && b.opts.RequireAtStart {
		return err
	}
	if err != nil {
		b.logAway(err)
		b.mu.Lock()
		b.reason = err
		b.mu.Unlock()
	}
	for _, sh := range b.shards {
		b.tasks.Go(sh.run)
		b.tasks.Go(sh.resetLoop)
	}
	if err != nil {
		return nil
	}
	for _, sh := range b.shards {
		select {
		case <-sh.joined:
		case err := <-sh.refused:
			return err
		case <-ctx.Done():
			away := b.Away()
			if away == nil || b.opts.RequireAtStart {
				return away
			}
			b.logAway(away)
			return nil
		}
	}
	return nil
}

// logAway logs that the node begins without Redis.
func (b *Broker) logAway(err error) {
	b.log.Warn("redis is away: this node serves its own clients alone until it connects", "error", err)
}

// Close implements broker.Broker. It removes the node from Nodes, which takes at most
// Options.Timeout, and closes the connections. The other nodes remove the remaining members of
// this node when its lease expires.
func (b *Broker) Close(ctx context.Context) error {
	if !b.opened.Swap(false) {
		return broker.ErrClosed
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.stop(ctx)
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Broker) stop(ctx context.Context) {
	for _, sh := range b.shards {
		sh.endFollows()
	}
	k, away := b.shards[0].live()
	b.cancel()
	b.tasks.Wait() // afterwards, nothing renews the lease
	if away == nil {
		b.leaveNodes(ctx, k)
	}
	if k := b.link.Load(); k != nil {
		k.close()
	}
}

// usable returns broker.ErrClosed if the Broker is not open, or the error of ctx.
func (b *Broker) usable(ctx context.Context) error {
	if !b.opened.Load() {
		return broker.ErrClosed
	}
	return ctx.Err()
}

// shard returns the shard of a channel.
func (b *Broker) shard(channel string) *shard {
	if len(b.shards) == 1 {
		return b.shards[0]
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(channel))
	return b.shards[h.Sum32()%uint32(len(b.shards))]
}

// outageInterval is the minimum time between two log lines about outages.
const outageInterval = time.Minute

// shardDown records that a shard could not connect, or, if wasUp is set, that it was
// disconnected. The first shard that is disconnected is logged.
func (b *Broker) shardDown(err error, wasUp bool) {
	b.mu.Lock()
	if wasUp && b.down == 0 {
		b.logged = false
	}
	if wasUp {
		b.down++
	}
	b.reason = err
	write := !b.logged && time.Since(b.loggedAt) > outageInterval
	if write {
		b.logged = true
		b.loggedAt = time.Now()
	}
	b.mu.Unlock()
	switch {
	case b.ctx.Err() != nil:
	case isSetting(err):
		b.warn("this node serves its own clients alone until a setting is corrected", "", err)
	case write:
		b.log.Warn("redis is away: this node serves its own clients alone until it reconnects", "error", err)
	}
}

// shardUp records that a shard has connected. The last one that connects is logged.
func (b *Broker) shardUp(k *link) {
	b.mu.Lock()
	b.down--
	write := b.down == 0 && b.logged
	b.mu.Unlock()
	if write {
		b.log.Info("redis is connected", "addresses", b.opts.Addresses, "sharded", k.sharded)
	}
}

// Away implements broker.Health. A *SettingError means that Redis refuses this node.
func (b *Broker) Away() error {
	b.mu.Lock()
	down := b.down
	b.mu.Unlock()
	if down == 0 {
		return nil
	}
	return b.awayError()
}

// awayError returns why the shard that was disconnected last has no connection.
func (b *Broker) awayError() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return away("away", b.reason)
}

// Nodes implements broker.Cluster.
func (b *Broker) Nodes(ctx context.Context) ([]string, error) {
	if err := b.usable(ctx); err != nil {
		return nil, err
	}
	sh := b.shards[0]
	k, err := sh.live()
	if err != nil {
		return nil, err
	}
	list, err := sh.exec(ctx, k, k, nodesScript, "").AsStrSlice()
	if err != nil {
		return nil, sh.failed(ctx, "nodes", err)
	}
	slices.Sort(list)
	return list, nil
}

// leaveNodes removes the node from Nodes.
func (b *Broker) leaveNodes(ctx context.Context, k *link) {
	err := b.shards[0].exec(ctx, k, k, closeScript, "").Error()
	if err != nil {
		b.log.Warn("redis: this node remains in the list of nodes until its lease expires", "error", err)
	}
}

// compareSettings logs one warning for each option that differs between this node and
// another. It returns the number of warnings.
func (b *Broker) compareSettings(others map[string]string) (warnings int) {
	for node, text := range others {
		var theirs map[string]string
		if err := json.Unmarshal([]byte(text), &theirs); err != nil || node == b.node {
			continue // this node's own, or not written by pushy
		}
		warnings += b.compared.Compare(b.log, b.settings, theirs)
	}
	return warnings
}

// warn logs a warning that can be frequent: one line a minute for each kind and subject.
func (b *Broker) warn(kind, subject string, err error) {
	if b.ctx.Err() != nil {
		return
	}
	attrs := []slog.Attr{slog.Any("error", err), guard.Stack(err)}
	if subject != "" {
		attrs = append(attrs, slog.String("subject", subject))
	}
	b.notices.Warn("redis: "+kind, subject, attrs...)
}

// guarded runs a step of a background goroutine. A panic is logged and returned as an
// error, so that the goroutine continues.
func (b *Broker) guarded(what string, run func() error) error {
	err := guard.Call(run)
	var panicked *guard.PanicError
	if errors.As(err, &panicked) {
		b.warn("a background task panicked", what, err)
	}
	return err
}

// bounded returns a context for one command, which ends after Options.Timeout.
func (b *Broker) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.opts.Timeout)
}
