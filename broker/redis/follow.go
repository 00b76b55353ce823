package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
)

// follow is a channel that the node follows. While its state is read, messages are held.
// Afterwards those that the state does not include are delivered.
type follow struct {
	shard   *shard
	channel string
	turn    chan struct{} // has one token, which a reader of the state holds

	// Guarded by mu, which is held while the sink is called.
	mu        sync.Mutex
	ended     bool // nothing is delivered any more
	listening bool // the subscription has begun
	holding   bool // messages are added to held
	held      []message
	heldBytes int
	lost      bool   // held was full, and messages were discarded
	reason    string // of the Reset that is due, or ""

	at      broker.Position // of the last kept event when the state was read
	rev     broker.Position // of the last member entry
	members int
}

const (
	maxHeld      = 10_000 // messages of one channel that are held
	maxHeldBytes = 4 << 20
	resetsAtOnce = 32 // channels of a shard whose state is read concurrently
)

// Follow implements broker.Broker.
func (b *Broker) Follow(ctx context.Context, channel string) (broker.State, error) {
	if err := b.usable(ctx); err != nil {
		return broker.State{}, err
	}
	sh := b.shard(channel)
	sh.mu.Lock()
	f := sh.follows[channel]
	fresh := f == nil
	if fresh {
		f = &follow{
			shard:   sh,
			channel: channel,
			turn:    make(chan struct{}, 1),
			holding: true,
		}
		f.turn <- struct{}{}
		sh.follows[channel] = f
	}
	var done <-chan error
	if fresh {
		done = sh.queueLocked(channel, false)
	}
	up := sh.up
	if !up && fresh {
		f.reason = broker.ResetGap
	}
	sh.mu.Unlock()
	if !up {
		return broker.State{}, b.awayError()
	}
	state, err := f.begin(ctx, done)
	if err != nil && !errors.Is(err, broker.ErrAway) {
		_ = b.Unfollow(ctx, channel)
	}
	return state, err
}

// begin waits for the subscription and reads the state.
func (f *follow) begin(ctx context.Context, subscribed <-chan error) (broker.State, error) {
	sh := f.shard
	if subscribed != nil {
		select {
		case err := <-subscribed:
			if err != nil {
				f.demand(broker.ResetGap)
				return broker.State{}, sh.failed(ctx, "subscribe", err)
			}
		case <-ctx.Done():
			return broker.State{}, wrapped("subscribe", ctx.Err())
		}
	}
	select {
	case <-f.turn:
		defer func() { f.turn <- struct{}{} }()
	case <-ctx.Done():
		return broker.State{}, wrapped("follow", ctx.Err())
	}
	known := f.hold()
	state, err := sh.read(ctx, f.channel)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.demandLocked(broker.ResetGap)
		return broker.State{}, err
	}
	if f.ended || !sh.b.opened.Load() {
		return broker.State{}, broker.ErrClosed
	}
	if f.lost {
		f.demandLocked(broker.ResetGap)
	}
	if f.reason == "" {
		at := f.at
		f.setStateLocked(state)
		if known && at.Epoch == state.At.Epoch {
			f.at = at // kept events that have not arrived yet are still delivered
		}
		f.deliverHeldLocked()
	}
	return state, nil
}

// hold begins to hold messages, and reports whether a state was known before.
func (f *follow) hold() (known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known = !f.holding
	f.holding = true
	return known
}

// Unfollow implements broker.Broker.
func (b *Broker) Unfollow(_ context.Context, channel string) error {
	if !b.opened.Load() {
		return broker.ErrClosed
	}
	sh := b.shard(channel)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	f := sh.follows[channel]
	if f == nil {
		return nil
	}
	delete(sh.follows, channel)
	f.end()
	sh.queueLocked(channel, true)
	return nil
}

func (f *follow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.held = nil
}

// cutOff is called when the subscription has ended.
func (f *follow) cutOff() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listening = false
	f.demandLocked(broker.ResetGap)
}

// demand makes a Reset due. If one is due already, the stronger reason counts.
func (f *follow) demand(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.demandLocked(reason)
}

func (f *follow) demandLocked(reason string) {
	f.holding = true
	f.reason = stronger(f.reason, reason)
	f.shard.due.Store(true)
	f.shard.wakeResets()
}

// stronger returns the reason that implies the other.
func stronger(a, b string) string {
	for _, reason := range []string{broker.ResetEpoch, broker.ResetRestarted, broker.ResetLease} {
		if a == reason || b == reason {
			return reason
		}
	}
	return broker.ResetGap
}

