package nats

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"

	natsgo "github.com/nats-io/nats.go"

	"github.com/gopushy/pushy/broker"
)

// followed is a channel that the node follows. Its mu is held during each call of the sink,
// and locked after the replica's mu.
type followed struct {
	b       *Broker
	channel string
	worker  *worker
	opening chan struct{}        // buffered: full while the channel is opened
	sub     *natsgo.Subscription // set while the channel is opened
	mark    uint64               // the mark of denials when sub was created
	dropped int                  // messages of sub that nats.go has dropped; guarded by the worker's mu

	mu         sync.Mutex
	unfollowed bool            // it is not followed any more
	live       bool            // the sink has a State, and receives the entries after it
	at         broker.Position // of the last kept event that the sink has
	class      string          // the class of the last delivered message of the log, or ""
	stalled    bool            // the log is being read; kept events are held in early
	reading    int             // the number of times that the channel was opened
	early      []kept
}

// maxEarly is the maximum length of early. Events that are dropped are read from the log.
const maxEarly = 1000

// Follow implements broker.Broker.
func (b *Broker) Follow(ctx context.Context, channel string) (broker.State, error) {
	f, found, err := b.follow(ctx, channel)
	if err != nil {
		return broker.State{}, err
	}
	s, err := b.open(ctx, f, "", found)
	switch {
	case err == nil:
		return s, nil
	case b.isClosed():
		return broker.State{}, broker.ErrClosed
	case !found && !errors.Is(err, broker.ErrAway):
		b.unfollow(channel)
	}
	return broker.State{}, fmt.Errorf("follow: %w", err)
}

// follow returns the channel's entry in following, and creates it if there is none, also
// while NATS is away.
func (b *Broker) follow(ctx context.Context, channel string) (f *followed, found bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err = b.readyLocked(ctx)
	if err != nil && !errors.Is(err, broker.ErrAway) {
		return nil, false, err
	}
	f = b.following[channel]
	if f != nil {
		return f, true, err
	}
	f = &followed{
		b:       b,
		channel: channel,
		worker:  b.workers[maphash.String(b.seed, channel)%uint64(len(b.workers))],
		opening: make(chan struct{}, 1),
		stalled: true,
	}
	b.following[channel] = f
	return f, false, err
}

// Unfollow implements broker.Broker.
func (b *Broker) Unfollow(_ context.Context, channel string) error {
	if b.isClosed() {
		return broker.ErrClosed
	}
	b.unfollow(channel)
	return nil
}

func (b *Broker) unfollow(channel string) {
	b.mu.Lock()
	f := b.following[channel]
	delete(b.following, channel)
	b.mu.Unlock()
	if f == nil {
		return
	}
	f.end()
	b.spawn(func() {
		f.opening <- struct{}{} // an open that is running ends soon
		defer func() { <-f.opening }()
		f.unsubscribe()
	})
}

// end returns when the sink is not called for the channel any more.
func (f *followed) end() {
	f.mu.Lock()
	f.unfollowed = true
	f.live = false
	f.early = nil
	f.mu.Unlock()
}

// subscribe creates the subscription if there is none. The caller holds opening.
func (f *followed) subscribe() error {
	if f.sub != nil {
		return nil
	}
	mark := f.b.denials.mark()
	f.worker.mu.Lock() // the worker must know the subscription before its first message
	defer f.worker.mu.Unlock()
	sub, err := f.b.nc.ChanSubscribe(f.b.subjects.channel(f.channel), f.worker.in)
	if err != nil {
		return err
	}
	f.sub = sub
	f.mark = mark
	f.dropped = 0
	f.worker.subs[sub] = f
	return nil
}

func (f *followed) unsubscribe() {
	if f.sub == nil {
		return
	}
	_ = f.sub.Unsubscribe() // it fails if the connection is closed
	f.worker.mu.Lock()
	delete(f.worker.subs, f.sub)
	f.worker.mu.Unlock()
	f.sub = nil
}

// open subscribes, reads the State of a channel, and begins to deliver the entries after it.
// If reason is not "", the sink receives the State with a Reset; otherwise the caller passes
// it on. known means that the sink can have a State already, which then remains.
func (b *Broker) open(ctx context.Context, f *followed, reason string, known bool) (broker.State, error) {
	select {
	case f.opening <- struct{}{}:
	case <-ctx.Done():
		return broker.State{}, fmt.Errorf("nats: %w", context.Cause(ctx))
	}
	defer func() { <-f.opening }()
	if f.isUnfollowed() {
		return broker.State{}, errUnfollowed
	}
	link := b.link()
	asked := action{subject: b.subjects.channel(f.channel)}
	if b.denials.since(asked, f.mark) != nil {
		f.unsubscribe() // because nats.go repeats a subscription only on the next connection
	}
	if err := f.subscribe(); err != nil {
		return broker.State{}, fmt.Errorf("%w: %w", broker.ErrAway, err)
	}
	if err := b.confirm(ctx, link); err != nil {
		return broker.State{}, err
	}
	if err := b.denials.since(asked, f.mark); err != nil {
		f.unsubscribe()
		f.mu.Lock()
		f.live = false // it is opened again later
		f.mu.Unlock()
		return broker.State{}, err
	}
	if err := b.catchUp(ctx); err != nil {
		return broker.State{}, err
	}
	had, class, live := f.begin(known)
	if live {
		return b.goLive(f, broker.Position{}, "", true)
	}
	h, err := b.head(ctx, f.channel)
	if err != nil {
		return broker.State{}, err
	}
	if class != "" && h.at.Epoch == had.Epoch && h.at.Offset < had.Offset {
		// The store has lost the end of the log. Its offsets must not be used again.
		_, err := b.abandon(ctx, f.channel, class, h.seqs[class])
		if err == nil && reason != "" {
			reason = broker.ResetRestarted
		}
		if err != nil && !errors.Is(err, errConflict) {
			return broker.State{}, err
		}
		h, err = b.head(ctx, f.channel)
		if err != nil {
			return broker.State{}, err
		}
	}
	return b.goLive(f, h.at, reason, known)
}

