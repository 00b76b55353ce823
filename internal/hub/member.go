package hub

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/lifecycle"
)

type memberState uint8

const (
	memberJoining memberState = iota
	memberHooked              // a member, but the Subscribe hook has not returned
	memberLive
	memberEnded
)

// membership is the membership of one connection in one channel. Its gate ensures that the
// client receives nothing from the channel before the Subscribed event or after the Ended
// event.
type membership struct {
	out  *fanout.Outbox // of the connection, so that a fan-out does not need to read conn
	gate fanout.Gate

	// conn.mu guards state, leaving, end and gone.
	state   memberState
	leaving bool // it must end as soon as it is live
	noPast  bool // it must not read past events; set before it is live

	conn *Conn
	name string
	ch   *Channel // set before it is live
	id   string
	slot int // in ch.members, under ch.mu

	presence Presence // as the client asked for it
	watches  bool     // it is in ch.watchers; under ch.fan
	watcher  int      // its place there

	logged *loggedMember // of a private channel, else nil

	end  *fanout.Frame
	gone chan struct{} // nil until a goroutine waits for the leave; closed when the leave is complete
}

// loggedMember is a membership in the broker's log.
type loggedMember struct {
	member Member
	// changed is buffered. It has an element if the join has arrived, or if a Reset has shown
	// that the log may have lost it.
	changed chan struct{}

	// The channel's fan guards arrived, request and past, and, after arrived is set, also
	// the data and the state of member.
	arrived bool // the broker has delivered the join, or is away
	request []byte
	past    *pastRequest // nil when it has been answered
	dirty   bool         // the log may have another data or state
	alone   bool         // an update was applied on this node before it is in the log

	updating chan struct{} // has an element while an update is being appended; nil at first

	// late is set if the broker could not say whether it has appended the Join. Until this
	// time the Join can still be appended, possibly after a Leave.
	late atomic.Pointer[time.Time]
}

// uncertain records that an attempt to append the Join has failed, unless the error
// excludes that the Join is appended later.
func (m *membership) uncertain(err error) {
	h := m.conn.hub
	if h.cfg.Local || errors.Is(err, broker.ErrNotOwner) || errors.Is(err, broker.ErrMemberExists) ||
		errors.Is(err, broker.ErrTooLarge) {
		return
	}
	late := time.Now().Add(h.cfg.Lease)
	m.logged.late.Store(&late)
}

// notify wakes logJoin.
func (l *loggedMember) notify() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// isMember reports whether the connection is in the channel. The caller must have locked
// conn.mu.
func (m *membership) isMember() bool {
	return m.state == memberHooked || m.state == memberLive
}

func (m *membership) hasEnded() bool {
	m.conn.mu.Lock()
	defer m.conn.mu.Unlock()
	return m.state == memberEnded
}

func (c *Conn) membership(channel string) *membership {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members.get(channel)
}

// Join makes the connection a member of a channel. On success its Subscribed event is
// queued before Join returns nil; on failure nothing is queued. Join waits for the broker
// until the connection ends. Data is used only in private channels with presence.
func (c *Conn) Join(r JoinRequest) error {
	err := c.join(r)
	if err != nil && !r.Trusted {
		c.hub.logRefusal(r.Channel, err)
	}
	return err
}

// logRefusal logs the cause of a failed Join that the client does not see.
func (h *Hub) logRefusal(channel string, err error) {
	var refused *RefusedError
	var unavailable *UnavailableError
	var cause error
	subject := channel
	switch {
	case errors.As(err, &refused):
		cause = refused.Err
	case errors.As(err, &unavailable):
		cause = unavailable.Err
	case errors.Is(err, ErrDataTooLarge), errors.Is(err, ErrChannelFull):
		cause = err
	case errors.Is(err, ErrTooManyChannels):
		cause = err
		subject = "" // the cause does not depend on the channel
	}
	if cause != nil {
		h.cfg.Notices.Warn("clients cannot subscribe", subject,
			slog.String("channel", channel), slog.Any("error", cause))
	}
}

