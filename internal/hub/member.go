package hub

import (
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

// membership is one connection's membership of one channel. Its gate keeps the
// rule that nothing of the channel comes before its Subscribed or after its Ended.
type membership struct {
	out  *fanout.Outbox // the connection's: a fan-out needs nothing else of it
	gate fanout.Gate

	// Under conn.mu, with end and gone.
	state   memberState
	leaving bool // leave as soon as it is live

	conn *Conn
	name string
	ch   *Channel // set before it is live
	id   string
	slot int // in ch.members, under ch.mu

	logged *loggedMember // of a private channel, else nil

	end  *fanout.Frame
	gone chan struct{} // made by whoever waits for it to have left; closed then
}

// loggedMember is a membership in the broker's log.
type loggedMember struct {
	member  Member
	through chan struct{} // closed when the join has come back through the log

	// Under the channel's fan, as is member.Data once through is closed.
	arrived bool // through is closed
	request []byte

	// late is until when a Join may still be appended of which the broker could not
	// say whether it was, so that a Leave before then may be in vain; nil if there is none.
	late atomic.Pointer[time.Time]
}

// uncertain notes that the broker failed to append the Join with an error that does
// not exclude that it is appended later.
func (m *membership) uncertain(err error) {
	h := m.conn.hub
	if h.cfg.Local || errors.Is(err, broker.ErrNotOwner) || errors.Is(err, broker.ErrMemberExists) ||
		errors.Is(err, broker.ErrTooLarge) {
		return
	}
	late := time.Now().Add(h.cfg.Lease)
	m.logged.late.Store(&late)
}

// isMember reports whether the connection is in the channel. It needs conn.mu.
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

// JoinRequest describes a Join.
type JoinRequest struct {
	Channel string // as the protocol spells it, checked
	Auth    string // as the client sent it
	Data    []byte // presence data as the client sent it, nil for none
	Request []byte // goes back in the answer
	// Trusted means that the host has decided the join: Authorize is not called, and the
	// join does not count towards the client's rate.
	Trusted bool
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

// logRefusal logs what a client is not to see of a Join that failed.
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
		subject = "" // whatever channels it asks for
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
	if !r.Trusted {
		err := h.cfg.Authorize(c.ctx, AuthRequest{
			Conn:    c,
			Channel: r.Channel,
			Private: policy.Private,
			Auth:    r.Auth,
			Data:    r.Data,
		})
		if err != nil {
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
	if ch.policy != policy {
		err = errors.New("Options.Channel returned different results for one channel")
	} else if policy.Private {
		m.logged = &loggedMember{
			member: Member{
				ID:     m.id,
				Owner:  h.cfg.NewOwner(),
				Node:   h.cfg.Node,
				User:   c.UserID(),
				Data:   data,
				Joined: h.cfg.Now(),
			},
			through: make(chan struct{}),
			request: r.Request,
		}
		err = ch.joinPrivate(m)
	} else {
		ch.admit(m, h.frame(&Event{
			Kind:    Subscribed,
			Channel: ch.name,
			Member:  m.id,
			Request: r.Request,
		}))
	}
	if err != nil {
		c.unreserve(m)
		ch.life.release()
		return c.joinError(err)
	}
	m.begin()
	if !r.Trusted {
		c.chargeJoin(ch, r.Data)
	}
	return nil
}

// joinError is the error of a join that the broker let down.
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

// reserve takes the connection's place in a channel before the slow part of
// joining, so that a second join of the same name is refused meanwhile. An
// earlier membership that another goroutine is ending must have left the log
// first, or the client would be in its own list twice and receive its own leave.
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

// tryReserve returns earlier, to wait for, while a membership is being ended.
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

// begin runs the Subscribe hook of a new member and ends the membership if
// somebody asked for that meanwhile.
func (m *membership) begin() {
	c := m.conn
	if subscribe := c.hub.cfg.Hooks.Subscribe; subscribe != nil {
		subscribe(c, m.ch)
	}
	c.mu.Lock()
	m.state = memberLive
	leaving, end := m.leaving, m.end
	c.mu.Unlock()
	if leaving {
		m.leave(end)
	}
}

// joinToken is how many bytes of what a join makes the server send cost one token
// of the client's rate.
const joinToken = 4 << 10

// chargeJoin charges the client's rate for a join of a presence channel that it
// has joined before, by the size of what that made the server send, at most half
// the burst. The first join of each channel costs one message: a client that
// reconnects may subscribe to all of its channels at once.
func (c *Conn) chargeJoin(ch *Channel, data []byte) {
	limits := c.hub.cfg.Limits
	if limits.Rate <= 0 || !ch.policy.Private {
		return
	}
	tokens := min(ch.joinBytes(data)/joinToken, int64(limits.Burst/2))
	if tokens > 0 && !c.firstJoin(ch.name) {
		c.debt.Add(int32(tokens))
	}
}

// maxJoined is how many channels firstJoin remembers of one connection where
// Limits.Channels is off. They take less than 100 KiB.
const maxJoined = 4096

// firstJoin reports whether the connection joins a channel for the first time,
// and remembers that it did. It remembers no more channels than the connection may
// be in at once: a join of any other never counts as the first.
func (c *Conn) firstJoin(channel string) bool {
	most := c.hub.cfg.Limits.Channels
	if most <= 0 {
		most = maxJoined
	}
	// Clients cannot choose names that have one hash, since its seed is random.
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
