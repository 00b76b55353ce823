package hub

import (
	"context"
	"sync"
	"sync/atomic"

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
	return m.conn.directFrame(&Event{
		Kind:    Ended,
		Channel: m.name,
		Reason:  reason,
		Request: request,
	})
}

// resumedFrame is endFrame for a membership whose member another connection has.
func (m *membership) resumedFrame() *fanout.Frame {
	e := Event{
		Kind:    Ended,
		Channel: m.name,
	}
	if m.hold || m.returned || m.conn.version >= 2 { // otherwise the client does not know the key again
		e.Reason = reasonResumed
		e.Again = true
	}
	return m.conn.directFrame(&e)
}

// leaveSoon is leave for a membership whose join may still be in progress; in that case the
// goroutine that joins ends the membership. It reports whether this call ends it.
func (m *membership) leaveSoon(end *fanout.Frame) bool {
	m.conn.mu.Lock()
	if m.state == memberJoining || m.state == memberHooked {
		first := !m.leaving
		m.leaving = true
		if first {
			m.overLocked().end = end
		}
		m.conn.mu.Unlock()
		return first
	}
	m.conn.mu.Unlock()
	return m.leave(end)
}

// endInBackground ends a membership that cannot be logged, or whose member another node has
// adopted. It can be called under locks, and does not wait for hooks.
func (m *membership) endInBackground(adopted bool) {
	h := m.conn.hub
	if !h.tasks.Start() {
		return // its connection is being closed
	}
	go func() {
		defer h.tasks.End()
		end := m.endFrame("", nil)
		if adopted {
			end = m.resumedFrame()
		}
		m.leaveSoon(end)
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
		m.ch.logLeave(ctx, m.logged)
		cancel()
	}
	m.left()
	return true
}

// endLive ends a live membership for the client, which receives nothing more from the
// channel. If the channel is private, the caller must then call logLeave; in any case it
// must then call left. endLive reports whether this call ended the membership.
func (m *membership) endLive(end *fanout.Frame) bool {
	if !m.detach(end) {
		return false
	}
	if m.logged != nil {
		m.ch.disown(m)
	}
	return true
}

// detach ends a live membership for its client. It reports whether this call did.
func (m *membership) detach(end *fanout.Frame) bool {
	c := m.conn
	c.mu.Lock()
	if m.state != memberLive {
		c.mu.Unlock()
		return false
	}
	ch := m.ch
	m.state = memberEnded
	if m.lease != nil {
		c.hub.wheel.remove(m.lease)
		m.lease = nil
	}
	c.mu.Unlock()

	ch.mu.Lock()
	ch.members.remove(m, m.slot)
	ch.mu.Unlock()
	c.out.ShutNow(&m.gate, end)
	m.watchMembership(DecidedLeft)
	return true
}

// left completes a leave, after the leave has been logged.
func (m *membership) left() {
	c := m.conn
	m.removed()
	c.hub.observers.left(c, m.ch, m.id, m.logged != nil)
	if unsubscribe := c.hub.cfg.Hooks.Unsubscribe; unsubscribe != nil {
		unsubscribe(c, m.ch, m.logged != nil && m.logged.lost)
	}
	m.ch.life.release()
	c.hooks.End()
}

// removed completes the end of a membership for its connection, which can then join again:
// see reserve.
func (m *membership) removed() {
	c := m.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members.remove(m.name)
	m.state = memberGone
	if m.over != nil && m.over.gone != nil {
		close(m.over.gone)
	}
}

const (
	// maxLeaves is the number of leaves of one connection that are logged concurrently.
	maxLeaves = 32
	// maxLeavers limits the additional goroutines that log leaves for all connections
	// together, because thousands of connections can be lost at the same moment.
	maxLeavers = 1024
)

// leaveAll ends all memberships of a connection that has ended. With grace, the members of
// those that the client wants to keep are held. It calls the broker for several memberships
// concurrently, within one Timeout for all of them, because a broker that does not answer
// must not delay the Disconnect hook by a Timeout for each channel. Leaves that have not been
// logged by then are added to the backlog.
func (h *Hub) leaveAll(c *Conn, members []*membership, grace bool) {
	var ended []*membership
	var private []*loggedMember
	var a *absence
	for _, m := range members {
		c.mu.Lock()
		joining := m.state == memberJoining || m.state == memberHooked
		if joining { // the goroutine that joins ends it
			m.stay = grace && (m.stay || !m.leaving)
			m.leaving = true
		}
		c.mu.Unlock()
		if joining {
			continue
		}
		keep := grace && m.hold
		if keep && a == nil {
			a = h.newAbsence(c)
			grace = a != nil
			keep = grace
		}
		if keep {
			m.endHeld(nil, a)
			continue
		}
		if !m.endLive(nil) {
			continue
		}
		ended = append(ended, m)
		if m.logged != nil {
			private = append(private, m.logged)
		}
	}
	if a != nil {
		a.start()
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
func (h *Hub) logLeaves(ctx context.Context, members []*loggedMember) {
	most := maxLeaves
	if h.cfg.Local {
		most = 1 // no call waits
	}
	h.spread(len(members), most, func(i int) { members[i].ch.logLeave(ctx, members[i]) })
}

// spread calls run for 0 to n-1, at most most at once, and returns when all calls have returned.
// It uses further goroutines only as far as startLeaver permits.
func (h *Hub) spread(n, most int, run func(i int)) {
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; int(i) < n; i = next.Add(1) - 1 {
			run(int(i))
		}
	}
	var workers sync.WaitGroup
	for range min(n, most) - 1 {
		if !h.startLeaver() {
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

func leaveEntry(member, owner string) broker.Entry {
	return broker.Entry{
		Kind:   broker.Leave,
		Member: member,
		Owner:  owner,
	}
}
