package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
)

// follow is a channel that the node follows. While its state is read the messages
// that arrive wait; then those that the state has are left out.
type follow struct {
	lane    *lane
	channel string
	turn    chan struct{} // has one token, which a reader of the state takes

	// Under mu, which is held while the sink is called.
	mu        sync.Mutex
	ended     bool // nothing is delivered any more
	listening bool // the subscription has begun
	waiting   bool // messages wait in held
	held      []message
	heldBytes int
	lost      bool   // messages were left out of held
	reason    string // why a Reset is due, or ""

	at      broker.Position // of the last kept event when the state was read
	rev     broker.Position // of the last member entry
	members int
}

const (
	maxHeld      = 10_000 // messages that wait for one channel's state
	maxHeldBytes = 4 << 20
	resetsAtOnce = 32 // channels of a lane whose state is read at a time
)

// Follow implements broker.Broker.
func (b *Broker) Follow(ctx context.Context, channel string) (broker.State, error) {
	if err := b.usable(ctx); err != nil {
		return broker.State{}, err
	}
	l := b.lane(channel)
	l.mu.Lock()
	f := l.follows[channel]
	fresh := f == nil
	if fresh {
		f = &follow{lane: l, channel: channel, turn: make(chan struct{}, 1), waiting: true}
		f.turn <- struct{}{}
		l.follows[channel] = f
	}
	var done <-chan error
	if fresh {
		done = l.askLocked(channel, false)
	}
	up := l.up
	if !up && fresh {
		f.reason = broker.ResetGap
	}
	l.mu.Unlock()
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
	l := f.lane
	if subscribed != nil {
		select {
		case err := <-subscribed:
			if err != nil {
				f.demand(broker.ResetGap)
				return broker.State{}, l.failed(ctx, "subscribe", err)
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
	known := f.wait()
	state, err := l.read(ctx, f.channel)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.demandLocked(broker.ResetGap)
		return broker.State{}, err
	}
	if f.ended || !l.b.opened.Load() {
		return broker.State{}, broker.ErrClosed
	}
	if f.lost {
		f.demandLocked(broker.ResetGap)
	}
	if f.reason == "" {
		at := f.at
		f.takeLocked(state)
		if known && at.Epoch == state.At.Epoch {
			f.at = at // a kept event that has not arrived yet is still delivered
		}
		f.releaseLocked()
	}
	return state, nil
}

// wait lets messages wait, and reports whether a state is known already.
func (f *follow) wait() (known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known = !f.waiting
	f.waiting = true
	return known
}

// Unfollow implements broker.Broker.
func (b *Broker) Unfollow(_ context.Context, channel string) error {
	if !b.opened.Load() {
		return broker.ErrClosed
	}
	l := b.lane(channel)
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.follows[channel]
	if f == nil {
		return nil
	}
	delete(l.follows, channel)
	f.end()
	l.askLocked(channel, true)
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

// demand makes a Reset due for a reason, if none is for a stronger one.
func (f *follow) demand(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.demandLocked(reason)
}

func (f *follow) demandLocked(reason string) {
	f.waiting = true
	f.reason = stronger(f.reason, reason)
	f.lane.due.Store(true)
	f.lane.rouse()
}

// stronger returns the reason that says more.
func stronger(a, b string) string {
	for _, reason := range []string{broker.ResetEpoch, broker.ResetRestarted, broker.ResetLease} {
		if a == reason || b == reason {
			return reason
		}
	}
	return broker.ResetGap
}

// message takes what arrived on a subscription. It is called for one at a time.
func (l *lane) message(name, text string) {
	f := l.follow(name)
	if f == nil {
		return
	}
	m, err := parseMessage(text)
	if err != nil {
		l.b.complain("skipped a message that pushy did not send", "", err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listening && !f.ended {
		f.acceptLocked(m)
	}
}

func (f *follow) acceptLocked(m message) {
	if !f.waiting {
		f.deliverLocked(m)
		return
	}
	if f.lost {
		return
	}
	f.held = append(f.held, m)
	f.heldBytes += len(m.entry.Data)
	if len(f.held) > maxHeld || f.heldBytes > maxHeldBytes {
		f.held, f.heldBytes, f.lost = nil, 0, true
	}
}

// deliverLocked delivers a message if it is the next, and demands a Reset if
// something is missing before it. Missing kept events show by the entry's Prev.
func (f *follow) deliverLocked(m message) {
	e := m.entry
	sink := f.lane.b.sink
	switch {
	case m.forget:
		f.demandLocked(broker.ResetEpoch)
	case e.At == (broker.Position{}):
		sink.Deliver(f.channel, e)
	case e.Kind == broker.Event && e.At.Epoch != f.at.Epoch:
		f.demandLocked(resetReason(f.at.Epoch, e.At.Epoch)) // the state to be read has it
	case e.Kind == broker.Event:
		if e.At.Offset > f.at.Offset {
			sink.Deliver(f.channel, e)
		}
	case e.At.Epoch == f.rev.Epoch && e.At.Offset <= f.rev.Offset:
		// The state that was read has it.
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

func (f *follow) takeLocked(s broker.State) {
	f.at, f.rev, f.members = s.At, s.Revision, len(s.Members)
}

// releaseLocked delivers what has waited, until a Reset is due.
func (f *follow) releaseLocked() {
	held := f.held
	f.waiting, f.held, f.heldBytes, f.lost = false, nil, 0, false
	for _, m := range held {
		f.acceptLocked(m)
	}
}

// resetAllLocked makes a Reset due for every channel of the lane.
func (l *lane) resetAllLocked(reason string) {
	for _, f := range l.follows {
		f.demand(reason)
	}
}

// rouse lets keep look around now.
func (l *lane) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// keep delivers the Resets that are due until Close.
func (l *lane) keep() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-l.b.ctx.Done():
			return
		case <-tick.C:
		case <-l.wake:
		}
		l.deliverResets()
	}
}

func (l *lane) deliverResets() {
	if !l.due.Swap(false) {
		return
	}
	l.mu.Lock()
	var due []*follow
	if l.up {
		for _, f := range l.follows {
			due = append(due, f)
		}
	}
	l.mu.Unlock()
	places := make(chan struct{}, resetsAtOnce)
	var all sync.WaitGroup
	for _, f := range due {
		if !f.resetDue() {
			continue
		}
		if _, err := l.live(); err != nil {
			break
		}
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			if err := l.b.guarded("reset", f.reset); err != nil && !errors.Is(err, broker.ErrAway) {
				l.b.complain("cannot read a channel's state yet", "", err)
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
	ctx, cancel := f.lane.b.bounded(f.lane.b.ctx)
	defer cancel()
	select {
	case <-f.turn:
		defer func() { f.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	reason := f.reason
	f.reason, f.lost = "", false
	f.mu.Unlock()
	if reason == "" {
		return nil
	}
	state, err := f.lane.read(ctx, f.channel)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || f.lost || !f.listening || f.reason != "" {
		f.reason = stronger(f.reason, reason)
		f.lane.due.Store(true) // keep looks again within a second
		return err
	}
	if f.ended {
		return nil
	}
	f.takeLocked(state)
	f.lane.b.sink.Reset(f.channel, state, reason)
	f.releaseLocked()
	return nil
}
