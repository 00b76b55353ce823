package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/lifecycle"
)

type memberState uint8

const (
	memberJoining memberState = iota
	memberHooked              // a member, but the Subscribe or Resume hook has not returned
	memberLive
	memberEnded
	memberGone // the end is complete
)

// membership is the membership of one connection in one channel. Its gate ensures that the
// client receives nothing from the channel before the Subscribed event or after the Ended
// event.
type membership struct {
	out  *fanout.Outbox // of the connection, so that a fan-out does not need to read conn
	gate fanout.Gate

	// conn.mu guards state, leaving, stay, clientEvents, over, next, and, when it is live, noPast
	// and lease.
	state        memberState
	leaving      bool // it must end as soon as it is live
	stay         bool // with leaving: the member is held then
	clientEvents bool // the client can send events to the channel, see Grant

	// These are set before it is live.
	noPast   bool     // it must not read past events
	hold     bool     // its member is held when the connection ends
	returned bool     // the client has named a member that it wanted to take over
	entrance entrance // how it began

	conn *Conn
	name string
	ch   *Channel // set before it is live
	id   string
	slot int         // in ch.members, under ch.mu
	next *membership // in conn.members, under conn.mu

	logged  *loggedMember // of a private channel, else nil
	*viewer               // nil in a public channel; set before it is live

	lease *lease   // nil if it has no end
	over  *ofEnded // nil until its end is requested, or a goroutine waits for it
}

// viewer is the part of a membership of a private channel that only presence needs.
type viewer struct {
	presence Presence // as the client asked for it
	watches  bool     // it is in ch.watchers; under ch.fan
	watcher  int      // its place there
	part     uint64   // the first part of a batch that it receives, see splitLocked; under ch.fan
	previous string   // with tookOver: the id of the connection that had the member before
}

// ofEnded is the part of a membership that only its end needs. conn.mu guards it.
type ofEnded struct {
	end  *fanout.Frame // of a membership that must end as soon as it is live
	gone chan struct{} // nil until a goroutine waits for the end; closed when the end is complete
}

func (m *membership) overLocked() *ofEnded {
	if m.over == nil {
		m.over = &ofEnded{}
	}
	return m.over
}

// goneLocked returns a channel that is closed when the end of m is complete.
func (m *membership) goneLocked() <-chan struct{} {
	over := m.overLocked()
	if over.gone == nil {
		over.gone = make(chan struct{})
		if m.state == memberGone {
			close(over.gone)
		}
	}
	return over.gone
}

// isMember reports whether the connection is in the channel. The caller must have locked
// conn.mu.
func (m *membership) isMember() bool {
	return m.state == memberHooked || m.state == memberLive
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
	if err != nil {
		c.hub.counts.joins.Add(joinOutcome(err))
	}
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
	p, err := c.permit(&c.ctx, &r)
	if err != nil {
		return err
	}
	_, err = c.joinPermitted(&r, p)
	return err
}

// permit is what allows a join.
type permit struct {
	policy Policy
	grant  Grant
}

// permit asks whether the connection may join a channel.
func (c *Conn) permit(ctx context.Context, r *JoinRequest) (p permit, err error) {
	h := c.hub
	if !r.Trusted && !c.allowJoin(time.Now()) {
		return p, ErrTooManyJoins
	}
	if reason, banned := h.banned("", r.Channel); banned {
		return p, &RefusedError{
			Reason: reason,
			Code:   "403",
		}
	}
	if p.policy, err = h.PolicyOf(r.Channel); err != nil {
		return p, &UnavailableError{}
	}
	p.grant = Grant{ClientEvents: r.Trusted}
	if r.Trusted {
		return p, nil
	}
	p.grant, err = h.cfg.Authorize(ctx, AuthRequest{
		Conn:    c,
		Channel: r.Channel,
		Private: p.policy.Private,
		Auth:    r.Auth,
		Data:    r.Data,
		Past:    r.Past.wants(),
		Claims:  r.Claims,
	})
	if err != nil {
		h.revoked(c, r, p.policy, err)
		return p, err
	}
	if p.grant.Data != nil {
		r.Data = p.grant.Data
	}
	return p, nil
}

// joinPermitted joins a channel. The result is what the Subscribed event says about the past, or
// nil.
func (c *Conn) joinPermitted(r *JoinRequest, p permit) (*PastAnswer, error) {
	h := c.hub
	policy := p.policy
	var data []byte
	var err error
	if policy.Private && policy.Presence {
		if data, err = h.cfg.Protocol.MemberData(r.Data); err != nil {
			return nil, err
		}
	}
	m, err := c.reserve(r.Channel)
	if err != nil {
		return nil, err
	}
	ch, err := h.acquire(&c.ctx, r.Channel, policy)
	if err != nil {
		c.unreserve(m)
		return nil, c.joinError(err)
	}
	m.ch = ch
	m.noPast = p.grant.NoPast
	m.clientEvents = p.grant.ClientEvents
	expires := newLease(m, p.grant.Expires)
	m.lease = expires
	if policy.Private {
		m.viewer = &viewer{presence: r.Presence}
	}
	past := c.pastRequest(r, p.grant.NoPast)
	if err = ch.enter(m, r, policy, data, past); err != nil {
		c.unreserve(m)
		ch.life.release()
		return nil, c.joinError(err)
	}
	h.counts.joined(m, past)
	m.startLease(expires)
	if reason, banned := h.banned("", r.Channel); banned {
		m.leaveSoon(m.endFrame(reason, nil)) // the ban came during the join, and has not found it
	}
	m.begin()
	if past.missed {
		h.observers.missed(c, ch)
	}
	if !r.Trusted {
		c.chargeJoin(m, r.Data, past.bytes)
	}
	return past.answer, nil
}

