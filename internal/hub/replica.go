package hub

import (
	"bytes"
	"slices"

	"github.com/gopushy/pushy/broker"
)

// maxMembers limits the members of a channel that a broker can deliver. It is far above the
// default of Limits.Members, because other nodes can have other limits.
const maxMembers = 1_000_000

// replica has the members of a channel on all nodes, in joining order, as far as this node
// knows them. Clients see either the members, or the users of the members (Policy.PerUser).
type replica struct {
	channel *Channel
	perUser bool

	members  roster
	users    map[string]*userMembers // by identity
	visible  roster                  // with perUser: what clients see
	on       bool                    // a member with data has joined since the replica was last empty
	skipped  bool                    // a member was skipped, and the log message is still to be written
	unlogged int                     // the number of members that are to join again
	bytes    int64                   // the approximate size of a list of all members
	revision broker.Position
	digest   digest
}

// userMembers has the members of one user.
type userMembers struct {
	members []*Member // in the order of their Joins
	seen    *Member   // with perUser: what clients see instead of them
}

// memberOverhead is approximately the number of bytes that a protocol adds to a member's
// data.
const memberOverhead = 100

func (m *Member) size() int64 { return int64(len(m.Data) + len(m.State) + memberOverhead) }

func newReplica(ch *Channel) replica {
	return replica{
		channel: ch,
		perUser: ch.policy.PerUser,
		digest:  digest{of: ch.hub.cfg.Digest},
	}
}

func (r *replica) len() int { return r.members.len() }

func (r *replica) get(id string) *Member { return r.members.get(id) }

// shown returns the members that clients see.
func (r *replica) shown() *roster {
	if r.perUser {
		return &r.visible
	}
	return &r.members
}

// listed returns a revision such that all members which clients see have joined at it or
// before it.
func (r *replica) listed() uint64 { return max(r.revision.Offset, r.shown().last()) }

// add adds a member that the replica does not have.
func (r *replica) add(m *Member) change {
	if m.since == 0 { // it is not in the log yet: its place is the end
		m.since = r.listed() + 1
	}
	r.members.append(m)
	r.on = r.on || m.Data != nil
	r.bytes += m.size()
	if m.unlogged {
		r.unlogged++
	}
	m.identity = r.channel.hub.identity(m.User, m.Data)
	if m.identity == "" {
		if r.perUser {
			r.visible.append(m)
		}
		r.digest.add(m)
		return change{kind: memberAdded, member: m}
	}
	u := r.users[m.identity]
	if u == nil {
		if r.users == nil {
			r.users = map[string]*userMembers{}
		}
		u = &userMembers{}
		r.users[m.identity] = u
	}
	u.members = append(u.members, m)
	switch {
	case !r.perUser:
		r.digest.add(m)
		return change{kind: memberAdded, member: m}
	case u.seen != nil:
		return r.refresh(u)
	}
	u.seen = &Member{
		ID:       r.channel.hub.cfg.UserMemberID(r.channel.name, m.identity),
		User:     m.User,
		identity: m.identity,
	}
	u.merge()
	r.visible.insert(u.seen)
	r.digest.add(u.seen)
	return change{kind: memberAdded, member: u.seen}
}

// remove removes a member and returns it, or nil if there is none with that id. The field on
// is reset only when no member is left.
func (r *replica) remove(id string) (*Member, change) {
	m := r.members.remove(id)
	if m == nil {
		return nil, change{}
	}
	r.bytes -= m.size()
	if m.unlogged {
		r.unlogged--
	}
	c := r.removeShown(m)
	if r.members.len() == 0 {
		*r = replica{
			channel:  r.channel,
			perUser:  r.perUser,
			revision: r.revision,
			skipped:  r.skipped,
			digest:   digest{of: r.digest.of},
		}
	}
	return m, c
}

