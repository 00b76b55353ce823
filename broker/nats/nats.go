package nats

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

// Broker is a node's connection to NATS. It implements all interfaces of package
// broker. Its methods are safe for concurrent use.
type Broker struct {
	options Options

	// Set by Open.
	o            settings
	node         string
	lease        time.Duration // of OpenOptions
	settings     map[string]string
	sink         broker.Sink
	subjects     subjects
	nc           *natsgo.Conn
	js           jetstream.JetStream
	denials      *denials
	seed         maphash.Seed
	workers      []*worker
	noResponders answers
	flushes      *coalescer[struct{}] // confirm that the server has received what was sent
	lastStored   *coalescer[uint64]   // return the last sequence of the members' stream

	done     chan struct{}
	wake     chan struct{} // buffered: wakes reconnectLoop
	tasks    sync.WaitGroup
	ownLease ownLease
	joining  atomic.Bool // join runs

	replica atomic.Pointer[replica] // nil until NATS can be used
	streams atomic.Pointer[streams] // nil until NATS can be used
	classes classes
	logs    logs

	mu        sync.Mutex
	state     state
	reason    error           // why NATS is away; nil if it is not
	begun     bool            // Open is going to succeed
	logged    bool            // the current outage was logged
	ctx       context.Context // ends when NATS is away
	cancel    context.CancelCauseFunc
	following map[string]*followed
	compared  brokerkit.Settings
}

type state uint8

const (
	fresh state = iota // not opened yet
	opened
	closed
)

var (
	_ broker.Broker  = (*Broker)(nil)
	_ broker.History = (*Broker)(nil)
	_ broker.Ledger  = (*Broker)(nil)
	_ broker.Health  = (*Broker)(nil)
	_ broker.Cluster = (*Broker)(nil)
	_ broker.Leaser  = (*Broker)(nil)
)

var errNotConnected = errors.New("nats: not connected")

// maxWorkers is the maximum number of goroutines that deliver. There is one for each
// processor.
const maxWorkers = 8

// New returns a Broker that is not open yet. Open checks the Options.
func New(o Options) *Broker {
	return &Broker{
		options:   o,
		seed:      maphash.MakeSeed(),
		done:      make(chan struct{}),
		wake:      make(chan struct{}, 1),
		following: map[string]*followed{},
		reason:    errNotConnected,
	}
}

// Open implements broker.Broker. It makes the first attempt to connect, in which each server
// of Options.URL has Options.Timeout to answer. The error is a *SettingError if an option is
// invalid or NATS does not accept it: a wrong user, certificate or permission, or no
// JetStream. The error wraps broker.ErrVersion if nodes of another format use the same
// Prefix. With RequireAtStart, Open also returns an error if NATS is away.
func (b *Broker) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	switch {
	case o.Node == "" || o.Lease <= 0 || sink == nil:
		return errors.New("nats: open: a node id, a positive lease and a sink are required")
	case o.Lease > maxLease:
		return fmt.Errorf("nats: open: a lease of %v is over the limit of %v", o.Lease, maxLease)
	case len(o.Settings) > maxSettings:
		return fmt.Errorf("nats: open: %d settings are over the limit of %d", len(o.Settings), maxSettings)
	}
	checked, err := b.options.withDefaults()
	if err != nil {
		return err
	}
	b.mu.Lock()
	if b.state != fresh {
		b.mu.Unlock()
		return fmt.Errorf("nats: open: %w", broker.ErrClosed)
	}
	b.state = opened
	b.mu.Unlock()
	b.o = checked
	b.node = o.Node
	b.lease = o.Lease
	b.ownLease.length = o.Lease
	b.settings = maps.Clone(o.Settings)
	b.sink = sink
	b.subjects = newSubjects(checked.Prefix)
	b.denials = newDenials(checked)
	b.renewLink()
	if err := b.start(ctx); err != nil {
		_ = b.Close(ctx)
		return err
	}
	return nil
}

