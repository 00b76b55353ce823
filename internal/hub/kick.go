package hub

import "sync"

// KickUser closes all connections of a user on this node, also those whose Connect hook has not
// returned, and returns the number of those that were not closing yet. Call KickHeld, too.
func (h *Hub) KickUser(user string, code int, reason string) (closed int) {
	for _, c := range h.admission.ofUser(user) {
		if c.kick(code, reason) {
			closed++
		}
	}
	return closed
}

// KickConn closes the connection with that id, if it is on this node. It reports whether the
// connection was not closing yet.
func (h *Hub) KickConn(id string, code int, reason string) bool {
	c := h.admission.find(id)
	return c != nil && c.kick(code, reason)
}

// kick ends the connection, and reports whether this call did.
func (c *Conn) kick(code int, reason string) bool {
	return c.endAs(code, c.sentCode(code), reason, ByServer)
}

// KickHeld ends the members that are held for connections which have ended and which match. The
// leaves are logged in another goroutine.
func (h *Hub) KickHeld(match func(last *Conn) bool) {
	for _, a := range h.absent.matching(match) {
		h.leaveInBackground(a.conn, a.end())
	}
}

func (h *Hub) leaveInBackground(c *Conn, held []*loggedMember) {
	if len(held) == 0 {
		return
	}
	if !h.tasks.Start() { // Shutdown waits for no further goroutine
		h.leaveHeld(c, held)
		return
	}
	go func() {
		defer h.tasks.End()
		h.leaveHeld(c, held)
	}()
}

// KickChannel ends all memberships of a channel on this node, and the subscriptions of Listeners. It
// returns the number of these, and of memberships whose client is connected. The clients receive an Ended event with the reason. The leaves
// are logged, and the hooks called, in another goroutine.
func (h *Hub) KickChannel(name, reason string) (ended int) {
	ch := h.find(name)
	if ch == nil {
		return 0
	}
	end := h.frame(&Event{
		Kind:    Ended,
		Channel: name,
		Reason:  reason,
	})
	ch.mu.Lock()
	members := ch.members.all()
	ch.mu.Unlock()
	var left []*membership
	var private []*loggedMember
	for _, m := range members {
		m.conn.mu.Lock()
		joining := m.state == memberHooked
		m.conn.mu.Unlock()
		switch {
		case joining: // the goroutine that joins completes it
			if m.leaveSoon(end) {
				ended++
			}
		case m.endLive(end):
			ended++
			left = append(left, m)
			if m.logged != nil {
				private = append(private, m.logged)
			}
		}
	}
	ch.kickHeld()
	listeners := ch.kickListeners(reason)
	ended += listeners
	if len(left)+listeners == 0 {
		return ended
	}
	h.cfg.Engine.Flush()
	complete := func() {
		if len(private) > 0 && h.ctx.Err() == nil {
			ctx, cancel := h.operation(h.ctx)
			h.logLeaves(ctx, private)
			cancel()
		}
		for _, m := range left {
			m.left()
		}
		for range listeners {
			ch.life.release()
		}
	}
	if !h.tasks.Start() {
		complete()
		return ended
	}
	go func() {
		defer h.tasks.End()
		complete()
	}()
	return ended
}

// kickHeld ends the members that are held.
func (ch *Channel) kickHeld() {
	held := map[*Conn][]*loggedMember{}
	ch.fan.Lock()
	for _, l := range ch.own {
		if l.absence == nil {
			continue
		}
		c := l.absence.conn
		ch.unholdLocked(l)
		ch.disownLocked(l)
		held[c] = append(held[c], l)
	}
	ch.fan.Unlock()
	for c, members := range held {
		ch.hub.leaveInBackground(c, members)
	}
}

// banned asks the host whether a user, or a channel, is banned.
func (h *Hub) banned(user, channel string) (reason string, banned bool) {
	if h.cfg.Banned == nil {
		return "", false
	}
	return h.cfg.Banned(user, channel)
}

// absences has the absences that count, of which KickHeld must find those of a user.
type absences struct {
	mu  sync.Mutex
	all map[*absence]struct{}
}

func (s *absences) add(a *absence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*absence]struct{}{}
	}
	s.all[a] = struct{}{}
}

func (s *absences) remove(a *absence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, a)
}

func (s *absences) matching(match func(last *Conn) bool) (some []*absence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.all {
		if match(a.conn) {
			some = append(some, a)
		}
	}
	return some
}