var errUnfollowed = errors.New("nats: the channel is not followed any more")

func (f *followed) isUnfollowed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unfollowed
}

// begin starts to hold kept events while the log is read, unless known is set and the sink
// has a State already.
func (f *followed) begin(known bool) (at broker.Position, class string, live bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	live = known && f.live
	if !live {
		f.stalled = true
		f.reading++
	}
	return f.at, f.class, live
}

// goLive begins to deliver the entries after a State, which it returns.
func (b *Broker) goLive(f *followed, at broker.Position, reason string, known bool) (broker.State, error) {
	r := b.replica.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.unfollowed:
		return broker.State{}, errUnfollowed
	case r != b.replica.Load():
		// The goroutine that replaced the replica opens the channel.
		return broker.State{}, fmt.Errorf("%w: %w", broker.ErrAway, errNotConnected)
	case known && f.live:
		return b.stateLocked(r, f), nil
	}
	if reason == broker.ResetGap && f.at.Offset > 0 && f.at.Epoch != at.Epoch {
		reason = broker.ResetEpoch
	}
	f.at = at
	f.live = true
	f.stalled = false
	s := b.stateLocked(r, f)
	if reason != "" {
		b.sink.Reset(f.channel, s, reason)
	}
	f.drainLocked()
	return s, nil
}

func (b *Broker) stateLocked(r *replica, f *followed) broker.State {
	s := r.stateLocked(f.channel)
	s.At = f.at
	return s
}

// reopen resets a channel. If NATS does not permit it, that was logged, and openAgain retries.
func (b *Broker) reopen(link context.Context, f *followed, reason string) error {
	_, err := b.open(link, f, reason, false)
	if errors.Is(err, errUnfollowed) || isDenied(err) {
		return nil
	}
	return err
}

// reset runs reopen in a new goroutine. If that fails, all channels are reset.
func (b *Broker) reset(f *followed, reason string) {
	b.spawn(func() {
		link := b.link()
		err := b.reopen(link, f, reason)
		if err != nil {
			b.markAway(link, err)
		}
	})
}

func (b *Broker) allFollowed() []*followed {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.following))
}

// openAgain opens the channels that could not be opened when NATS came back.
func (b *Broker) openAgain(link context.Context) {
	for _, f := range b.allFollowed() {
		f.mu.Lock()
		live := f.live
		f.mu.Unlock()
		if !live && len(f.opening) == 0 {
			if err := b.reopen(link, f, broker.ResetGap); err != nil {
				b.markAway(link, err)
				return
			}
		}
	}
}

// handleKeptLocked delivers a kept event if it is the next one. Otherwise it starts to read
// the log.
func (f *followed) handleKeptLocked(m kept) {
	switch next := m.at.Offset == f.at.Offset+1; {
	case f.unfollowed:
	case f.stalled:
		if len(f.early) < maxEarly {
			f.early = append(f.early, m)
		}
	case m.at.Epoch == f.at.Epoch && m.entry != nil && next:
		f.at = m.at
		f.b.sink.Deliver(f.channel, *m.entry)
	case m.at.Epoch == f.at.Epoch && m.at.Offset <= f.at.Offset:
		// The sink has it: it was delivered while the log was read.
	default:
		f.stalled = true
		f.early = nil
		f.refillLocked()
	}
}

func (f *followed) refillLocked() {
	at, reading := f.at, f.reading
	f.b.spawn(func() { f.b.refill(f, at, reading) })
}

func (f *followed) drainLocked() {
	early := f.early
	f.early = nil
	for _, m := range early {
		f.handleKeptLocked(m)
	}
	if len(early) == maxEarly && !f.stalled {
		f.stalled = true // some may have been dropped
		f.refillLocked()
	}
}

// refill delivers the events of the log after a position, or resets the channel if the log
// does not have all of them any more. It does nothing if the channel has been opened again.
func (b *Broker) refill(f *followed, at broker.Position, reading int) {
	link := b.link()
	h, missing, err := b.after(link, f.channel, at)
	if err != nil {
		b.markAway(link, err)
		return
	}
	f.mu.Lock()
	switch {
	case !f.live || f.reading != reading:
		f.mu.Unlock()
		return
	case h.at.Epoch != at.Epoch || uint64(len(missing)) != h.at.Offset-at.Offset:
		f.mu.Unlock()
		b.reset(f, broker.ResetGap)
		return
	}
	defer f.mu.Unlock()
	for _, m := range missing {
		f.at = m.at
		b.sink.Deliver(f.channel, *m.entry)
	}
	f.stalled = false
	f.drainLocked()
}

// denies reports whether the denial of a subject ends a subscription that this node needs.
func (b *Broker) denies(subject string) bool {
	channel, ok := untoken(strings.TrimPrefix(subject, b.subjects.base+".c."))
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.following[channel]
	return ok && f != nil && len(f.opening) == 0 || subject == b.o.InboxPrefix+".>"
}