// enter makes m a member of an open channel. data is the member's data, if policy allows it.
func (ch *Channel) enter(m *membership, r *JoinRequest, policy Policy, data []byte, past *pastRequest) error {
	if ch.policy != policy {
		return errors.New("Options.Channel returned different results for one channel")
	}
	m.returned = r.Return.ID != ""
	ch.noteForm(m.out.Form())
	if err := ch.prepare(m, past); err != nil {
		return err
	}
	if !policy.Private {
		ch.joinPublic(m, past, r.Request)
		return nil
	}
	return ch.joinOrResume(m, r, data, past)
}

// joinOrResume makes m the membership of the member that the client has had before, or of a
// new member. Only the members of private channels with presence are held.
func (ch *Channel) joinOrResume(m *membership, r *JoinRequest, data []byte, past *pastRequest) error {
	c := m.conn
	h := ch.hub
	m.hold = r.Hold && ch.policy.Presence
	if m.returned && ch.policy.Presence {
		resumed, gone, err := ch.resume(m, r, data, past)
		if resumed || err != nil {
			return err
		}
		m.id = h.newMemberID()
		m.entrance = entered
		h.restoreID(m, gone)
	}
	claimed := time.Now().UnixMilli()
	m.logged = &loggedMember{
		ch:      ch,
		claimed: claimed,
		member: Member{
			ID:     m.id,
			Owner:  h.newOwner(claimed),
			Node:   h.cfg.Node,
			User:   cmp.Or(r.User, c.UserID()),
			Data:   data,
			Joined: h.cfg.Now(),
			MemberState: MemberState{
				Idle: c.isIdle(),
			},
		},
		delivered: make(chan struct{}),
		changed:   make(chan struct{}, 1),
		by:        m,
		request:   r.Request,
		past:      past,
	}
	return ch.joinPrivate(m)
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
		if lifecycle.Wait(&c.ctx, earlier) != nil {
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
		return nil, old.goneLocked(), nil
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
		id:   c.hub.newMemberID(),
	}
	c.members.add(m)
	c.hooks.Start()
	return m, nil, nil
}

func (c *Conn) unreserve(m *membership) {
	c.mu.Lock()
	m.state = memberGone
	c.members.remove(m.name)
	c.mu.Unlock()
	c.hooks.End()
}

// begin runs the Subscribe hook for a new member, or the Resume hook for a member that was on
// this node. If the end of the membership was requested in the meantime, begin ends it.
func (m *membership) begin() {
	c := m.conn
	hooks := &c.hub.cfg.Hooks
	if m.logged != nil {
		m.logged.hooked = true
	}
	if m.entrance != tookOver {
		c.hub.observers.joined(c, m.ch, m.id, m.logged != nil)
	}
	switch {
	case m.entrance == tookOver && hooks.Resume != nil:
		hooks.Resume(c, m.ch, m.previous)
	case m.entrance != tookOver && hooks.Subscribe != nil:
		hooks.Subscribe(c, m.ch, m.entrance == moved)
	}
	c.mu.Lock()
	m.state = memberLive
	leaving := m.leaving
	stay := m.stay
	var end *fanout.Frame
	if m.over != nil {
		end = m.over.end
	}
	idle := c.isIdleLocked()
	c.mu.Unlock()
	switch {
	case leaving && stay && end != nil:
		m.endForTakeOver(end)
	case leaving && stay && m.hold:
		m.endGracefully()
	case leaving:
		m.leave(end)
	case idle:
		m.updateIdle() // it may have become idle while it joined
	}
}

// joinToken is the number of bytes for one token of the joins of a connection, counted over all
// bytes that the server sends because of a join.
const joinToken = 4 << 10

// allowJoin takes a token for a join. If there is none, the join is refused.
func (c *Conn) allowJoin(now time.Time) bool {
	limits := &c.hub.cfg.Limits
	c.mu.Lock()
	_, ok := c.joins.Take(now, 1, limits.JoinRate, limits.JoinBurst)
	c.mu.Unlock()
	if !ok {
		c.hub.cfg.Notices.Warn("clients cannot subscribe: one of them subscribes too often", "",
			slog.String("conn", c.id),
			slog.String("hint", fmt.Sprintf("Options.Limits.JoinRate is %d subscriptions a second and JoinBurst is %d; "+
				"large answers count by their size", limits.JoinRate, limits.JoinBurst)))
	}
	return ok
}

// chargeJoin charges a join of a channel that the client has joined before: a token for each
// joinToken bytes that the server sends because of it, without a bound, so that no sequence of
// joins and leaves makes the server send more than that for each token. The first join of each
// channel costs one token, because a client that reconnects subscribes to all of its channels at
// once. A member that was taken over costs only its replay.
func (c *Conn) chargeJoin(m *membership, data []byte, replayed int64) {
	bytes := replayed
	if m.ch.policy.Private && m.entrance == entered {
		bytes += m.ch.joinBytes(m.presence, data)
	}
	tokens := int(bytes / joinToken)
	if tokens > 0 && c.firstJoin(m.name) {
		tokens = 0
	}
	if m.entrance != entered {
		tokens-- // it was taken by allowJoin
	}
	c.mu.Lock()
	c.joins.Charge(tokens)
	c.mu.Unlock()
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
	few := c.fewLocked()
	if _, joined := few.joined[hash]; joined || len(few.joined) >= most {
		return false
	}
	if few.joined == nil {
		few.joined = map[uint64]struct{}{}
	}
	few.joined[hash] = struct{}{}
	return true
}
