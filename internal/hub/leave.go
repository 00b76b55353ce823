package hub

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
)

// Leave ends the connection's membership of a channel, and an Ended event is queued. A join
// that is in progress ends when it is complete. The error is ErrNotMember.
func (c *Conn) Leave(channel, reason string, request []byte) error {
	m := c.membership(channel)
	if m == nil {
		return ErrNotMember
	}
	if !m.leaveSoon(m.endFrame(reason, request)) {
		return ErrNotMember
	}
	return nil
}

func (m *membership) endFrame(reason string, request []byte) *fanout.Frame {
	return m.conn.hub.frame(&Event{
		Kind:    Ended,
		Channel: m.name,
		Reason:  reason,
		Request: request,
	})
}

// leaveSoon is leave for a membership that may not be through joining: then the
// joiner ends it.
func (m *membership) leaveSoon(end *fanout.Frame) bool {
	m.conn.mu.Lock()
	if m.state == memberJoining || m.state == memberHooked {
		first := !m.leaving
		m.leaving = true
		if first {
			m.end = end
		}
		m.conn.mu.Unlock()
		return first
	}
	m.conn.mu.Unlock()
	return m.leave(end)
}

// endInBackground ends a membership that another node has adopted, or that the log
// cannot have. It may be called under locks, and waits for no hook.
func (m *membership) endInBackground() {
	h := m.conn.hub
	if !h.tasks.Start() {
		return // its connection is being closed
	}
	go func() {
		defer h.tasks.End()
		m.leaveSoon(m.endFrame("", nil))
	}()
}

// leave ends a live membership; end, if not nil, is the last that the client
// receives of it. It reports whether this call ended it.
func (m *membership) leave(end *fanout.Frame) bool {
	if !m.endLive(end) {
		return false
	}
	h := m.conn.hub
	if m.logged != nil && h.ctx.Err() == nil {
		ctx, cancel := h.operation(h.ctx)
		m.ch.logLeave(ctx, m)
		cancel()
	}
	m.left()
	return true
}

// endLive ends a live membership for the client, which receives nothing of the
// channel any more; logLeave, if the channel is private, and left must follow. It
// reports whether this call ended it.
func (m *membership) endLive(end *fanout.Frame) bool {
	c := m.conn
	c.mu.Lock()
	if m.state != memberLive {
		c.mu.Unlock()
		return false
	}
	ch := m.ch
	m.state = memberEnded
	c.mu.Unlock()

	ch.mu.Lock()
	ch.members.remove(m, m.slot)
	ch.mu.Unlock()
	c.out.Shut(&m.gate, end)
	if m.logged != nil {
		ch.disown(m)
	}
	return true
}

// left is the end of leaving, when the log has it.
func (m *membership) left() {
	c := m.conn
	c.mu.Lock()
	c.members.remove(m.name) // only now may the next membership begin: see reserve
	if m.gone != nil {
		close(m.gone)
	}
	c.mu.Unlock()
	if unsubscribe := c.hub.cfg.Hooks.Unsubscribe; unsubscribe != nil {
		unsubscribe(c, m.ch)
	}
	m.ch.life.release()
	c.hooks.End()
}

const (
	// maxLeaves is how many channels of one connection are left at a time.
	maxLeaves = 32
	// maxLeavers is how many goroutines do so beside the connections' own, for
	// all connections together: thousands may be lost at one moment.
	maxLeavers = 1024
)

// leaveAll ends all memberships of a connection that is gone. The broker is called
// for several at a time, within one Timeout for all: a broker that does not answer
// must not hold up the Disconnect hook for each channel anew. What it has not taken
// by then goes to the backlog.
func (h *Hub) leaveAll(members []*membership) {
	var ended, private []*membership
	for _, m := range members {
		m.conn.mu.Lock()
		joining := m.state == memberJoining || m.state == memberHooked
		if joining {
			m.leaving = true // the joiner ends it
		}
		m.conn.mu.Unlock()
		if joining || !m.endLive(nil) {
			continue
		}
		ended = append(ended, m)
		if m.logged != nil {
			private = append(private, m)
		}
	}
	if len(private) > 0 && h.ctx.Err() == nil {
		ctx, cancel := h.operation(h.ctx)
		h.logLeaves(ctx, private)
		cancel()
	}
	for _, m := range ended {
		m.left()
	}
}

// logLeaves calls the broker for each of members and returns when it has answered.
func (h *Hub) logLeaves(ctx context.Context, members []*membership) {
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; int(i) < len(members); i = next.Add(1) - 1 {
			members[i].ch.logLeave(ctx, members[i])
		}
	}
	var workers sync.WaitGroup
	for range min(len(members), maxLeaves) - 1 {
		if h.cfg.Local || !h.startLeaver() {
			break
		}
		workers.Go(func() {
			defer h.leavers.Add(-1)
			work()
		})
	}
	work()
	workers.Wait()
}

// startLeaver reports whether one more goroutine may log leaves.
func (h *Hub) startLeaver() bool {
	if h.leavers.Add(1) <= maxLeavers {
		return true
	}
	h.leavers.Add(-1)
	return false
}

// logLeave does not depend on the connection, which may be gone. The members
// elsewhere are notified through the log. If the broker cannot log it now, the
// members here are notified all the same, and the backlog tries again.
func (ch *Channel) logLeave(ctx context.Context, m *membership) {
	h := ch.hub
	_, err := h.cfg.Broker.Append(ctx, ch.name, leaveEntry(m.id, m.logged.member.Owner))
	if h.ctx.Err() != nil {
		return
	}
	if err == nil || errors.Is(err, broker.ErrNotOwner) {
		if err != nil {
			ch.removeUnlogged(m.id)
		}
		h.backlog.leaveAgain(m)
		return
	}
	ch.fan.Lock()
	ch.removeLocked(m.id)
	ch.fan.Unlock()
	h.backlog.addLeaveOf(m, time.Time{})
	if !errors.Is(err, broker.ErrAway) {
		h.cfg.Notices.Warn("cannot append the leave of a member; pushy retries", ch.name,
			slog.String("channel", ch.name), slog.Any("error", err))
	}
}

func leaveEntry(member, owner string) broker.Entry {
	return broker.Entry{
		Kind:   broker.Leave,
		Member: member,
		Owner:  owner,
	}
}
