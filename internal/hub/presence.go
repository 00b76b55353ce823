package hub

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
)

// arrival is an entry or a State that the broker has delivered.
type arrival struct {
	entry broker.Entry
	state *broker.State
	reset string     // with a state: the reason of the Reset
	kept  *keptEvent // a kept event
}

// forgetEarly drops what was delivered before a Follow that failed.
func (ch *Channel) forgetEarly() {
	ch.fan.Lock()
	ch.early = nil
	ch.fan.Unlock()
}

// begin applies the State that Follow returned, and then the entries that were delivered
// before Follow returned.
func (ch *Channel) begin(s broker.State) {
	ch.beginUnlogged(s)
	ch.logSkipped()
}

func (ch *Channel) beginUnlogged(s broker.State) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	ch.replaceLocked(s)
	if ch.history != nil {
		ch.beginKeptLocked(s)
	}
	ch.ready = true
	for _, a := range ch.early {
		ch.arriveLocked(a)
	}
	ch.early = nil
}

// deliver applies the next entry of the log of members. All members see joins and leaves in
// the order of these calls.
func (ch *Channel) deliver(e broker.Entry) { ch.receive(arrival{entry: e}) }

func (ch *Channel) receive(a arrival) {
	if ch.receiveSkips(a) {
		ch.logSkipped()
	}
	if ch.history != nil && a.state != nil {
		ch.logGap()
	}
}

// receiveSkips is receive without the log message. It reports whether a member was skipped.
func (ch *Channel) receiveSkips(a arrival) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if ch.ready {
		ch.arriveLocked(a)
	} else {
		ch.early = append(ch.early, a)
	}
	return ch.replica.skipped
}

// logSkipped logs that a member was skipped. The host's log handler must not run
// under fan: it may publish to this channel.
func (ch *Channel) logSkipped() {
	ch.fan.Lock()
	skipped := ch.replica.skipped
	ch.replica.skipped = false
	ch.fan.Unlock()
	if skipped {
		ch.hub.cfg.Notices.Warn("skipped a member: the channel has too many", "",
			slog.String("channel", ch.name), slog.Int("limit", maxMembers))
	}
}

func (ch *Channel) arriveLocked(a arrival) {
	switch {
	case a.kept != nil:
		ch.arriveKeptLocked(*a.kept)
		return
	case a.state != nil:
		ch.resetLocked(*a.state, a.reset)
		return
	}
	e := a.entry
	r := &ch.replica
	if e.At.Epoch == r.revision.Epoch && e.At.Offset <= r.revision.Offset {
		return // the State that the replica was made from includes it
	}
	r.revision = e.At
	if !ch.policy.Private {
		return // another node has another policy for the channel
	}
	ch.inLog = true
	defer func() { ch.inLog = false }()
	switch e.Kind {
	case broker.Join:
		if ch.own[e.Member] == nil && ch.hub.backlog.has(ch.name, e.Member, e.Owner) {
			return // a late Join: the membership has ended, and its Leave follows
		}
		ch.addLocked(ch.newMember(&broker.Member{
			ID:     e.Member,
			Owner:  e.Owner,
			User:   e.User,
			Data:   e.Data,
			State:  e.State,
			Joined: e.Joined,
			Since:  e.At.Offset,
		}))
	case broker.Update:
		ch.updateLocked(e)
	case broker.Adopt:
		if m := r.get(e.Member); m != nil && m.Owner == e.OldOwner {
			m.Owner = e.Owner
			ch.adoptedLocked(e.Member, e.Owner)
			if own := ch.own[e.Member]; own != nil && own.member.Owner == e.Owner {
				ch.completeJoinLocked(e.Member)
			}
		}
	case broker.Leave:
		ch.leftLocked(e)
	}
}

// newMember returns a member of the log for the replica. It has no data if the channel has
// no presence on this node, even if it has presence on other nodes.
func (ch *Channel) newMember(m *broker.Member) *Member {
	member := newMember(m)
	if !ch.policy.Presence {
		member.Data = nil
		return member
	}
	member.MemberState = ch.hub.cfg.Protocol.ParseState(m.State)
	return member
}

// leftLocked applies a Leave of the log. If the member is still in the channel on this node,
// another node considered this one dead and appended the Leave; then the member joins again,
// unless its client is absent: its time has passed.
func (ch *Channel) leftLocked(e broker.Entry) {
	own := ch.own[e.Member]
	m := ch.replica.get(e.Member)
	switch {
	case m == nil || m.Owner != e.Owner:
		// It is late: another join, or an adoption, has followed. Or the member has been
		// removed from this node only.
		ch.log.restart(e.At)
	case own == nil:
		ch.removeLocked(e.Member)
	case !own.arrived:
		ch.removeLocked(e.Member)
		own.signal() // it was to be adopted
	case own.absence != nil:
		ch.removeLocked(e.Member)
		ch.dropLocked(own, false)
	default:
		if !m.unlogged {
			m.unlogged = true
			ch.replica.unlogged++
		}
		ch.hub.backlog.addJoin(own)
	}
}

// rejoinedLocked is called when a member of this node has joined again, because the log had
// lost it or the broker was away. The member has a new place in the log. After the last
// such member, the members on this node receive the list again if its order has changed.
func (ch *Channel) rejoinedLocked(old, m *Member) {
	if c := ch.replica.setSince(old, m.since); ch.replica.on {
		ch.changedLocked(c, nil)
		// A client that reads the list in pages would miss the member at its new place.
		ch.collectLocked(change{
			kind:   memberUpdated,
			member: ch.replica.shownFor(old),
			fields: fieldData,
		})
	}
	ch.log.restart(ch.replica.revision)
	if old.unlogged {
		old.unlogged = false
		ch.replica.unlogged--
		ch.orderLocked()
	}
}

