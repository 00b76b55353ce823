package hub

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
)

// arrival is an entry or a State that the broker has delivered.
type arrival struct {
	entry broker.Entry
	state *broker.State
	reset string     // with a state: the reason of the Reset
	kept  *keptEvent // a kept event
}

// shownLocked returns the members in order, each with its Text.
func (ch *Channel) shownLocked() []*Member {
	members := ch.replica.values()
	for _, m := range members {
		ch.showLocked(m)
	}
	return members
}

func (ch *Channel) showLocked(m *Member) {
	if m.Text == nil {
		m.Text = ch.hub.cfg.Protocol.AppendMember(nil, m)
	}
}

// Members returns the members of the channel on all nodes in joining order, with their
// Text, and reports whether clients see them.
func (ch *Channel) Members() (members []Member, on bool) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	for _, m := range ch.shownLocked() {
		members = append(members, *m)
	}
	return members, ch.replica.on
}

// joinBytes estimates the number of bytes that the server sends because of a join: the list
// for the new member, and a Joined and, later, a Left event for each member on this node.
func (ch *Channel) joinBytes(data []byte) int64 {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if !ch.replica.on {
		return 0
	}
	const around = 200 // the size of an event without the member's data
	return ch.replica.bytes + 2*int64(ch.Len())*int64(len(data)+around)
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
			Joined: e.Joined,
			Since:  e.At.Offset,
		}))
	case broker.Update:
		ch.updateLocked(e)
	case broker.Adopt:
		if m := r.get(e.Member); m != nil && m.Owner == e.OldOwner {
			m.Owner = e.Owner
			ch.adoptedLocked(e.Member, e.Owner)
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
	}
	return member
}

func (ch *Channel) updateLocked(e broker.Entry) {
	m := ch.replica.get(e.Member)
	if m == nil || m.Owner != e.Owner || !ch.policy.Presence {
		return
	}
	ch.replica.bytes -= m.size()
	m.Data = e.Data
	m.Text = nil
	ch.replica.bytes += m.size()
	if own := ch.own[e.Member]; own != nil && own.logged.arrived {
		own.logged.member.Data = e.Data // for the case that the member has to join again
	}
}

// leftLocked applies a Leave of the log. If the member is still in the channel on this node,
// another node considered this one dead and appended the Leave; then the member joins again.
func (ch *Channel) leftLocked(e broker.Entry) {
	own := ch.own[e.Member]
	m := ch.replica.get(e.Member)
	if m == nil || m.Owner != e.Owner {
		return // it is late: another join, or an adoption, has followed
	}
	if own == nil || !own.logged.arrived || own.logged.member.Owner != e.Owner {
		ch.removeLocked(e.Member)
		return
	}
	if !m.unlogged {
		m.unlogged = true
		ch.replica.unlogged++
	}
	ch.hub.backlog.addJoin(own)
}

// rejoinedLocked is called when a member of this node has joined again, because the log had
// lost it or the broker was away. The member has a new place in the log. After the last
// such member, the members on this node receive the list again if its order has changed.
func (ch *Channel) rejoinedLocked(old, m *Member) {
	old.since = m.since
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
	}
	r.add(m)
	if before != nil {
		ch.sendListLocked(before)
	}
	if r.on {
		ch.sendMemberLocked(Joined, m)
	}
	ch.completeJoinLocked(m.ID)
}

// removeLocked removes a member, if it is in the channel, and notifies the other members.
func (ch *Channel) removeLocked(id string) {
	on := ch.replica.on
	m := ch.replica.remove(id)
	if m != nil && on && ch.replica.len() > 0 {
		ch.sendMemberLocked(Left, m)
	}
	if m != nil && m.unlogged {
		ch.orderLocked()
	}
}

func (ch *Channel) sendMemberLocked(kind EventKind, m *Member) {
	ch.showLocked(m)
	ch.broadcastLocked(ch.hub.frame(&Event{
		Kind:    kind,
		Channel: ch.name,
		Joiner:  m,
	}), nil)
}

func (ch *Channel) sendListLocked(members []*Member) {
	ch.broadcastLocked(ch.hub.listFrame(&Event{
		Kind:    Members,
		Channel: ch.name,
		Members: members,
	}), nil)
}

// resetLocked replaces the replica with s, and sends clients the new list and, if events may
// have been lost, a Gap event. Those that are kept are read from the log instead.
func (ch *Channel) resetLocked(s broker.State, reason string) {
	wasOn := ch.replica.on
	ch.replaceLocked(s)
	if wasOn || ch.replica.on {
		ch.sendListLocked(ch.shownLocked())
	}
	switch {
	case ch.history != nil:
		ch.resetKeptLocked(s, reason)
	case reason != "":
		ch.broadcastLocked(ch.hub.frame(&Event{
			Kind:    Gap,
			Channel: ch.name,
		}), nil)
	}
	for id := range ch.own {
		if ch.replica.get(id) != nil {
			ch.completeJoinLocked(id)
		}
	}
	ch.hub.backlog.retry()
}

