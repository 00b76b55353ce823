package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/lifecycle"
)

// loggedMember is a member of a private channel that this node vouches for in the broker's
// log. It outlives the membership of a connection: while its client is absent, it has no
// membership, and another connection can take it over.
type loggedMember struct {
	ch        *Channel
	member    Member
	adopting  bool          // it comes from another node: an Adopt makes it a member here
	delivered chan struct{} // closed when the broker has delivered the join or adoption, or when l has ended
	// changed has an element if the log may have lost the join, or if an adoption has to be tried
	// again.
	changed chan struct{}

	// The channel's fan guards the fields down to contest, and, after delivered is closed, also
	// the owner, the data and the state of member; the owner does not change after ended is set.
	arrived bool        // the broker has delivered the join or adoption
	ended   bool        // it is no longer in the channel's own
	lost    bool        // another node has adopted it
	by      *membership // the membership that has it; nil while its client is absent
	absence *absence    // set while its client is absent
	request []byte
	past    *pastRequest // nil when it has been answered
	dirty   bool         // the log may have another data or state
	alone   bool         // an update was applied on this node before it is in the log
	claimed int64        // when its connection has claimed it, in milliseconds
	contest string       // the owner from which it is being taken back, see contestLocked

	updating chan struct{} // has an element while an update is being appended; nil at first

	// hooked means that the Subscribe hook was called for it on this node, so that the
	// Unsubscribe hook must be called. Only the membership that has it uses it.
	hooked bool

	// late is set if the broker could not say whether it has appended the Join. Until this
	// time the Join can still be appended, possibly after a Leave.
	late atomic.Pointer[time.Time]
}

// uncertain records that an attempt to append the Join has failed, unless the error
// excludes that the Join is appended later.
func (l *loggedMember) uncertain(err error) {
	if late := l.ch.hub.lateUntil(err); !late.IsZero() {
		l.late.Store(&late)
	}
}

// lateUntil returns the time until which an entry that could not be appended can still be
// appended. It is zero if the error excludes that.
func (h *Hub) lateUntil(err error) time.Time {
	if h.cfg.Local || errors.Is(err, broker.ErrNotOwner) || errors.Is(err, broker.ErrMemberExists) ||
		errors.Is(err, broker.ErrTooLarge) {
		return time.Time{}
	}
	return time.Now().Add(h.cfg.Lease)
}

func (l *loggedMember) hasEnded() bool {
	l.ch.fan.Lock()
	defer l.ch.fan.Unlock()
	return l.ended
}

// signal wakes up the goroutine that logs the join of l or adopts it. It does not block.
func (l *loggedMember) signal() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// endInBackground ends a member that cannot be logged, or, with lost, that another node has
// adopted. It does not wait for hooks.
func (l *loggedMember) endInBackground(lost bool) {
	ch := l.ch
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if l.ended {
		return
	}
	if lost || l.by == nil {
		ch.dropLocked(l, lost)
		return
	}
	l.by.endInBackground(false)
}

// adoptedLocked ends the membership of this node if another owner has adopted the member.
func (ch *Channel) adoptedLocked(id, owner string) {
	l := ch.own[id]
	switch {
	case l == nil || l.member.Owner == owner || l.contest == owner:
	case !l.arrived && l.absence == nil:
		l.signal() // this node was slower
	case l.by != nil && l.isNewerThan(owner):
		ch.contestLocked(l, owner)
	default:
		ch.dropLocked(l, true)
	}
}

// completeJoinLocked completes a join or adoption that waits on this node and has now been
// delivered, if there is one.
func (ch *Channel) completeJoinLocked(id string) {
	l := ch.own[id]
	if l == nil || l.arrived {
		return
	}
	l.arrived = true
	if !l.adopting {
		ch.arriving--
	}
	if l.by != nil {
		ch.subscribedLocked(l.by, l.request, l.past)
	}
	l.request = nil
	l.past = nil
	close(l.delivered)
}

// subscribedLocked makes m the membership of its logged member, and queues the Subscribed
// event.
func (ch *Channel) subscribedLocked(m *membership, request []byte, past *pastRequest) {
	e := Event{
		Kind:    Subscribed,
		Channel: ch.name,
		Conn:    m.conn,
		Member:  m.id,
		Expires: m.expires(),
		Request: request,
	}
	if m.hold {
		member := &m.logged.member
		e.Key = ch.hub.cfg.MemberKey(ch.name, m.id, ch.hub.identity(member.User, member.Data))
	}
	e.Returned = m.returned
	e.Resumed = m.entrance != entered
	ch.presentLocked(&e, m)
	if ch.policy.Presence && ch.replica.on {
		e.Within = ch.hub.settling()
	}
	var replay []*fanout.Frame
	e.Past, replay = ch.pastLocked(past)
	ch.admit(m, ch.subscribedFrameLocked(&e), replay...)
}

// disown removes the member of m from the own members, if it is one. It is called when a
// membership has ended, before its leave is logged.
func (ch *Channel) disown(m *membership) {
	ch.fan.Lock()
	ch.disownLocked(m.logged)
	ch.unwatchLocked(m)
	ch.fan.Unlock()
}

func (ch *Channel) disownLocked(l *loggedMember) {
	if l.ended {
		return
	}
	l.ended = true
	if ch.own[l.member.ID] == l {
		delete(ch.own, l.member.ID)
	}
	if !l.arrived {
		close(l.delivered)
	}
}