func (c *Conn) join(r JoinRequest) error {
	h := c.hub
	policy, err := h.PolicyOf(r.Channel)
	if err != nil {
		return &UnavailableError{}
	}
	noPast := false
	if !r.Trusted {
		err := h.cfg.Authorize(c.ctx, AuthRequest{
			Conn:    c,
			Channel: r.Channel,
			Private: policy.Private,
			Auth:    r.Auth,
			Data:    r.Data,
			Past:    r.Past.wants(),
		})
		noPast = errors.Is(err, ErrNoHistory)
		if err != nil && !noPast {
			return err
		}
	}
	var data []byte
	if policy.Private && policy.Presence {
		if data, err = h.cfg.Protocol.MemberData(r.Data); err != nil {
			return err
		}
	}
	m, err := c.reserve(r.Channel)
	if err != nil {
		return err
	}
	ch, err := h.acquire(c.ctx, r.Channel, policy)
	if err != nil {
		c.unreserve(m)
		return c.joinError(err)
	}
	m.ch = ch
	m.noPast = noPast
	m.presence = r.Presence
	if err = ch.enter(m, &r, policy, data); err != nil {
		c.unreserve(m)
		ch.life.release()
		return c.joinError(err)
	}
	m.begin()
	if !r.Trusted {
		c.chargeJoin(ch, r.Presence, r.Data)
	}
	return nil
}

// enter makes m a member of an open channel. data is the member's data, if policy allows it.
func (ch *Channel) enter(m *membership, r *JoinRequest, policy Policy, data []byte) error {
	c := m.conn
	h := ch.hub
	if ch.policy != policy {
		return errors.New("Options.Channel returned different results for one channel")
	}
	past := c.pastRequest(r, m.noPast)
	if err := ch.prepare(m, past); err != nil {
		return err
	}
	if !policy.Private {
		ch.joinPublic(m, past, r.Request)
		return nil
	}
	m.logged = &loggedMember{
		member: Member{
			ID:     m.id,
			Owner:  h.cfg.NewOwner(),
			Node:   h.cfg.Node,
			User:   c.UserID(),
			Data:   data,
			Joined: h.cfg.Now(),
			MemberState: MemberState{
				Idle: c.isIdle(),
			},
		},
		changed: make(chan struct{}, 1),
		request: r.Request,
		past:    past,
	}
	return ch.joinPrivate(m)
}

// logJoin appends the join of m and waits until the broker delivers it; then m is a member. If
// the broker is away, m becomes a member without it. The store can lose a join that it has
// accepted, for example because the store is emptied. The broker reports that with a Reset,
// and logJoin appends the join again, which has no effect if the log has it after all.
func (m *membership) logJoin(ctx context.Context) error {
	ch := m.ch
	join := ch.joinEntry(m)
	for {
		_, err := ch.hub.cfg.Broker.Append(ctx, ch.name, join)
		if err != nil {
			m.uncertain(err)
			if errors.Is(err, broker.ErrAway) && ch.joinAlone(m) {
				return nil
			}
			return err
		}
		if err := lifecycle.Wait(ctx, m.logged.changed); err != nil {
			return err
		}
		if ch.hasArrived(m) {
			return nil
		}
	}
}

// joinError returns the error of Join for an error of the channel or the broker.
func (c *Conn) joinError(err error) error {
	var unavailable *UnavailableError
	switch {
	case c.ctx.Err() != nil, errors.Is(err, ErrClosed):
		return ErrClosed
	case errors.Is(err, ErrChannelFull), errors.Is(err, ErrDataTooLarge), errors.As(err, &unavailable):
		return err
	}
	return &UnavailableError{Err: err}
}

