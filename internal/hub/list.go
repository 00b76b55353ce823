package hub

import (
	"slices"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
)

const (
	// defaultPage is the number of members in a page if the client does not say one.
	defaultPage = 100
	// maxListed is the number of members in an answer about users.
	maxListed = 500
)

// shownLocked returns the members that clients see, in order, each with its Text.
func (ch *Channel) shownLocked() []*Member {
	members := ch.replica.shown().values()
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
// Text, and reports whether clients see them. With Policy.PerUser, these are users.
func (ch *Channel) Members() (members []Member, on bool) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	for _, m := range ch.shownLocked() {
		members = append(members, *m)
	}
	return members, ch.replica.on
}

// joinBytes estimates the number of bytes that the server sends because of a join: the list
// or page for the new member, and a Joined and, later, a Left event for each member on this
// node that does not receive batches.
func (ch *Channel) joinBytes(want Presence, data []byte) int64 {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if !ch.replica.on {
		return 0
	}
	watching := int64(len(ch.watchers[PresenceList]) + len(ch.watchers[PresenceJoins]))
	const around = 200 // the size of an event without the member's data
	return ch.answerBytesLocked(want) + 2*watching*int64(len(data)+around)
}

// answerBytesLocked estimates the number of bytes of members in the answer to a join.
func (ch *Channel) answerBytesLocked(want Presence) int64 {
	switch want.Mode {
	case PresenceList, PresenceJoins:
		return ch.replica.bytes
	case PresenceDiff:
		return ch.replica.pageBytes(want.Limit)
	}
	return 0
}

// pageLocked sets the page of the members that joined after a revision.
func (ch *Channel) pageLocked(view *View, after uint64, limit int) {
	if limit <= 0 {
		limit = defaultPage
	}
	page, more := ch.replica.shown().after(after, limit)
	for _, m := range page {
		ch.showLocked(m)
	}
	view.List = page
	if more {
		view.Next = broker.Position{
			Epoch:  ch.replica.revision.Epoch,
			Offset: page[len(page)-1].since,
		}
	}
}

// MembersRequest asks for members of a channel.
type MembersRequest struct {
	Channel string
	After   broker.Position // the View.Next of the previous page; zero for the first
	Limit   int             // the number of members; 0 is the default
	Users   []string        // if it is not nil, the members of these users are asked for
	Request []byte
}

// ListMembers answers a question about the members of a channel with a Listed event. The
// error is ErrNotMember, ErrNoPresence or ErrClosed.
func (c *Conn) ListMembers(r MembersRequest) error {
	m := c.membership(r.Channel)
	if m == nil || !c.isIn(m) {
		return ErrNotMember
	}
	ch := m.ch
	if m.logged == nil || !ch.policy.Presence {
		return ErrNoPresence
	}
	limit := r.Limit
	if r.Users != nil {
		limit = maxListed
	}
	release, err := c.out.AwaitRoom(&c.ctx, ch.pageBytes(limit))
	if err != nil {
		return ErrClosed
	}
	defer release()
	size, err := ch.list(m, &r)
	if err != nil {
		return err
	}
	c.chargeBytes(int64(size), answerToken)
	return nil
}

// isIn reports whether a membership of the connection is live.
func (c *Conn) isIn(m *membership) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return m.isMember()
}

func (ch *Channel) list(m *membership, r *MembersRequest) (size int, err error) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if !ch.replica.on {
		return 0, ErrNoPresence
	}
	if m.presence.Mode == PresenceDiff {
		// The page is made from the present members, so the client must have all changes
		// until now; then it has the members of this revision, as far as it has asked for them.
		ch.splitLocked()
		first := ch.part - uint64(len(ch.parts))
		for _, text := range ch.parts[max(m.part, first)-first:] {
			m.out.SendThrough(&m.gate, batchFrame(text, len(text)))
		}
		m.part = ch.part
		if text := ch.batchTextLocked(&ch.batch); text != nil {
			m.out.SendThrough(&m.gate, batchFrame(text, len(text)))
		}
		ch.listed = max(ch.listed, ch.replica.listed())
	}
	view := ch.viewLocked(PresenceDiff)
	if r.Users != nil {
		ch.usersLocked(view, r.Users)
	} else {
		after := uint64(0)
		if r.After.Epoch == ch.replica.revision.Epoch {
			after = r.After.Offset
		} // otherwise the numbers mean nothing, and the list begins again
		ch.pageLocked(view, after, r.Limit)
	}
	text := ch.hub.cfg.Protocol.Append(nil, Event{
		Kind:    Listed,
		Channel: ch.name,
		View:    view,
		Request: r.Request,
	})
	if !m.out.SendThrough(&m.gate, fanout.NewList(text)) {
		return 0, ErrNotMember
	}
	ch.hub.cfg.Engine.Flush()
	return len(text), nil
}

// usersLocked sets the members of users, and leaves out users that are not there. Each user has
// an equal part of maxListed, because one user can have many members.
func (ch *Channel) usersLocked(view *View, users []string) {
	view.Users = []UserView{}
	slices.Sort(users)
	users = slices.Compact(users)
	most := maxListed / len(users)
	for _, id := range users {
		var members []*Member
		for _, identity := range identities(id) {
			if u := ch.replica.users[identity]; u != nil && u.seen != nil {
				members = append(members, u.seen)
			} else if u != nil {
				members = append(members, u.members...)
			}
		}
		if len(members) == 0 {
			continue
		}
		members = members[:min(len(members), most)]
		for _, m := range members {
			ch.showLocked(m)
		}
		view.Users = append(view.Users, UserView{
			User:    id,
			Members: members,
		})
	}
}

// pageBytes estimates the size of a page of the list.
func (ch *Channel) pageBytes(limit int) int64 {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	return ch.replica.pageBytes(limit)
}

func (r *replica) pageBytes(limit int) int64 {
	if limit <= 0 {
		limit = defaultPage
	}
	if r.len() <= limit {
		return r.bytes
	}
	return r.bytes / int64(r.len()) * int64(limit)
}