// start connects and starts the background goroutines.
func (b *Broker) start(ctx context.Context) (err error) {
	b.nc, err = b.o.connect(ctx, b.o.Prefix, callbacks{
		up:         func(*natsgo.Conn) { b.wakeReconnect() },
		down:       b.down,
		asyncError: b.asyncError,
	})
	if err != nil {
		return err
	}
	if b.js, err = jetstream.New(b.nc); err != nil {
		return err
	}
	for range min(runtime.GOMAXPROCS(0), maxWorkers) {
		l := &worker{
			b:    b,
			in:   make(chan *natsgo.Msg, queueSize),
			subs: map[*natsgo.Subscription]*followed{},
		}
		b.workers = append(b.workers, l)
		b.tasks.Go(l.run)
	}
	if b.flushes, err = b.newFlushes(); err != nil {
		return err
	}
	b.lastStored = newCoalescer(b, func() (uint64, error) {
		info, err := b.info(context.Background(), b.subjects.stream+"members")
		if err != nil {
			return 0, err
		}
		return info.State.LastSeq, nil
	})
	err = errNotConnected
	if b.nc.IsConnected() {
		var setting *SettingError
		err = b.join(ctx)
		if errors.As(err, &setting) {
			return err
		}
	}
	if err != nil && b.o.RequireAtStart {
		return err
	}
	// Until it has joined, a node is away: it has no replica of the members. The callback
	// that says why the connection was lost may not have run yet.
	if err != nil && b.Away() == nil {
		b.markAway(b.link(), err)
	}
	b.begin()
	b.tasks.Go(b.reconnectLoop)
	b.tasks.Go(b.heartbeatLoop)
	b.tasks.Go(b.watch)
	return nil
}

// begin logs that NATS is away, if it is. Before, nothing is logged, because Open can still return an error.
func (b *Broker) begin() {
	b.mu.Lock()
	b.begun = true
	away := b.reason
	b.logged = away != nil
	b.mu.Unlock()
	b.logAway(away)
}

// logAway logs an outage; away can be nil.
func (b *Broker) logAway(away error) {
	if away != nil {
		b.o.Logger.Warn("NATS is away; this node serves its own clients alone", "error", away)
	}
}

// down records that the connection was lost.
func (b *Broker) down(err error) { b.markAway(b.link(), err) }

// asyncError handles an error that nats.go reports.
func (b *Broker) asyncError(sub *natsgo.Subscription, err error) {
	if sub != nil && errors.Is(err, natsgo.ErrSlowConsumer) {
		return // the worker detects it
	}
	a, denied := b.denials.note(err)
	switch {
	case denied && !a.publishes && b.ready(context.Background()) == nil && b.denies(a.subject):
		// A permission was withdrawn, which has ended a subscription.
		b.markAway(b.link(), b.denials.explain(a))
	case !denied:
		b.o.notices.Warn("NATS reports an error", err.Error(), slog.Any("error", err))
	}
}

// link returns a context that ends when NATS is away.
func (b *Broker) link() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ctx
}

func (b *Broker) renewLink() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil {
		b.cancel(nil)
	}
	b.ctx, b.cancel = context.WithCancelCause(context.Background())
	return b.ctx
}

// markAway records why NATS cannot be used any more, unless the link that failed has been
// replaced in the meantime.
func (b *Broker) markAway(link context.Context, err error) {
	b.mu.Lock()
	if b.state != opened || link != b.ctx {
		b.mu.Unlock()
		return
	}
	first := b.begun && !b.logged
	b.reason = err
	b.logged = b.begun
	b.cancel(err)
	b.mu.Unlock()
	if first {
		b.logAway(err)
	}
	b.wakeReconnect()
}

