package hub

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/limit"
)

// Errors of the commands that concern members, and of events that clients send.
var (
	ErrNoPresence = errors.New("the channel has no presence")
	ErrNotAllowed = errors.New("clients cannot do that in the channel")
	ErrTooOften   = errors.New("too many changes")
)

const (
	// stateRate is the number of states that one connection can set each second, and at once
	// after a pause.
	stateRate = 4
	// idlePause is the least time between two changes of idle.
	idlePause = 10 * time.Second
)

// MemberState is what can change while a member stays. The log has it apart from the
// member's data.
type MemberState struct {
	State   []byte // what the client or the host has set, an object in the protocol's form; nil if there is none
	StateAt int64  // when it was set, by the clock of the node, in Unix milliseconds
	Idle    bool   // the user is not active at this client
}

// presenter has the part of a Conn that only few clients need.
type presenter struct {
	idle   bool
	idleAt time.Time    // of the last change
	states limit.Budget // of states that the client sets
	events limit.Budget // of events that it sends
}

// presenterLocked returns the connection's presenter. The caller has locked c.mu.
func (c *Conn) presenterLocked() *presenter { return &c.fewLocked().presenter }

// isIdleLocked reports whether the client has said that it is idle. The caller has locked c.mu.
func (c *Conn) isIdleLocked() bool { return c.few != nil && c.few.idle }

func (c *Conn) isIdle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isIdleLocked()
}

// SetOwnState sets the state of the connection's member of a channel at the request of the
// client. The error is ErrNotMember, ErrNoPresence, ErrNotAllowed, ErrTooOften,
// ErrDataTooLarge or that of the broker.
func (c *Conn) SetOwnState(channel string, state []byte) error {
	m := c.membership(channel)
	switch {
	case m == nil || !c.isIn(m):
		return ErrNotMember
	case m.logged == nil || !m.ch.policy.Presence:
		return ErrNoPresence
	case !m.ch.policy.ClientState:
		return ErrNotAllowed
	}
	c.mu.Lock()
	verdict := c.presenterLocked().states.Spend(time.Now(), stateRate, stateRate)
	c.mu.Unlock()
	if verdict != limit.OK {
		return ErrTooOften
	}
	return c.SetState(channel, state)
}

// SetState sets the state of the connection's member of a channel. The errors are those of
// SetOwnState. While the broker is away, only the members on this node are notified; the
// others are notified when it can be reached again.
func (c *Conn) SetState(channel string, state []byte) error {
	m := c.membership(channel)
	switch {
	case m == nil || !c.isIn(m):
		return ErrNotMember
	case m.logged == nil || !m.ch.policy.Presence:
		return ErrNoPresence
	}
	at := c.hub.cfg.Now().UnixMilli()
	return m.ch.update(&c.ctx, m, func(member *Member) {
		member.State = state
		member.StateAt = at
	})
}

// SetIdle says whether the user of the connection is idle, for all of its members. The error
// is ErrTooOften.
func (c *Conn) SetIdle(idle bool) error {
	now := time.Now()
	c.mu.Lock()
	p := c.presenterLocked()
	if !p.idleAt.IsZero() && now.Sub(p.idleAt) < idlePause {
		c.mu.Unlock()
		return ErrTooOften
	}
	p.idle = idle
	p.idleAt = now
	var members []*membership
	for _, m := range c.members.values() {
		// A member that is joining calls updateIdle when it has joined.
		if m.isMember() && m.logged != nil && m.ch.policy.Presence {
			members = append(members, m)
		}
	}
	c.mu.Unlock()
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; int(i) < len(members); i = next.Add(1) - 1 {
			members[i].updateIdle()
		}
	}
	var workers sync.WaitGroup
	for range min(len(members), maxLeaves) - 1 {
		if c.hub.cfg.Local {
			break
		}
		workers.Go(work)
	}
	work()
	workers.Wait()
	return nil
}

// updateIdle makes the member as idle as its connection.
func (m *membership) updateIdle() {
	if m.logged == nil || !m.ch.policy.Presence {
		return
	}
	idle := m.conn.isIdle()
	err := m.ch.update(&m.conn.ctx, m, func(member *Member) { member.Idle = idle })
	if err != nil && m.conn.ctx.Err() == nil {
		m.conn.hub.cfg.Notices.Warn("cannot update whether a member is idle", m.ch.name,
			slog.String("channel", m.ch.name), slog.Any("error", err))
	}
}

