package pushy

import (
	"encoding/json"
	"errors"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/lifecycle"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/wire"
)

type subState uint8

const (
	subJoining subState = iota
	subHooked           // a member, but the Subscribe hook has not returned
	subLive
	subEnded
)

// subscription is one connection's membership of one channel. Its gate keeps
// the rule that nothing of the channel comes before success or after end.
type subscription struct {
	out  *fanout.Outbox // conn's: a fan-out needs nothing else of it
	gate fanout.Gate
	// Under conn.mu, with the last two.
	state   subState
	leaving bool // leave as soon as it is live

	conn *connection
	name string
	ch   *Channel // set before it is live
	id   string   // the memberId
	slot int      // in ch.members, under ch.mu

	through chan struct{} // private: closed when the join has come back through the log

	end  *fanout.Frame
	gone chan struct{} // made by who waits for it to have left; closed then
}

// member reports whether sub is in the channel. It needs conn.mu.
func (sub *subscription) member() bool {
	return sub.state == subHooked || sub.state == subLive
}

func (c *connection) subscription(name string) *subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subs.Get(name)
}

// reserve takes the connection's place in a channel before the slow part of
// joining, so that a second join of the same name is refused meanwhile. An
// earlier membership that another goroutine is ending must have left the log
// first, or the client would be in its own list twice and get its own quit.
func (c *connection) reserve(name string) (*subscription, error) {
	for {
		sub, earlier, err := c.tryReserve(name)
		if earlier == nil {
			return sub, err
		}
		if lifecycle.Wait(c.ctx, earlier) != nil {
			return nil, ErrClosed
		}
	}
}

// tryReserve returns earlier, to wait for, while a membership is being ended.
func (c *connection) tryReserve(name string) (sub *subscription, earlier <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.code != 0 {
		return nil, nil, ErrClosed
	}
	if old := c.subs.Get(name); old != nil && old.state == subEnded {
		if old.gone == nil {
			old.gone = make(chan struct{})
		}
		return nil, old.gone, nil
	} else if old != nil {
		return nil, nil, &JoinError{Channel: name, Reason: "Already subscribed to this channel"}
	}
	if limit := c.srv.opts.Limits.Channels; limit > 0 && c.subs.Len() >= limit {
		return nil, nil, errTooManyChannels
	}
	sub = &subscription{out: c.out, conn: c, name: name, id: c.srv.newMemberID()}
	c.subs.Add(name, sub)
	c.hooks.Start()
	return sub, nil, nil
}

func (c *connection) unreserve(sub *subscription) {
	c.mu.Lock()
	sub.state = subEnded
	c.subs.Remove(sub.name)
	c.mu.Unlock()
	c.hooks.End()
}

// join is Join for a lower-cased, checked name. id goes back in the success.
func (r *registry) join(conn *connection, name string, data, id json.RawMessage) error {
	s := r.srv
	if conn.srv != s {
		return errors.New("pushy: join: the connection belongs to another Server")
	}
	var fields []byte
	if names.Private(name) {
		var reason string
		if fields, reason = wire.PresenceFields(data, s.opts.Limits.PresenceBytes); reason != "" {
			return &JoinError{Channel: name, Reason: reason}
		}
	}
	sub, err := conn.reserve(name)
	if err != nil {
		return err
	}
	ch, err := r.acquire(conn.ctx, name)
	if err != nil {
		conn.unreserve(sub)
		return joinFailed(conn, name, err)
	}
	sub.ch = ch
	success := wire.Object(nil).Text("channel", name).Text("memberId", sub.id)
	if ch.private {
		err = ch.joinPrivate(sub, s.newMember(sub.id, fields), success, id)
	} else {
		ch.admit(sub, replyFrame(eventSuccess, success, id))
	}
	if err != nil {
		conn.unreserve(sub)
		ch.life.Release()
		return joinFailed(conn, name, err)
	}

	conn.mu.Lock()
	sub.state = subHooked
	conn.mu.Unlock()
	if subscribe := s.opts.Hooks.Subscribe; subscribe != nil {
		s.hook("Subscribe", func() { subscribe(&conn.plain, ch) })
	}
	conn.mu.Lock()
	sub.state = subLive
	leaving, end := sub.leaving, sub.end
	conn.mu.Unlock()
	if leaving {
		sub.leave(end)
	}
	return nil
}

// joinFailed is the error of a join that Broker or PresenceStore let down.
func joinFailed(conn *connection, name string, err error) error {
	var refused *JoinError
	switch {
	case errors.As(err, &refused):
		return refused
	case conn.ctx.Err() != nil:
		return ErrClosed
	}
	return &JoinError{Channel: name, Reason: temporarilyUnavailable, Err: err}
}

// admit makes sub a member: success is queued and the gate opened in one step.
func (ch *Channel) admit(sub *subscription, success *fanout.Frame) {
	ch.mu.Lock()
	sub.slot = ch.members.Add(sub)
	ch.mu.Unlock()
	sub.conn.out.Open(&sub.gate, success)
}

// leave ends a live membership; end, if not nil, is the client's last word of
// it. It reports whether this call ended it. The members elsewhere hear of it
// through the log; a store that cannot be reached sweeps the member later.
func (sub *subscription) leave(end *fanout.Frame) bool {
	c := sub.conn
	c.mu.Lock()
	if sub.state != subLive {
		c.mu.Unlock()
		return false
	}
	ch := sub.ch
	sub.state = subEnded
	c.mu.Unlock()

	ch.mu.Lock()
	ch.members.Remove(sub, sub.slot)
	ch.mu.Unlock()
	c.out.Shut(&sub.gate, end)
	if ch.private {
		ch.logLeave(sub.id)
	}
	c.mu.Lock()
	c.subs.Remove(sub.name) // only now may the next membership begin: see reserve
	if sub.gone != nil {
		close(sub.gone)
	}
	c.mu.Unlock()
	s := c.srv
	if unsubscribe := s.opts.Hooks.Unsubscribe; unsubscribe != nil {
		s.hook("Unsubscribe", func() { unsubscribe(&c.plain, ch) })
	}
	ch.life.Release()
	c.hooks.End()
	return true
}

// leaveSoon is leave for a membership that may not be through joining: then the
// joiner ends it.
func (sub *subscription) leaveSoon(end *fanout.Frame) bool {
	sub.conn.mu.Lock()
	if sub.state == subJoining || sub.state == subHooked {
		first := !sub.leaving
		sub.leaving = true
		if first {
			sub.end = end
		}
		sub.conn.mu.Unlock()
		return first
	}
	sub.conn.mu.Unlock()
	return sub.leave(end)
}

// logLeave does not depend on the connection, which may be gone.
func (ch *Channel) logLeave(memberID string) {
	s := ch.reg.srv
	if s.ctx.Err() != nil {
		return // the store is closed
	}
	ctx, cancel := s.operation(s.ctx)
	defer cancel()
	if err := s.presence.Leave(ctx, ch.name, memberID); err != nil {
		s.log.Error("cannot log a member's leaving", "channel", ch.name, "error", err)
	}
}