// markBack records that NATS can be used, unless link has ended. It returns the channels that
// are followed now: Follow itself opens those that are followed later.
func (b *Broker) markBack(link context.Context) (following []*followed, ok bool) {
	b.mu.Lock()
	if link != b.ctx || link.Err() != nil {
		b.mu.Unlock()
		return nil, false
	}
	back := b.logged
	b.reason = nil
	b.logged = false
	following = slices.Collect(maps.Values(b.following))
	b.mu.Unlock()
	if back {
		b.o.Logger.Info("NATS is back")
	}
	return following, true
}

// wakeReconnect wakes reconnectLoop.
func (b *Broker) wakeReconnect() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

const (
	minRetry = 100 * time.Millisecond
	maxRetry = 2 * time.Second
)

// reconnectLoop makes the node use NATS again after NATS has been away.
func (b *Broker) reconnectLoop() {
	wait := minRetry
	for {
		select {
		case <-b.done:
			return
		case <-b.wake:
		}
		if b.Away() == nil || !b.nc.IsConnected() {
			continue // when it is connected, its callback wakes the loop
		}
		err := b.join(context.Background())
		if err == nil {
			wait = minRetry
			continue
		}
		b.markAway(b.link(), err)
		b.o.notices.Warn("NATS is connected, but cannot be used", "", slog.Any("error", err))
		select {
		case <-b.done:
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, maxRetry)
		b.wakeReconnect()
	}
}

// ready returns an error if the Broker is not open, ctx has ended, or NATS is away.
func (b *Broker) ready(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.readyLocked(ctx)
}

func (b *Broker) readyLocked(ctx context.Context) error {
	switch {
	case b.state != opened:
		return broker.ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("nats: %w", context.Cause(ctx))
	case b.reason != nil:
		return fmt.Errorf("%w: %w", broker.ErrAway, b.reason)
	}
	return nil
}

func (b *Broker) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state != opened
}

// Away implements broker.Health.
func (b *Broker) Away() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != opened {
		return nil
	}
	return b.reason
}

// Append implements broker.Broker.
func (b *Broker) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if err := b.ready(ctx); err != nil {
		return broker.Appended{}, err
	}
	var a broker.Appended
	var err error
	if e.ID != "" {
		a, err = b.appendOnce(ctx, channel, e)
	} else {
		a, err = b.appendEntry(ctx, channel, e)
	}
	if errors.Is(err, broker.ErrAway) {
		err = fmt.Errorf("%w: %w", err, broker.ErrUncertain) // the connection was lost during the call
	}
	return a, err
}

func (b *Broker) appendEntry(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	switch {
	case e.Kind > broker.Event && e.Kind <= broker.Adopt:
		return b.appendMember(ctx, channel, e)
	case e.Kind != broker.Event:
		return broker.Appended{}, fmt.Errorf("nats: append: unknown kind %d", e.Kind)
	case e.Keep.Size > 0:
		at, err := b.appendKept(ctx, channel, e)
		return broker.Appended{At: at}, err
	}
	return b.publish(ctx, channel, e)
}

// Close implements broker.Broker. It removes the node from Nodes, which takes at most
// Options.Timeout, and closes the connection.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	if b.state != opened {
		b.mu.Unlock()
		return broker.ErrClosed
	}
	b.state = closed
	joined := b.reason == nil
	b.cancel(broker.ErrClosed)
	following := slices.Collect(maps.Values(b.following))
	clear(b.following)
	b.mu.Unlock()
	close(b.done)
	for _, f := range following {
		f.end() // waits until a call of the sink has returned
	}
	if r := b.replica.Load(); r != nil {
		r.stop()
	}
	if joined {
		if err := b.sayGoodbye(ctx); err != nil {
			b.o.Logger.Warn("NATS: this node remains in the list of nodes until its lease expires", "error", err)
		}
	}
	if b.nc != nil {
		b.nc.Close()
	}
	b.tasks.Wait()
	return nil
}

// spawn runs f in a goroutine that Close waits for, unless the node is closed.
func (b *Broker) spawn(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == opened {
		b.tasks.Go(f)
	}
}