// update changes a member of this node, and appends the change. This node decides about the
// data and the state of its members: its own value is the right one, also while the log has
// another. While the broker is away, the backlog appends the change later.
func (ch *Channel) update(ctx context.Context, m *membership, set func(member *Member)) error {
	l := m.logged
	release, err := l.holdUpdates(ctx, ch)
	if err != nil {
		return ErrClosed
	}
	defer release()
	ch.fan.Lock()
	before := l.member
	wasDirty := l.dirty
	set(&l.member)
	if l.member.differsFrom(&before) == 0 && l.member.StateAt == before.StateAt {
		ch.fan.Unlock()
		return nil
	}
	l.dirty = true
	on := ch.replica.on
	ch.fan.Unlock()
	if !on {
		return nil // nobody sees it; it is appended if a member turns presence on
	}
	err = ch.appendUpdate(l)
	switch {
	case err == nil, errors.Is(err, broker.ErrNotOwner):
		return nil // after ErrNotOwner, the member has ended, or joins again with its state
	case errors.Is(err, broker.ErrTooLarge):
		ch.fan.Lock()
		l.member.Data = before.Data
		l.member.MemberState = before.MemberState
		l.dirty = wasDirty
		ch.fan.Unlock()
		return ErrDataTooLarge
	}
	ch.updateAlone(m)
	if !errors.Is(err, broker.ErrAway) {
		ch.hub.cfg.Notices.Warn("cannot append the state of a member; pushy retries", ch.name,
			slog.String("channel", ch.name), slog.Any("error", err))
	}
	return nil
}

// holdUpdates makes the caller the only one that appends updates of the member, so that the
// last one is the newest. It waits on a channel because a goroutine that waits for a mutex
// would stop the fake time of testing/synctest.
func (l *loggedMember) holdUpdates(ctx context.Context, ch *Channel) (release func(), err error) {
	ch.fan.Lock()
	if l.updating == nil {
		l.updating = make(chan struct{}, 1)
	}
	updating := l.updating
	ch.fan.Unlock()
	select {
	case updating <- struct{}{}:
		return func() { <-updating }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// appendUpdate appends the present data and state of a member. The caller holds its updates.
func (ch *Channel) appendUpdate(l *loggedMember) error {
	h := ch.hub
	ch.fan.Lock()
	e := ch.entryOf(&l.member, broker.Update)
	ch.fan.Unlock()
	ctx, cancel := h.operation(h.ctx)
	defer cancel()
	_, err := h.cfg.Broker.Append(ctx, ch.name, e)
	if err == nil {
		ch.fan.Lock()
		l.dirty = false
		ch.fan.Unlock()
	}
	return err
}

// appendLate appends the data and the state of a member if the log does not have them. The
// backlog calls it after the member's Join.
func (ch *Channel) appendLate(l *loggedMember) error {
	ch.fan.Lock()
	dirty := l.dirty && ch.replica.on
	ch.fan.Unlock()
	if !dirty {
		return nil
	}
	release, err := l.holdUpdates(ch.hub.ctx, ch)
	if err != nil {
		return err
	}
	defer release()
	if err := ch.appendUpdate(l); !errors.Is(err, broker.ErrNotOwner) {
		return err
	}
	return nil
}

// updateAlone applies a change that could not be appended, and leaves the rest to the backlog.
func (ch *Channel) updateAlone(m *membership) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	member := m.logged.member
	seen := ch.replica.get(m.id)
	if seen == nil || seen.Owner != member.Owner {
		return
	}
	m.logged.alone = true
	ch.changedLocked(ch.replica.update(seen, member.Data, member.MemberState), ch.exceptOwnLocked(m.logged))
	ch.hub.backlog.addJoin(m.logged)
}

// updateLocked applies an Update of the log.
func (ch *Channel) updateLocked(e broker.Entry) {
	m := ch.replica.get(e.Member)
	if m == nil || m.Owner != e.Owner || !ch.policy.Presence {
		return
	}
	state := ch.hub.cfg.Protocol.ParseState(e.State)
	own := ch.own[e.Member]
	if own != nil && (own.arrived || own.adopting) {
		if !own.dirty { // for the next change, and in case the member has to join again
			own.member.Data = e.Data
			own.member.MemberState = state
		}
		if own.alone {
			own.alone = false
			ch.log.restart(e.At)
		}
	}
	c := ch.replica.update(m, e.Data, state)
	ch.changedLocked(c, ch.exceptOwnLocked(own))
}

// exceptOwnLocked returns the membership that is not notified of an update of its own
// member. What the members of one user have in common concerns all of them.
func (ch *Channel) exceptOwnLocked(own *loggedMember) *membership {
	if ch.policy.PerUser || own == nil {
		return nil
	}
	return own.by
}

// entryOf returns the Join or Update that logs a member.
func (ch *Channel) entryOf(m *Member, kind broker.Kind) broker.Entry {
	return broker.Entry{
		Kind:   kind,
		Member: m.ID,
		Owner:  m.Owner,
		User:   m.User,
		Data:   m.Data,
		State:  ch.hub.cfg.Protocol.AppendState(nil, m.MemberState),
		Joined: m.Joined,
	}
}
