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
	o        settings
	node     string
	lease    time.Duration
	settings map[string]string
	sink     broker.Sink
	subjects subjects
	nc       *natsgo.Conn
	js       jetstream.JetStream
	denials  *denials
	seed     maphash.Seed
	lanes    []*lane
	nobody   answers
	written  *rounds[struct{}] // confirms what was sent
	stored   *rounds[uint64]   // tells the last sequence of the members' stream

	done  chan struct{}
	wake  chan struct{} // holds one when there is something to mend
	tasks sync.WaitGroup
	key   key // this node's sign of life

	replica atomic.Pointer[replica] // nil until NATS can be used
	streams atomic.Pointer[streams] // nil until then, too
	classes classes
	logs    logs

	mu        sync.Mutex
	state     state
	reason    error           // why NATS is away; nil if it is not
	told      bool            // the log has it
	ctx       context.Context // ends when NATS goes away
	cancel    context.CancelCauseFunc
	following map[string]*followed
	compared  brokerkit.Settings
}

type state uint8

const (
	fresh state = iota
	opened
	closed
)

var (
	_ broker.Broker  = (*Broker)(nil)
	_ broker.History = (*Broker)(nil)
	_ broker.Ledger  = (*Broker)(nil)
	_ broker.Health  = (*Broker)(nil)
	_ broker.Cluster = (*Broker)(nil)
)

var errNotConnected = errors.New("nats: not connected")

// maxLanes bounds how many goroutines deliver: one for each processor, to this.
const maxLanes = 8

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

// Open implements broker.Broker. It makes the first attempt to connect, in which each
// server of Options.URL has Options.Timeout to answer. The error is a *SettingError for
// Options that are wrong, or that NATS does not accept: a wrong user, certificate or
// permission, no JetStream. It wraps broker.ErrVersion if nodes of another format are
// there. With RequireAtStart Open also fails if NATS is away.
func (b *Broker) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	switch {
	case o.Node == "" || o.Lease <= 0 || sink == nil:
		return errors.New("nats: open: a node id, a positive lease and a sink are needed")
	case o.Lease > maxLease:
		return fmt.Errorf("nats: open: a lease of %v is over %v", o.Lease, maxLease)
	case len(o.Settings) > maxSettings:
		return fmt.Errorf("nats: open: %d settings are over %d", len(o.Settings), maxSettings)
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
	b.o, b.node, b.lease, b.settings, b.sink = checked, o.Node, o.Lease, maps.Clone(o.Settings), sink
	b.subjects, b.denials = newSubjects(checked.Prefix), newDenials(checked)
	b.renewLink()
	if err := b.start(ctx); err != nil {
		_ = b.Close(ctx)
		return err
	}
	return nil
}

// start connects, and begins to deliver and to tend the connection.
func (b *Broker) start(ctx context.Context) (err error) {
	b.nc, err = b.o.connect(ctx, b.o.Prefix, callbacks{
		up:      func(*natsgo.Conn) { b.mend() },
		down:    b.down,
		trouble: b.trouble,
	})
	if err != nil {
		return err
	}
	if b.js, err = jetstream.New(b.nc); err != nil {
		return err
	}
	for range min(runtime.GOMAXPROCS(0), maxLanes) {
		l := &lane{
			b:    b,
			in:   make(chan *natsgo.Msg, laneSize),
			subs: map[*natsgo.Subscription]*followed{},
		}
		b.lanes = append(b.lanes, l)
		b.tasks.Go(l.run)
	}
	if b.written, err = b.newWritten(); err != nil {
		return err
	}
	b.stored = newRounds(b, func() (uint64, error) {
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
		b.goAway(b.link(), err)
	}
	b.tasks.Go(b.tend)
	b.tasks.Go(b.beat)
	b.tasks.Go(b.watch)
	return nil
}

// down takes note of a connection that was lost.
func (b *Broker) down(err error) { b.goAway(b.link(), err) }

// trouble takes what nats.go reports.
func (b *Broker) trouble(sub *natsgo.Subscription, err error) {
	if sub != nil && errors.Is(err, natsgo.ErrSlowConsumer) {
		return // the lane sees it
	}
	a, denied := b.denials.heard(err)
	switch {
	case denied && !a.publishes && b.ready(context.Background()) == nil && b.denies(a.subject):
		// A permission was withdrawn: what was subscribed is not any more.
		b.goAway(b.link(), b.denials.explain(a))
	case !denied:
		b.o.notices.Warn("NATS refuses something", err.Error(), slog.Any("error", err))
	}
}

// link returns a context that ends when NATS goes away.
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

// goAway notes why NATS cannot be used any more, unless the link that failed has been
// replaced meanwhile.
func (b *Broker) goAway(link context.Context, err error) {
	b.mu.Lock()
	if b.state != opened || link != b.ctx {
		b.mu.Unlock()
		return
	}
	first := !b.told
	b.reason, b.told = err, true
	b.cancel(err)
	b.mu.Unlock()
	if first {
		b.o.Logger.Warn("NATS is away; this node serves its own clients alone", "error", err)
	}
	b.mend()
}

// comeBack notes that NATS can be used, unless it has gone away since link was made. It
// returns the channels that were followed until now: what is followed from now on is
// opened by Follow.
func (b *Broker) comeBack(link context.Context) (following []*followed, ok bool) {
	b.mu.Lock()
	if link != b.ctx || link.Err() != nil {
		b.mu.Unlock()
		return nil, false
	}
	back := b.told
	b.reason, b.told = nil, false
	following = slices.Collect(maps.Values(b.following))
	b.mu.Unlock()
	if back {
		b.o.Logger.Info("NATS is back")
	}
	return following, true
}

// mend wakes tend.
func (b *Broker) mend() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
)

// tend brings the node back whenever NATS has been away.
func (b *Broker) tend() {
	wait := retryFirst
	for {
		select {
		case <-b.done:
			return
		case <-b.wake:
		}
		if b.Away() == nil || !b.nc.IsConnected() {
			continue // the connection's callback wakes it
		}
		err := b.join(context.Background())
		if err == nil {
			wait = retryFirst
			continue
		}
		b.goAway(b.link(), err)
		b.o.notices.Warn("NATS is connected and cannot be used", "", slog.Any("error", err))
		select {
		case <-b.done:
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMost)
		b.mend()
	}
}

// ready returns why the node cannot do anything now, or nil.
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
		err = fmt.Errorf("%w: %w", err, broker.ErrUncertain) // it was not away before
	}
	return a, err
}

func (b *Broker) appendEntry(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	switch {
	case e.Kind > broker.Event && e.Kind <= broker.Adopt:
		return b.appendMember(ctx, channel, e)
	case e.Kind != broker.Event:
		return broker.Appended{}, fmt.Errorf("nats: append: there is no kind %d", e.Kind)
	case e.Keep.Size > 0:
		at, err := b.appendKept(ctx, channel, e)
		return broker.Appended{At: at}, err
	}
	return b.publish(ctx, channel, e)
}

// Close implements broker.Broker.
func (b *Broker) Close(context.Context) error {
	b.mu.Lock()
	if b.state != opened {
		b.mu.Unlock()
		return broker.ErrClosed
	}
	b.state = closed
	b.cancel(broker.ErrClosed)
	following := slices.Collect(maps.Values(b.following))
	clear(b.following)
	b.mu.Unlock()
	close(b.done)
	for _, f := range following {
		f.end() // which waits for a call of the sink
	}
	if r := b.replica.Load(); r != nil {
		r.stop()
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