// message handles a message of a subscription. It is not called concurrently.
func (sh *shard) message(name, text string) {
	f := sh.follow(name)
	if f == nil {
		return
	}
	m, err := parseMessage(text)
	if err != nil {
		sh.b.warn("skipped a message that pushy did not send", "", err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listening && !f.ended {
		f.acceptLocked(m)
	}
}

func (f *follow) acceptLocked(m message) {
	if !f.holding {
		f.deliverLocked(m)
		return
	}
	if f.lost {
		return
	}
	f.held = append(f.held, m)
	f.heldBytes += len(m.entry.Data)
	if len(f.held) > maxHeld || f.heldBytes > maxHeldBytes {
		f.held = nil
		f.heldBytes = 0
		f.lost = true
	}
}

// deliverLocked delivers a message, and demands a Reset if entries of members are missing
// before it. A Server detects missing kept events by the entry's Prev.
func (f *follow) deliverLocked(m message) {
	e := m.entry
	sink := f.shard.b.sink
	switch {
	case m.forget:
		f.demandLocked(broker.ResetEpoch)
	case e.At == (broker.Position{}):
		sink.Deliver(f.channel, e)
	case e.Kind == broker.Event && e.At.Epoch != f.at.Epoch:
		f.demandLocked(resetReason(f.at.Epoch, e.At.Epoch)) // the state that is read then includes it
	case e.Kind == broker.Event:
		if e.At.Offset > f.at.Offset {
			sink.Deliver(f.channel, e)
		}
	case e.At.Epoch == f.rev.Epoch && e.At.Offset <= f.rev.Offset:
		// The state includes it.
	case e.At.Epoch == f.rev.Epoch && e.Prev == f.rev.Offset, e.Prev == 0 && f.members == 0:
		f.rev = e.At
		switch e.Kind {
		case broker.Join:
			f.members++
		case broker.Leave:
			f.members--
		}
		sink.Deliver(f.channel, e)
	default:
		f.demandLocked(resetReason(f.rev.Epoch, e.At.Epoch))
	}
}

func (f *follow) setStateLocked(s broker.State) {
	f.at = s.At
	f.rev = s.Revision
	f.members = len(s.Members)
}

// deliverHeldLocked delivers the held messages, until a Reset is due.
func (f *follow) deliverHeldLocked() {
	held := f.held
	f.holding = false
	f.held = nil
	f.heldBytes = 0
	f.lost = false
	for _, m := range held {
		f.acceptLocked(m)
	}
}

// resetAllLocked makes a Reset due for every channel of the shard.
func (sh *shard) resetAllLocked(reason string) {
	for _, f := range sh.follows {
		f.demand(reason)
	}
}

// wakeResets wakes resetLoop.
func (sh *shard) wakeResets() {
	select {
	case sh.wake <- struct{}{}:
	default:
	}
}

// resetLoop delivers the Resets that are due, until Close.
func (sh *shard) resetLoop() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-sh.b.ctx.Done():
			return
		case <-tick.C:
		case <-sh.wake:
		}
		sh.deliverResets()
	}
}

func (sh *shard) deliverResets() {
	if !sh.due.Swap(false) {
		return
	}
	sh.mu.Lock()
	var due []*follow
	if sh.up {
		for _, f := range sh.follows {
			due = append(due, f)
		}
	}
	sh.mu.Unlock()
	running := make(chan struct{}, resetsAtOnce)
	var all sync.WaitGroup
	for _, f := range due {
		if !f.resetDue() {
			continue
		}
		if _, err := sh.live(); err != nil {
			break
		}
		running <- struct{}{}
		all.Go(func() {
			defer func() { <-running }()
			if err := sh.b.guarded("reset", f.reset); err != nil && !errors.Is(err, broker.ErrAway) {
				sh.b.warn("cannot read a channel's state yet", "", err)
			}
		})
	}
	all.Wait()
}

func (f *follow) resetDue() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reason != "" && !f.ended
}

// reset reads the state and delivers a Reset if one is still due.
func (f *follow) reset() error {
	ctx, cancel := f.shard.b.bounded(f.shard.b.ctx)
	defer cancel()
	select {
	case <-f.turn:
		defer func() { f.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	reason := f.reason
	f.reason = ""
	f.lost = false
	f.mu.Unlock()
	if reason == "" {
		return nil
	}
	state, err := f.shard.read(ctx, f.channel)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || f.lost || !f.listening || f.reason != "" {
		f.reason = stronger(f.reason, reason)
		f.shard.due.Store(true) // resetLoop tries again within a second
		return err
	}
	if f.ended {
		return nil
	}
	f.setStateLocked(state)
	f.shard.b.sink.Reset(f.channel, state, reason)
	f.deliverHeldLocked()
	return nil
}