// joinPrivate appends the join of m and waits until the broker delivers it; then m is a
// member. After an error, m is not a member. Before the append, joinPrivate waits until the
// client has read earlier lists (AwaitRoom).
func (ch *Channel) joinPrivate(m *membership) error {
	h := ch.hub
	l := m.logged
	member := &l.member
	release, err := ch.awaitRoom(m, member.Data, member.size())
	if err != nil {
		return err
	}
	defer release()
	if !ch.expect(m) {
		option, limit := h.cfg.Limits.membersFor(m.presence.Mode)
		return fmt.Errorf("%w: Options.Limits.%s is %d", ErrChannelFull, option, limit)
	}

	ctx, cancel := h.operation(&m.conn.ctx)
	defer cancel()
	err = l.logJoin(ctx)
	if err == nil || !ch.giveUp(l) {
		return nil
	}
	if h.ctx.Err() == nil { // otherwise the broker is closed
		ctx, cancel := h.operation(h.ctx)
		defer cancel()
		ch.logLeave(ctx, l)
	}
	if errors.Is(err, broker.ErrTooLarge) {
		return fmt.Errorf("%w: %w", ErrDataTooLarge, err)
	}
	return err
}

// logJoin appends the join of l and waits until the broker delivers it; then l is a member. If
// the broker is away, l becomes a member without it. The store can lose a join that it has
// accepted, for example because the store is emptied. The broker reports that with a Reset,
// and logJoin appends the join again, which has no effect if the log has it after all.
func (l *loggedMember) logJoin(ctx context.Context) error {
	ch := l.ch
	join := ch.joinEntry(l)
	for {
		_, err := ch.hub.cfg.Broker.Append(ctx, ch.name, join)
		if err != nil {
			l.uncertain(err)
			if errors.Is(err, broker.ErrAway) && ch.joinAlone(l) {
				return nil
			}
			return err
		}
		if delivered, err := l.await(ctx); delivered || err != nil {
			return err
		}
	}
}

// await waits until the broker has delivered the entry that l waits for, or l has ended. It
// returns false without an error if a Reset or another entry of the log has come before that.
func (l *loggedMember) await(ctx context.Context) (delivered bool, err error) {
	select {
	case <-l.delivered:
	case <-l.changed:
		select {
		case <-l.delivered:
		default:
			return false, nil
		}
	case <-ctx.Done():
		err = lifecycle.Wait(ctx, l.delivered)
	}
	return err == nil, err
}

// awaitRoom waits until the client of m has read earlier lists, if it is going to receive
// one. size is what its own member adds to the list.
func (ch *Channel) awaitRoom(m *membership, data []byte, size int64) (release func(), err error) {
	ch.fan.Lock()
	withList := (ch.replica.on || data != nil) && m.presence.Mode < PresenceCount
	size += ch.answerBytesLocked(m.presence)
	ch.fan.Unlock()
	if !withList {
		return func() {}, nil
	}
	return m.out.AwaitRoom(&m.conn.ctx, size)
}

// joinAlone makes l a member while the broker is away. The backlog logs the join when the
// broker can be reached again. joinAlone returns false if the channel has too many members.
func (ch *Channel) joinAlone(l *loggedMember) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	member := l.member
	member.unlogged = true
	ch.addLocked(&member) // has no effect if the join was appended after all
	if l.arrived {
		ch.hub.backlog.addJoin(l)
	}
	return l.arrived
}

// joinEntry returns the Join that logs l again.
func (ch *Channel) joinEntry(l *loggedMember) broker.Entry {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	return ch.entryOf(&l.member, broker.Join)
}

// removeUnlogged removes a member that, according to the broker, is not in the log. It does
// not remove a member that entries of the log have added: another entry removes it, or
// another node has adopted it.
func (ch *Channel) removeUnlogged(id string) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if m := ch.replica.get(id); m != nil && m.unlogged {
		ch.removeLocked(id)
	}
}

// expect reserves a place for a member whose join is about to be appended. It returns false
// if the channel is full.
func (ch *Channel) expect(m *membership) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	l := m.logged
	_, limit := ch.hub.cfg.Limits.membersFor(m.presence.Mode)
	shown := ch.replica.on || l.member.Data != nil
	if limit > 0 && shown && ch.replica.len()+ch.arriving >= limit {
		return false
	}
	ch.expectLocked(l)
	ch.arriving++
	return true
}

func (ch *Channel) expectLocked(l *loggedMember) {
	if ch.own == nil {
		ch.own = map[string]*loggedMember{}
	}
	ch.own[l.member.ID] = l
}

// giveUp releases the place of a member whose join or adoption was not delivered. It
// returns false if it has been delivered after all.
func (ch *Channel) giveUp(l *loggedMember) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if l.arrived {
		return false
	}
	ch.disownLocked(l)
	if !l.adopting {
		ch.arriving--
	}
	return true
}

// logLeave appends the leave of l, unless another node has adopted it. It does not depend
// on the connection, which may have ended. The members on other nodes are notified through
// the log. If the broker cannot log the leave now, the members on this node are notified
// anyway, and the backlog retries.
func (ch *Channel) logLeave(ctx context.Context, l *loggedMember) {
	h := ch.hub
	id := l.member.ID
	if l.lost {
		ch.removeUnlogged(id)
		return
	}
	_, err := h.cfg.Broker.Append(ctx, ch.name, leaveEntry(id, l.member.Owner))
	if h.ctx.Err() != nil {
		return
	}
	if err == nil || errors.Is(err, broker.ErrNotOwner) {
		if err != nil {
			ch.removeUnlogged(id)
		}
		h.backlog.leaveAgain(l)
		return
	}
	ch.fan.Lock()
	if m := ch.replica.get(id); m != nil && m.Owner == l.member.Owner {
		ch.removeLocked(id)
	}
	ch.fan.Unlock()
	h.backlog.addLeaveOf(l, time.Time{})
	if !errors.Is(err, broker.ErrAway) {
		h.cfg.Notices.Warn("cannot append the leave of a member; pushy retries", ch.name,
			slog.String("channel", ch.name), slog.Any("error", err))
	}
}
