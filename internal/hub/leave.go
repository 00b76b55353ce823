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

// leaveSoon is leave for a membership whose join may still be in progress; in that case the
// goroutine that joins ends the membership. It reports whether this call ends it.
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

// endInBackground ends a membership that another node has adopted, or that cannot be
// logged. It can be called under locks, and does not wait for hooks.
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

// leave ends a live membership. If end is not nil, it is the last message of the channel
// that the client receives. leave reports whether this call ended the membership.
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

// endLive ends a live membership for the client, which receives nothing more from the
// channel. If the channel is private, the caller must then call logLeave; in any case it
// must then call left. endLive reports whether this call ended the membership.
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

// left completes a leave, after the leave has been logged.
func (m *membership) left() {
	c := m.conn
	c.mu.Lock()
	c.members.remove(m.name) // from now on, the connection can join again: see reserve
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
	// maxLeaves is the number of leaves of one connection that are logged concurrently.
	maxLeaves = 32
	// maxLeavers limits the additional goroutines that log leaves for all connections
	// together, because thousands of connections can be lost at the same moment.
	maxLeavers = 1024
)

// leaveAll ends all memberships of a connection that has ended. It calls the broker for
// several memberships concurrently, within one Timeout for all of them, because a broker
// that does not answer must not delay the Disconnect hook by a Timeout for each channel.
// Leaves that have not been logged by then are added to the backlog.
func (h *Hub) leaveAll(members []*membership) {
	var ended, private []*membership
	for _, m := range members {
		m.conn.mu.Lock()
		joining := m.state == memberJoining || m.state == memberHooked
		if joining {
			m.leaving = true // the goroutine that joins ends it
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

// logLeaves calls logLeave for each member and returns when all calls have returned.
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

// startLeaver reports whether another goroutine may log leaves, and counts it.
func (h *Hub) startLeaver() bool {
	if h.leavers.Add(1) <= maxLeavers {
		return true
	}
	h.leavers.Add(-1)
	return false
}

// logLeave appends the leave of m. It does not depend on the connection, which may have
// ended. The members on other nodes are notified through the log. If the broker cannot log
// the leave now, the members on this node are notified anyway, and the backlog retries.
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
