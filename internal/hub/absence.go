package hub

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
)

// hasGrace reports whether a client that asked for it keeps its memberships for the grace
// period after its connection has ended with that code (PROTOCOL.md, section 3).
func hasGrace(code int) bool {
	switch {
	case code == 1000, code == CloseAbuse, code >= 3500 && code <= 3999:
		return false
	}
	return true
}

// absence is the time after a connection has ended in which its members are held: they are
// in the channel without a membership, until another connection takes them over or the
// grace period ends.
type absence struct {
	conn    *Conn           // the last connection of its members
	members []*loggedMember // not changed after start
	counted bool            // in the Admission
	left    atomic.Int64    // members that are still held, and 1 until start has returned
	timer   *time.Timer     // set by start, unless Shutdown has begun
}

// newAbsence returns an absence of c, or nil if its members cannot be held. The caller adds
// members with membership.endHeld, and then calls start.
func (h *Hub) newAbsence(c *Conn) *absence {
	if !h.admission.holdPlace(c.network) {
		h.cfg.Notices.Warn("members leave at once: too many members of this address are held", c.network.Prefix(),
			slog.String("conn", c.id),
			slog.String("hint", "Options.Limits.PerAddress and Connections count connections that can still return"))
		return nil
	}
	a := newHandOver(c)
	a.counted = true
	return a
}

// newHandOver returns an absence of c, which is still connected, for a member that another
// connection is about to take over.
func newHandOver(c *Conn) *absence {
	a := &absence{conn: c}
	a.left.Store(1)
	return a
}

// start starts the grace period. During a Shutdown it does not end: the members remain until
// the node's lease expires, so that they can return to another node.
func (a *absence) start() {
	h := a.conn.hub
	if a.left.Load() > 1 && h.stopping.Err() == nil {
		a.timer = time.AfterFunc(h.cfg.Lease, a.expire)
	}
	if a.counted {
		h.absent.add(a)
	}
	a.remove()
}

// remove is called once for each member that is no longer held. It can be called under locks.
func (a *absence) remove() {
	if a.left.Add(-1) > 0 {
		return
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.counted {
		a.conn.hub.absent.remove(a)
		a.conn.hub.admission.giveBackPlace(a.conn.network)
	}
}

// expire ends the members that are still held.
func (a *absence) expire() {
	h := a.conn.hub
	if !h.tasks.Start() {
		return // Shutdown lets go of them
	}
	defer h.tasks.End()
	h.leaveHeld(a.conn, a.end())
}

// end ends the absence of the members that are still held, and returns them.
func (a *absence) end() (held []*loggedMember) {
	for _, l := range a.members {
		if l.ch.endAbsence(l, a) {
			held = append(held, l)
		}
	}
	return held
}

// leaveHeld logs the leaves of members that were held, and calls their hooks.
func (h *Hub) leaveHeld(c *Conn, held []*loggedMember) {
	if len(held) > 0 && h.ctx.Err() == nil {
		ctx, cancel := h.operation(h.ctx)
		h.logLeaves(ctx, held)
		cancel()
	}
	for _, l := range held {
		l.unsubscribed(c)
	}
}

// endAbsence ends a member that is held by a. It returns false if it is not.
func (ch *Channel) endAbsence(l *loggedMember, a *absence) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if l.absence != a {
		return false
	}
	ch.unholdLocked(l)
	ch.disownLocked(l)
	return true
}

func (ch *Channel) unholdLocked(l *loggedMember) {
	l.absence.remove()
	l.absence = nil
	ch.held.Add(-1)
}

// hold holds the member of m. It returns false if the member has ended, because another node has
// adopted it.
func (ch *Channel) hold(m *membership, a *absence) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	ch.unwatchLocked(m)
	l := m.logged
	if l.ended {
		return false
	}
	l.by = nil
	l.absence = a
	a.members = append(a.members, l)
	a.left.Add(1)
	ch.held.Add(1)
	return true
}

// endHeld ends a live membership for its client, as endLive does, and holds its member. It
// reports whether this call ended the membership.
func (m *membership) endHeld(end *fanout.Frame, a *absence) bool {
	if !m.detach(end) {
		return false
	}
	if !m.ch.hold(m, a) {
		m.left()
		return true
	}
	m.removed()
	m.conn.hooks.End()
	return true
}

// endGracefully ends a live membership whose connection has ended, and holds its member if
// that is possible.
func (m *membership) endGracefully() {
	a := m.conn.hub.newAbsence(m.conn)
	if a == nil {
		m.leave(nil)
		return
	}
	m.endHeld(nil, a)
	a.start()
}

// dropLocked ends a member of this node that the log does not have any more, or that another
// node has adopted. The Unsubscribe hook is called in another goroutine.
func (ch *Channel) dropLocked(l *loggedMember, lost bool) {
	h := ch.hub
	l.lost = lost
	if l.by != nil {
		ch.disownLocked(l)
		l.by.endInBackground(true)
		return
	}
	if !h.tasks.Start() {
		return // Shutdown lets go of it
	}
	c := l.absence.conn
	ch.unholdLocked(l)
	ch.disownLocked(l)
	go func() {
		defer h.tasks.End()
		if lost {
			ch.removeUnlogged(l.member.ID)
		}
		l.unsubscribed(c)
	}()
}

// unsubscribed calls the Unsubscribe hook for a member that was held, with its last
// connection, and releases the channel.
func (l *loggedMember) unsubscribed(c *Conn) {
	unsubscribe := l.ch.hub.cfg.Hooks.Unsubscribe
	if l.hooked {
		l.ch.hub.observers.left(c, l.ch, l.member.ID, true)
		if unsubscribe != nil {
			unsubscribe(c, l.ch, l.lost)
		}
	}
	l.ch.life.release()
}

// letGo ends the members that are held, without a Leave, because the Hub shuts down: they
// remain in the log until the node's lease expires, or another node adopts them.
func (ch *Channel) letGo() {
	type last struct {
		l *loggedMember
		c *Conn
	}
	var held []last
	ch.fan.Lock()
	for _, l := range ch.own {
		if l.absence == nil {
			continue
		}
		held = append(held, last{l, l.absence.conn})
		ch.unholdLocked(l)
		ch.disownLocked(l)
	}
	ch.fan.Unlock()
	for _, m := range held {
		m.l.unsubscribed(m.c)
	}
}

// handOver asks the client of m to give up its member to another connection, which waits for
// gone. If the Subscribe hook still runs, this happens when it has returned.
func (m *membership) handOver() (gone <-chan struct{}) {
	c := m.conn
	end := m.resumedFrame()
	c.mu.Lock()
	gone = m.goneLocked()
	if m.state == memberHooked && !m.leaving {
		m.leaving = true
		m.stay = true
		m.overLocked().end = end
	}
	isLive := m.state == memberLive
	c.mu.Unlock()
	if isLive {
		m.endForTakeOver(end)
	}
	return gone
}

func (m *membership) endForTakeOver(end *fanout.Frame) {
	a := newHandOver(m.conn)
	m.endHeld(end, a)
	a.start()
}
