package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

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
		var refused *wire.PresenceError
		if fields, refused = wire.PresenceFields(data, s.opts.Limits.PresenceBytes); refused != nil {
			return &JoinError{
				Channel: name,
				Reason:  refused.Reason,
				Err:     refused,
			}
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
// it. It reports whether this call ended it.
func (sub *subscription) leave(end *fanout.Frame) bool {
	if !sub.endLive(end) {
		return false
	}
	s := sub.conn.srv
	if sub.ch.private && s.ctx.Err() == nil {
		ctx, cancel := s.operation(s.ctx)
		sub.ch.logLeave(ctx, sub.id)
		cancel()
	}
	sub.left()
	return true
}

// endLive ends a live membership for the client, which receives nothing of the
// channel any more; logLeave, if the channel is private, and left must follow. It
// reports whether this call ended it.
func (sub *subscription) endLive(end *fanout.Frame) bool {
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
	return true
}

// left is the end of leaving, when the log has it.
func (sub *subscription) left() {
	c := sub.conn
	c.mu.Lock()
	c.subs.Remove(sub.name) // only now may the next membership begin: see reserve
	if sub.gone != nil {
		close(sub.gone)
	}
	c.mu.Unlock()
	s := c.srv
	if unsubscribe := s.opts.Hooks.Unsubscribe; unsubscribe != nil {
		s.hook("Unsubscribe", func() { unsubscribe(&c.plain, sub.ch) })
	}
	sub.ch.life.Release()
	c.hooks.End()
}

const (
	// maxLeaves is how many channels of one connection are left at a time.
	maxLeaves = 32
	// maxLeavers is how many goroutines do so beside the connections' own, for
	// all connections together: thousands may be lost at one moment.
	maxLeavers = 1024
)

// leaveAll ends all memberships of a connection that is gone. The store is called
// for several at a time, within one operationTimeout for all: a store that does
// not answer must not hold up the Disconnect hook for each channel anew. What it
// has not taken by then it is still called for once, with a context that has
// ended, and sees to later, as its contract says.
func (s *Server) leaveAll(subs []*subscription) {
	var ended, private []*subscription
	for _, sub := range subs {
		sub.conn.mu.Lock()
		joining := sub.state == subJoining || sub.state == subHooked
		if joining {
			sub.leaving = true // the joiner ends it
		}
		sub.conn.mu.Unlock()
		if joining || !sub.endLive(nil) {
			continue
		}
		ended = append(ended, sub)
		if sub.ch.private {
			private = append(private, sub)
		}
	}
	if len(private) > 0 && s.ctx.Err() == nil {
		ctx, cancel := s.operation(s.ctx)
		s.logLeaves(ctx, private)
		cancel()
	}
	for _, sub := range ended {
		sub.left()
	}
}

// logLeaves calls the store for each of subs and returns when it has answered.
func (s *Server) logLeaves(ctx context.Context, subs []*subscription) {
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; int(i) < len(subs); i = next.Add(1) - 1 {
			subs[i].ch.logLeave(ctx, subs[i].id)
		}
	}
	var workers sync.WaitGroup
	for range min(len(subs), maxLeaves) - 1 {
		if s.inline || !s.startLeaver() {
			break
		}
		workers.Go(func() {
			defer s.leavers.Add(-1)
			work()
		})
	}
	work()
	workers.Wait()
}

// startLeaver reports whether one more goroutine may log leaves.
func (s *Server) startLeaver() bool {
	if s.leavers.Add(1) <= maxLeavers {
		return true
	}
	s.leavers.Add(-1)
	return false
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

// logLeave does not depend on the connection, which may be gone. The members
// elsewhere are notified through the log; a store that cannot be reached removes
// the member later.
func (ch *Channel) logLeave(ctx context.Context, memberID string) {
	s := ch.reg.srv
	if err := s.presence.Leave(ctx, ch.name, memberID); err != nil && s.ctx.Err() == nil {
		s.notices.Warn("cannot log that a member left; the store removes it later", ch.name,
			slog.String("channel", ch.name), slog.Any("error", err))
	}
}