func (r *replica) removeShown(m *Member) change {
	gone := change{kind: memberRemoved, member: m}
	if m.identity == "" {
		if r.perUser {
			r.visible.remove(m.ID)
		}
		r.digest.remove(m)
		return gone
	}
	u := r.users[m.identity]
	u.members = slices.DeleteFunc(u.members, func(other *Member) bool { return other == m })
	if len(u.members) == 0 {
		delete(r.users, m.identity)
	}
	switch {
	case !r.perUser:
		r.digest.remove(m)
		return gone
	case len(u.members) == 0:
		r.visible.remove(u.seen.ID)
		r.digest.remove(u.seen)
		return change{kind: memberRemoved, member: u.seen}
	}
	return r.refresh(u)
}

// update changes the data and the state of a member.
func (r *replica) update(m *Member, data []byte, s MemberState) change {
	before := *m
	r.bytes -= m.size()
	m.Data = data
	m.MemberState = s
	r.bytes += m.size()
	if u := r.users[m.identity]; u != nil && r.perUser {
		return r.refresh(u)
	}
	r.shown().changed(m)
	r.digest.change(m)
	return change{
		kind:   memberUpdated,
		member: m,
		fields: m.differsFrom(&before),
	}
}

// setSince changes the place of a member, which has joined again.
func (r *replica) setSince(m *Member, since uint64) change {
	if m.since == since {
		return change{}
	}
	m.since = since
	r.members.unsorted = true
	u := r.users[m.identity]
	if u == nil || !r.perUser {
		r.visible.unsorted = r.perUser
		return change{}
	}
	r.visible.unsorted = true
	return r.refresh(u)
}

// sort sorts the members by their Joins, and reports whether the order that clients see has
// changed.
func (r *replica) sort() bool {
	changed := r.members.sort()
	if r.perUser {
		return r.visible.sort()
	}
	return changed
}

// refresh makes what clients see of a user from its members, after one was added, removed or
// changed.
func (r *replica) refresh(u *userMembers) change {
	seen := u.seen
	before := *seen
	slices.SortStableFunc(u.members, bySince)
	u.merge()
	if seen.since != before.since {
		since := seen.since
		seen.since = before.since
		r.visible.remove(seen.ID)
		seen.since = since
		r.visible.insert(seen)
	}
	c := change{
		kind:   memberUpdated,
		member: seen,
		fields: seen.differsFrom(&before),
	}
	if c.fields != 0 {
		r.visible.changed(seen)
		r.digest.change(seen)
	}
	return c
}

// merge sets what clients see of a user: the place and the time of the first member, the
// data of the newest, the state that was set last, and idle if all are. The result depends
// only on the members of this moment, so it is equal on all nodes, also on one that has
// followed the channel for a shorter time.
func (u *userMembers) merge() {
	first := u.members[0]
	seen := u.seen
	seen.since = first.since
	seen.Joined = first.Joined
	seen.Tabs = len(u.members)
	seen.Data = nil
	seen.MemberState = MemberState{Idle: true}
	for _, m := range u.members {
		if m.Data != nil {
			seen.Data = m.Data
		}
		if m.State != nil && m.StateAt >= seen.StateAt {
			seen.State = m.State
			seen.StateAt = m.StateAt
		}
		seen.Idle = seen.Idle && m.Idle
	}
}

func bySince(a, b *Member) int {
	switch {
	case a.since < b.since:
		return -1
	case a.since > b.since:
		return 1
	}
	return 0
}

// fields are the parts of a member that can change.
type fields uint8

const (
	fieldIdle fields = 1 << iota
	fieldTabs
	fieldState
	fieldData // everything else
)

// differsFrom returns the parts of m that clients see and that differ from those of other.
func (m *Member) differsFrom(other *Member) (f fields) {
	if m.Idle != other.Idle {
		f |= fieldIdle
	}
	if m.Tabs != other.Tabs {
		f |= fieldTabs
	}
	if !bytes.Equal(m.State, other.State) {
		f |= fieldState
	}
	if !bytes.Equal(m.Data, other.Data) || !m.Joined.Equal(other.Joined) {
		f |= fieldData
	}
	return f
}

// shownFor returns what clients see of a member.
func (r *replica) shownFor(m *Member) *Member {
	if r.perUser && m.identity != "" {
		return r.users[m.identity].seen
	}
	return m
}
