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
	notices *ratelog.Logger // of what may happen again and again

	// Set by Open.
	node     string
	lease    time.Duration
	settings map[string]string
	sink     broker.Sink
	lanes    []*lane
	opened   atomic.Bool

	ctx    context.Context // until Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	compared brokerkit.Settings

	connecting sync.Mutex           // held while the link is made
	link       atomic.Pointer[link] // nil until the first connection

	mu     sync.Mutex
	begun  bool  // Open was called
	reason error // why the last lane that went down did
	down   int   // lanes without a connection
	// said is set when the log has a line of the outage, or of the start, and saidAt
	// when it last got one: connections that come and go must not fill it.
	said   bool
	saidAt time.Time
}

var (
	_ broker.Broker  = (*Broker)(nil)
	_ broker.History = (*Broker)(nil)
	_ broker.Ledger  = (*Broker)(nil)
	_ broker.Health  = (*Broker)(nil)
	_ broker.Cluster = (*Broker)(nil)
)

// lanesOfCluster is how many hash slots a Cluster spreads the channels over: all
// nodes must agree on it. Each costs a node a connection.
const lanesOfCluster = 16

// New returns a Broker that is not open yet. Open checks the Options.
func New(o Options) *Broker {
	b := &Broker{opts: o}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// Open implements broker.Broker. It makes the first attempt to connect, which takes
// no longer than twice Options.Timeout. The error is a *SettingError for Options that
// are wrong, or that Redis does not accept: a wrong password, certificate or
// permission, or TLS on one side only; it wraps broker.ErrVersion if nodes of another
// format are there. With RequireAtStart Open also fails if Redis is away.
func (b *Broker) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	if o.Node == "" || o.Lease <= 0 || sink == nil {
		return errors.New("redis: open: a node id, a positive lease and a sink are needed")
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
	b.opts, b.log, b.notices = checked, checked.Logger, ratelog.New(checked.Logger)
	b.node, b.lease, b.settings, b.sink = o.Node, o.Lease, o.Settings, sink
	if !checked.Cluster {
		b.lanes = []*lane{newLane(b, "{"+checked.Prefix+"}")}
	}
	for i := 0; checked.Cluster && i < lanesOfCluster; i++ {
		b.lanes = append(b.lanes, newLane(b, "{"+checked.Prefix+":"+strconv.Itoa(i)+"}"))
	}
	b.down, b.reason, b.said = len(b.lanes), errors.New("not connected yet"), true
	if err := b.start(ctx); err != nil {
		b.stop()
		return err
	}
	b.opened.Store(true)
	return nil
}

// start makes the first attempt and leaves the rest to the lanes.
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
		b.log.Warn("redis is away: this node serves its own clients alone until it can be reached", "error", err)
		b.mu.Lock()
		b.reason = err
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
				return b.Away()
			}
			return nil
		}
	}
	return nil
}

// Close implements broker.Broker. It ends the connections without a word to the other
// nodes: the members that are left leave when the lease expires.
func (b *Broker) Close(ctx context.Context) error {
	if !b.opened.Swap(false) {
		return broker.ErrClosed
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.stop()
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Broker) stop() {
	for _, l := range b.lanes {
		l.endFollows()
	}
	b.cancel()
	b.tasks.Wait()
	if k := b.link.Load(); k != nil {
		k.close()
	}
}

// usable returns why nothing can be asked of the Broker now, or nil.
func (b *Broker) usable(ctx context.Context) error {
	if !b.opened.Load() {
		return broker.ErrClosed
	}
	return ctx.Err()
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

// laneDown and laneUp count, and log when the first goes and the last comes.
func (b *Broker) laneDown(err error, was bool) {
	b.mu.Lock()
	if was && b.down == 0 {
		b.said = false
	}
	if was {
		b.down++
	}
	b.reason = err
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

// Away implements broker.Health. A *SettingError says that Redis refuses this node.
func (b *Broker) Away() error {
	b.mu.Lock()
	down := b.down
	b.mu.Unlock()
	if down == 0 {
		return nil
	}
	return b.awayError()
}

// awayError says why the last lane that went down did.
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
	l := b.lanes[0]
	k, err := l.live()
	if err != nil {
		return nil, err
	}
	list, err := l.exec(ctx, k, k, nodesScript, "").AsStrSlice()
	if err != nil {
		return nil, l.failed(ctx, "nodes", err)
	}
	slices.Sort(list)
	return list, nil
}

// compareSettings logs one warning for each option that this node and another have
// differently.
func (b *Broker) compareSettings(others map[string]string) (warnings int) {
	for node, text := range others {
		var theirs map[string]string
		if err := json.Unmarshal([]byte(text), &theirs); err != nil || node == b.node {
			continue // another life of this node's, or not pushy's
		}
		warnings += b.compared.Compare(b.log, b.settings, theirs)
	}
	return warnings
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

// bounded is a context for one command.
func (b *Broker) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.opts.Timeout)
}