// reserve adds a membership before the slow part of a join, so that a concurrent second
// join of the same channel is refused. If another goroutine is ending an earlier
// membership, reserve waits until the leave is logged; otherwise the client would be in its
// own list twice and would receive its own leave.
func (c *Conn) reserve(name string) (*membership, error) {
	for {
		m, earlier, err := c.tryReserve(name)
		if earlier == nil {
			return m, err
		}
		if lifecycle.Wait(c.ctx, earlier) != nil {
			return nil, ErrClosed
		}
	}
}

// tryReserve returns a channel to wait for if an earlier membership is being ended.
func (c *Conn) tryReserve(name string) (m *membership, earlier <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.code != 0 {
		return nil, nil, ErrClosed
	}
	old := c.members.get(name)
	switch {
	case old != nil && old.state == memberEnded:
		if old.gone == nil {
			old.gone = make(chan struct{})
		}
		return nil, old.gone, nil
	case old != nil:
		return nil, nil, ErrAlreadyMember
	}
	limit := c.hub.cfg.Limits.Channels
	if limit > 0 && c.members.len() >= limit {
		return nil, nil, fmt.Errorf("%w: Options.Limits.Channels is %d", ErrTooManyChannels, limit)
	}
	m = &membership{
		out:  c.out,
		conn: c,
		name: name,
		id:   c.hub.cfg.NewMemberID(),
	}
	c.members.add(m)
	c.hooks.Start()
	return m, nil, nil
}

func (c *Conn) unreserve(m *membership) {
	c.mu.Lock()
	m.state = memberEnded
	c.members.remove(m.name)
	c.mu.Unlock()
	c.hooks.End()
}

// begin runs the Subscribe hook for a new member. If the end of the membership was
// requested in the meantime, begin ends it.
func (m *membership) begin() {
	c := m.conn
	if subscribe := c.hub.cfg.Hooks.Subscribe; subscribe != nil {
		subscribe(c, m.ch)
	}
	c.mu.Lock()
	m.state = memberLive
	leaving, end := m.leaving, m.end
	idle := c.isIdleLocked()
	c.mu.Unlock()
	if idle && !leaving {
		m.updateIdle() // it may have become idle while it joined
	}
	if leaving {
		m.leave(end)
	}
}

// joinToken is the number of bytes for one token of the client's rate, counted over all
// bytes that the server sends because of a join.
const joinToken = 4 << 10

// chargeJoin charges the client's rate for a join of a presence channel that it has joined
// before: a token for each joinToken bytes that the server sends because of the join, at
// most half of the burst. The first join of each channel costs only its message, because a
// client that reconnects subscribes to all of its channels at once.
func (c *Conn) chargeJoin(ch *Channel, want Presence, data []byte) {
	limits := c.hub.cfg.Limits
	if limits.Rate <= 0 || !ch.policy.Private {
		return
	}
	tokens := min(ch.joinBytes(want, data)/joinToken, int64(limits.Burst/2))
	if tokens > 0 && !c.firstJoin(ch.name) {
		c.debt.Add(int32(tokens))
	}
}

// maxJoined is the number of channels that firstJoin remembers for one connection if
// Limits.Channels is off. They use less than 100 KiB.
const maxJoined = 4096

// firstJoin reports whether the connection joins a channel for the first time, and
// remembers the channel. It remembers at most as many channels as the connection may be in
// at once; when that number is reached, a join of another channel does not count as the
// first.
func (c *Conn) firstJoin(channel string) bool {
	most := c.hub.cfg.Limits.Channels
	if most <= 0 {
		most = maxJoined
	}
	// Clients cannot choose names with equal hashes, because the seed is random.
	hash := maphash.String(c.hub.seed, channel)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, joined := c.joined[hash]; joined || len(c.joined) >= most {
		return false
	}
	if c.joined == nil {
		c.joined = map[uint64]struct{}{}
	}
	c.joined[hash] = struct{}{}
	return true
}