// replaceLocked makes the replica from s. Members of this node that s lacks join again, members
// of this node that have no membership here are removed from the log, and memberships that
// another node has adopted end.
func (ch *Channel) replaceLocked(s broker.State) {
	h := ch.hub
	r := replica{revision: s.Revision}
	for i := range s.Members {
		m := ch.newMember(&s.Members[i])
		own := ch.own[m.ID]
		switch {
		case own == nil && m.Node == h.cfg.Node:
			h.backlog.addLeave(ch.name, m.ID, m.Owner)
			continue
		case !ch.policy.Private:
			continue // another node has another policy for the channel
		case own != nil:
			ch.adoptedLocked(m.ID, m.Owner)
		}
		switch {
		case r.get(m.ID) != nil:
		case r.len() < maxMembers:
			r.add(m)
		default:
			r.skipped = true
		}
	}
	var missing []*membership
	for id, m := range ch.own {
		switch {
		case r.get(id) != nil:
		case m.logged.arrived:
			missing = append(missing, m)
		default:
			m.logged.notify() // the log may have lost its join
		}
	}
	slices.SortFunc(missing, func(a, b *membership) int {
		return cmp.Or(a.logged.member.Joined.Compare(b.logged.member.Joined), strings.Compare(a.id, b.id))
	})
	for _, m := range missing {
		member := m.logged.member
		member.unlogged = true
		r.add(&member)
		h.backlog.addJoin(m)
	}
	r.on = r.len() > 0 && (r.on || s.On && ch.policy.Presence)
	ch.replica = r
}

// adoptedLocked ends the membership of this node if another owner has adopted the member.
func (ch *Channel) adoptedLocked(id, owner string) {
	if m := ch.own[id]; m != nil && m.logged.member.Owner != owner {
		m.endInBackground()
	}
}

// completeJoinLocked completes a join that waits on this node and has now been delivered, if there
// is one.
func (ch *Channel) completeJoinLocked(id string) {
	m := ch.own[id]
	if m == nil || m.logged.arrived {
		return
	}
	m.logged.arrived = true
	ch.arriving--
	e := Event{
		Kind:     Subscribed,
		Channel:  ch.name,
		Member:   id,
		Presence: ch.replica.on,
		Request:  m.logged.request,
	}
	m.logged.request = nil
	if e.Presence {
		e.Members = ch.shownLocked()
	}
	var replay []*fanout.Frame
	e.Past, replay = ch.pastLocked(m.logged.past)
	m.logged.past = nil
	ch.admit(m, ch.hub.listFrame(&e), replay...)
	m.logged.notify()
}

// disown removes m from the own members. It is called when a membership has ended, before
// its leave is logged.
func (ch *Channel) disown(m *membership) {
	ch.fan.Lock()
	delete(ch.own, m.id)
	ch.fan.Unlock()
}

// joinPrivate appends the join of m and waits until the broker delivers it; then m is a
// member. After an error, m is not a member. Before the append, joinPrivate waits until the
// client has read earlier lists (AwaitRoom).
func (ch *Channel) joinPrivate(m *membership) error {
	h := ch.hub
	member := &m.logged.member
	ch.fan.Lock()
	size := member.size()
	withList := ch.replica.on || member.Data != nil
	if withList {
		size += ch.replica.bytes
	}
	ch.fan.Unlock()
	if withList {
		release, err := m.out.AwaitRoom(m.conn.ctx, size)
		if err != nil {
			return err
		}
		defer release()
	}
	if !ch.expect(m) {
		return fmt.Errorf("%w: Options.Limits.Members is %d", ErrChannelFull, h.cfg.Limits.Members)
	}

	ctx, cancel := h.operation(m.conn.ctx)
	defer cancel()
	err := m.logJoin(ctx)
	if err == nil || !ch.giveUp(m) {
		return nil
	}
	if h.ctx.Err() == nil { // otherwise the broker is closed
		ctx, cancel := h.operation(h.ctx)
		defer cancel()
		ch.logLeave(ctx, m)
	}
	if errors.Is(err, broker.ErrTooLarge) {
		return fmt.Errorf("%w: %w", ErrDataTooLarge, err)
	}
	return err
}

// joinAlone makes m a member while the broker is away. The backlog logs the join when the
// broker can be reached again. joinAlone returns false if the channel has too many members.
func (ch *Channel) joinAlone(m *membership) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	member := m.logged.member
	member.unlogged = true
	ch.addLocked(&member) // has no effect if the join was appended after all
	if m.logged.arrived {
		ch.hub.backlog.addJoin(m)
	}
	return m.logged.arrived
}

func (ch *Channel) hasArrived(m *membership) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	return m.logged.arrived
}

// joinEntry returns the Join that logs m again.
func (ch *Channel) joinEntry(m *membership) broker.Entry {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	return m.logged.member.entry()
}

// removeUnlogged removes a member that, according to the broker, is not in the log. It does
// not remove a member that entries of the log have added: another entry removes it, or
// another node has adopted it.
func (ch *Channel) removeUnlogged(id string) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if m := ch.replica.get(id); m != nil && m.unlogged {
		ch.removeLocked(id)
	}
}

// expect reserves a place for a member whose join is about to be appended. It returns false
// if the channel is full.
func (ch *Channel) expect(m *membership) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	limit := ch.hub.cfg.Limits.Members
	shown := ch.replica.on || m.logged.member.Data != nil
	if limit > 0 && shown && ch.replica.len()+ch.arriving >= limit {
		return false
	}
	if ch.own == nil {
		ch.own = map[string]*membership{}
	}
	ch.own[m.id] = m
	ch.arriving++
	return true
}

// giveUp releases the place of a member whose join was not delivered. It returns false if
// the join has been delivered after all.
func (ch *Channel) giveUp(m *membership) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if m.logged.arrived {
		return false
	}
	delete(ch.own, m.id)
	ch.arriving--
	return true
}
