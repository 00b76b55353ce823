package hub

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gopushy/pushy/broker"
)

// enter subscribes a Listener to its channel.
func (s *subscription) enter(ctx context.Context, since *broker.Position) error {
	l := s.listener
	h := l.hub
	if err := h.notBanned(s.name); err != nil {
		return err
	}
	policy, err := h.PolicyOf(s.name)
	if err != nil {
		return &UnavailableError{Err: err}
	}
	ch, err := h.acquire(ctx, s.name, policy)
	switch {
	case err == nil:
	case errors.Is(err, ErrClosed), ctx.Err() != nil:
		return err
	default:
		return &UnavailableError{Err: err}
	}
	p := &pastRequest{
		Past: Past{
			Since:  since,
			Rewind: l.cfg.Rewind,
		},
		shown: true,
	}
	err = ch.locate(ctx, p)
	var r *replayPlan
	if err == nil {
		r, err = ch.attach(s, p)
	}
	if err != nil {
		ch.life.release()
		return err
	}
	if r != nil {
		ch.fillReplay(ctx, s, r)
	}
	return h.notBanned(s.name) // a ban that came meanwhile has not found s, or has ended it
}

// notBanned returns a *RefusedError if nobody may be in a channel.
func (h *Hub) notBanned(channel string) error {
	if reason, banned := h.banned("", channel); banned {
		return &RefusedError{
			Reason: reason,
			Code:   "403",
		}
	}
	return nil
}

// locate finds out what answers p, except for its events, before attach needs it under fan.
func (ch *Channel) locate(ctx context.Context, p *pastRequest) error {
	defer func() { p.final = true }()
	if !p.wants() || ch.history == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, ch.hub.cfg.Timeout)
	defer cancel()
	for range maxPrepare {
		ch.fan.Lock()
		k := ch.history
		now := time.Now()
		k.ring.expire(k.keep, now)
		_, _, missing := k.from(p, now)
		ch.fan.Unlock()
		if missing == needNothing {
			return nil
		}
		ch.provide(ctx, p, missing)
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
	}
	return nil
}

// replayPlan says which events a new Listener lacks.
type replayPlan struct {
	*replay
	since  *broker.Position
	from   uint64 // the offset of the first of them
	place  broker.Position
	reason string // why these are not all
}

// attach makes a Listener receive what follows the channel's place. It returns nil if there is
// nothing before that place.
func (ch *Channel) attach(s *subscription, p *pastRequest) (*replayPlan, error) {
	l := s.listener
	ch.fan.Lock()
	defer ch.fan.Unlock()
	l.mu.Lock()
	closed := l.err != nil || s.removed
	s.ch = ch
	l.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	s.attached = true
	ch.mu.Lock()
	in, _ := ch.listeners.(*subscriptions)
	if in == nil {
		in = &subscriptions{channel: ch}
		ch.listeners = in
	}
	in.all = append(in.all, s)
	ch.mu.Unlock()
	if l.cfg.Presence {
		s.pushMembersLocked()
	}
	var r *replayPlan
	position := broker.Position{}
	k := ch.history
	switch {
	case p.wants():
		r = &replayPlan{
			replay: &replay{in: s},
			since:  p.Since,
			reason: PastOff,
		}
		if k == nil {
			break
		}
		now := time.Now()
		k.used = now
		k.ring.expire(k.keep, now)
		r.place = k.place()
		r.from, r.reason, _ = k.from(p, now)
		ch.countLocked()
	case k != nil:
		position = k.place()
	}
	if p.Since != nil && k != nil {
		position = *p.Since
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if position.Epoch != "" {
		l.positions[s.name] = position
	} else {
		delete(l.positions, s.name)
	}
	if r != nil {
		l.queue = append(l.queue, queuedEvent{
			in:     s,
			replay: r.replay,
		})
	}
	return r, nil
}

// fillReplay reads the events of a replay from the log. Meanwhile, the Listener does not receive
// what follows them.
func (ch *Channel) fillReplay(ctx context.Context, s *subscription, r *replayPlan) {
	events, reason := ch.readReplay(ctx, r)
	var all []ListenerEvent
	if r.since != nil && reason != "" {
		place := r.place
		if len(events) > 0 {
			place.Offset = events[0].At.Offset - 1
		}
		all = append(all, ListenerEvent{
			Kind:     Gap,
			Channel:  ch.name,
			Position: place,
			Time:     time.Now(),
			Reason:   reason,
		})
	}
	for i := range events {
		all = append(all, ch.listenerEvent(&events[i]))
	}
	l := s.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	r.events = all
	r.ready = true
	l.wakeLocked()
}

// readReplay returns the newest events of a replay that follow each other, and why some are
// missing.
func (ch *Channel) readReplay(ctx context.Context, r *replayPlan) (events []broker.Entry, reason string) {
	if r.place.Epoch == "" || r.from > r.place.Offset {
		return nil, r.reason
	}
	h := ch.hub
	ctx, cancel := context.WithTimeout(ctx, h.patient(fillTimeout))
	defer cancel()
	page, err := h.history.Read(ctx, ch.name, broker.Range{
		Epoch: r.place.Epoch,
		After: r.from - 1,
		Limit: int(r.place.Offset - r.from + 1),
	})
	switch {
	case errors.Is(err, broker.ErrEpoch):
		return nil, newEpoch(r.place.Epoch, page.Top.Epoch)
	case err != nil:
		return nil, PastUnavailable
	}
	next := r.from
	reason = r.reason
	for _, e := range page.Entries {
		if e.At.Offset != next {
			reason = ch.history.lost(page)
			events = nil
		}
		next = e.At.Offset + 1
		events = append(events, e)
	}
	if next != r.place.Offset+1 { // the last ones have expired meanwhile
		return nil, ch.history.lost(page)
	}
	return events, reason
}

// leave ends the subscription, if it is not ended yet.
func (s *subscription) leave() {
	l := s.listener
	l.mu.Lock()
	ch := s.ch
	l.mu.Unlock()
	if ch != nil && ch.detach(s) {
		ch.life.release()
	}
}

// detach reports whether this call ends the subscription. Then the lifetime of the channel must
// be released.
func (ch *Channel) detach(s *subscription) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if !s.attached {
		return false
	}
	s.attached = false
	ch.mu.Lock()
	defer ch.mu.Unlock()
	in := ch.listeners.(*subscriptions)
	i := slices.Index(in.all, s)
	in.all = slices.Delete(in.all, i, i+1)
	if len(in.all) == 0 {
		ch.listeners = nil
	}
	return true
}