func (ch *Channel) orderLocked() {
	r := &ch.replica
	if r.unlogged == 0 && r.sort() && r.on {
		ch.sendListLocked(ch.shownLocked())
	}
}

// addLocked adds a member and notifies the members on this node. If the member's own join
// waits on this node, addLocked completes it.
func (ch *Channel) addLocked(m *Member) {
	r := &ch.replica
	if old := r.get(m.ID); old != nil {
		if old.Owner == m.Owner {
			ch.rejoinedLocked(old, m)
			ch.completeJoinLocked(m.ID)
		}
		return
	}
	if !ch.hub.cfg.Local && r.len() >= maxMembers {
		r.skipped = true
		return
	}
	var before []*Member
	if !r.on && m.Data != nil && r.len() > 0 {
		before = ch.shownLocked()
		ch.sendListLocked(before)
	}
	c := r.add(m)
	if before != nil {
		ch.turnedOnLocked(before)
	}
	ch.changedLocked(c, nil)
	ch.completeJoinLocked(m.ID)
}

// removeLocked removes a member, if it is in the channel, and notifies the other members.
func (ch *Channel) removeLocked(id string) {
	on := ch.replica.on
	m, c := ch.replica.remove(id)
	switch {
	case m == nil:
		return
	case ch.replica.len() > 0:
		ch.changedLocked(c, nil)
	default:
		if ch.listeners != nil && on {
			ch.listeners.changed(c)
		}
		if ch.log.on {
			ch.log.add(c, ch.replica.revision, ch.inLog)
		}
	}
	if m.unlogged {
		ch.orderLocked()
	}
}

// turnedOnLocked is called when a member has turned presence on in a channel that had
// members.
func (ch *Channel) turnedOnLocked(before []*Member) {
	for _, m := range before {
		ch.collectLocked(change{
			kind:   memberAdded,
			member: m,
		})
	}
	for _, own := range ch.own {
		if own.arrived && own.dirty {
			ch.hub.backlog.addJoin(own)
		}
	}
}

func (ch *Channel) sendListLocked(members []*Member) {
	if ch.listeners != nil {
		ch.listeners.listed(members)
	}
	if len(ch.watchers[PresenceList]) == 0 {
		return
	}
	ch.tellLocked(PresenceList, ch.hub.listFrame(&Event{
		Kind:    Members,
		Channel: ch.name,
		Members: members,
	}), nil)
}

// resetLocked replaces the replica with s, and sends clients the new list and, if events may
// have been lost, a Gap event. Those that are kept are read from the log instead.
func (ch *Channel) resetLocked(s broker.State, reason string) {
	old := ch.replica
	ch.replaceLocked(s)
	if old.on || ch.replica.on {
		ch.sendListLocked(ch.shownLocked())
		ch.inLog = s.Revision.Epoch == old.revision.Epoch && s.Revision.Offset > old.revision.Offset
		ch.replacedLocked(old.shown())
		ch.inLog = false
	}
	switch {
	case ch.history != nil:
		ch.resetKeptLocked(s, reason)
	case reason != "":
		ch.gapLocked("", broker.Position{})
	}
	for id, l := range ch.own {
		if m := ch.replica.get(id); m != nil && m.Owner == l.member.Owner {
			ch.completeJoinLocked(id)
		}
	}
	ch.hub.backlog.retry()
}

// replaceLocked makes the replica from s. Members of this node that s lacks join again, unless
// their client is absent: its time has passed. Members of this node that have no membership
// here are removed from the log; during a Shutdown, the node's lease removes them. Memberships
// that another node has adopted end.
func (ch *Channel) replaceLocked(s broker.State) {
	h := ch.hub
	r := newReplica(ch)
	r.revision = s.Revision
	for i := range s.Members {
		m := ch.newMember(&s.Members[i])
		own := ch.own[m.ID]
		switch {
		case own == nil && m.Node == h.cfg.Node && h.stopping.Err() == nil:
			h.backlog.addLeave(ch.name, m.ID, m.Owner, time.Time{})
			continue
		case !ch.policy.Private:
			continue // another node has another policy for the channel
		case own != nil:
			ch.adoptedLocked(m.ID, m.Owner)
			if own.adopting && !own.arrived {
				own.member.Data = m.Data
				own.member.MemberState = m.MemberState
			}
			if own.dirty && own.member.Owner == m.Owner {
				m.Data = own.member.Data
				m.MemberState = own.member.MemberState
				h.backlog.addJoin(own)
			}
		}
		switch {
		case r.get(m.ID) != nil:
		case r.len() < maxMembers:
			r.add(m)
		default:
			r.skipped = true
		}
	}
	var missing []*loggedMember
	for id, l := range ch.own {
		logged := r.get(id)
		switch {
		case !l.arrived:
			if logged == nil || logged.Owner != l.member.Owner {
				l.signal() // the log may have lost its join or its adoption
			}
		case logged != nil:
		case l.absence != nil:
			ch.dropLocked(l, false)
		default:
			missing = append(missing, l)
		}
	}
	slices.SortFunc(missing, func(a, b *loggedMember) int {
		return cmp.Or(a.member.Joined.Compare(b.member.Joined), strings.Compare(a.member.ID, b.member.ID))
	})
	for _, l := range missing {
		member := l.member
		member.unlogged = true
		r.add(&member)
		h.backlog.addJoin(l)
	}
	r.on = r.len() > 0 && (r.on || s.On && ch.policy.Presence)
	ch.replica = r
}