// channelListeners has the Listeners of a channel. It is an interface so that a host that creates
// none does not link their code: only attach makes a value of it.
type channelListeners interface {
	// len needs fan or mu. The other methods need fan.
	len() int
	// published passes an event to the Listeners.
	published(e broker.Entry)
	// gap passes a Gap to the Listeners.
	gap(reason string, place broker.Position)
	// changed passes a change of a member, and listed the list of the members, to the Listeners
	// that receive these.
	changed(c change)
	listed(members []*Member)
	// kick ends the subscriptions, which are no longer in the channel.
	kick(reason string)
}

// subscriptions implements channelListeners.
type subscriptions struct {
	channel *Channel
	all     []*subscription // not empty
}

// kickListeners ends the subscriptions of all Listeners, which receive an Ended event. The
// lifetime of the channel must then be released for each. It returns their number.
func (ch *Channel) kickListeners(reason string) int {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	ch.mu.Lock()
	kicked := ch.listeners
	ch.listeners = nil
	ch.mu.Unlock()
	if kicked == nil {
		return 0
	}
	kicked.kick(reason)
	return kicked.len()
}

func (in *subscriptions) kick(reason string) {
	for _, s := range in.all {
		s.attached = false
		s.push(ListenerEvent{
			Kind:    Ended,
			Channel: in.channel.name,
			Reason:  reason,
			Time:    time.Now(),
		})
		l := s.listener
		l.mu.Lock()
		if l.channels[s.name] == s {
			delete(l.channels, s.name)
		}
		l.mu.Unlock()
	}
}

// audience returns whether the channel has members on this node whose client is connected, and
// whether it has Listeners.
func (ch *Channel) audience() (members, listeners bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.members.live > 0, ch.listeners != nil
}

// Subscribers returns the number of members on this node whose client is connected, and of
// Listeners.
func (ch *Channel) Subscribers() int {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	n := ch.members.live
	if ch.listeners != nil {
		n += ch.listeners.len()
	}
	return n
}

func (in *subscriptions) len() int { return len(in.all) }

func (in *subscriptions) published(e broker.Entry) { in.push(in.channel.listenerEvent(&e)) }

func (in *subscriptions) push(e ListenerEvent) {
	for _, s := range in.all {
		s.push(e)
	}
}

// listenerEvent is a published event as a Listener receives it.
func (ch *Channel) listenerEvent(e *broker.Entry) ListenerEvent {
	at := e.Time
	if at.IsZero() {
		at = time.Now()
	}
	return ListenerEvent{
		Kind:     Published,
		Channel:  ch.name,
		Name:     e.Event,
		Data:     e.Data,
		From:     e.From,
		Position: e.At,
		Time:     at,
	}
}

func (in *subscriptions) gap(reason string, place broker.Position) {
	in.push(ListenerEvent{
		Kind:     Gap,
		Channel:  in.channel.name,
		Position: place,
		Time:     time.Now(),
		Reason:   reason,
	})
}

func (in *subscriptions) changed(c change) {
	e := ListenerEvent{
		Kind:    Updated,
		Channel: in.channel.name,
		Time:    time.Now(),
	}
	switch c.kind {
	case memberAdded:
		e.Kind = Joined
	case memberRemoved:
		e.Kind = Left
	}
	for _, s := range in.all {
		if !s.listener.cfg.Presence {
			continue
		}
		in.channel.showLocked(c.member)
		e.Data = c.member.Text
		s.push(e)
	}
}

func (in *subscriptions) listed(members []*Member) {
	for _, s := range in.all {
		if s.listener.cfg.Presence {
			s.push(in.channel.listenerList(members))
		}
	}
}

func (ch *Channel) listenerList(members []*Member) ListenerEvent {
	e := ListenerEvent{
		Kind:    Members,
		Channel: ch.name,
		Time:    time.Now(),
	}
	for _, m := range members {
		e.Members = append(e.Members, m.Text)
	}
	return e
}

// pushMembers passes the list of the members to one Listener.
func (s *subscription) pushMembers() {
	s.ch.fan.Lock()
	defer s.ch.fan.Unlock()
	if s.attached {
		s.pushMembersLocked()
	}
}

func (s *subscription) pushMembersLocked() {
	ch := s.ch
	if !ch.policy.Private || !ch.policy.Presence {
		return
	}
	var members []*Member
	if ch.replica.on {
		members = ch.shownLocked()
	}
	s.push(ch.listenerList(members))
}
