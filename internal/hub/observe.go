package hub

import (
	"slices"
	"sync/atomic"
)

// Observer is notified of what happens, with no lock held, as Hooks are. The funcs must not block.
// ClientEvent and Missed can be nil, all others must be set.
type Observer struct {
	Opened func(c *Conn)
	Closed func(c *Conn, code int, reason string)
	// Joined and Left are called for each membership of a private channel. member is the id of the
	// member. A member that moves between nodes leaves one and joins the
	// other; one that another connection of this node takes over does neither.
	Joined func(c *Conn, ch *Channel, member string)
	Left   func(c *Conn, ch *Channel, member string)
	// Occupied is called before the first client of this node becomes a member, and Vacated
	// after the last one has left, never at the same time for one channel.
	Occupied func(ch *Channel)
	Vacated  func(ch *Channel)
	// ClientEvent is called when the broker has accepted an event that a client has sent to the
	// other members. member is the id that these see. data must not be changed.
	ClientEvent func(c *Conn, ch *Channel, member, name string, data []byte)
	// Missed is called for each subscription that asked for past events of a channel and received
	// none, because the channel keeps events and has none.
	Missed func(c *Conn, ch *Channel)
}

// Observe adds an observer, which does not receive what has happened before.
func (h *Hub) Observe(o *Observer) { h.observers.add(o) }

// observers notifies any number of Observers. The zero value has none.
type observers struct{ all atomic.Pointer[[]*Observer] }

func (os *observers) add(o *Observer) {
	for {
		old := os.all.Load()
		var list []*Observer
		if old != nil {
			list = slices.Clone(*old)
		}
		list = append(list, o)
		if os.all.CompareAndSwap(old, &list) {
			return
		}
	}
}

func (os *observers) list() []*Observer {
	all := os.all.Load()
	if all == nil {
		return nil
	}
	return *all
}

func (os *observers) opened(c *Conn) {
	for _, o := range os.list() {
		o.Opened(c)
	}
}

func (os *observers) closed(c *Conn, code int, reason string) {
	for _, o := range os.list() {
		o.Closed(c, code, reason)
	}
}

func (os *observers) joined(c *Conn, ch *Channel, member string, private bool) {
	if private {
		for _, o := range os.list() {
			o.Joined(c, ch, member)
		}
	}
}

func (os *observers) left(c *Conn, ch *Channel, member string, private bool) {
	if private {
		for _, o := range os.list() {
			o.Left(c, ch, member)
		}
	}
}

func (os *observers) occupied(ch *Channel) {
	for _, o := range os.list() {
		o.Occupied(ch)
	}
}

func (os *observers) vacated(ch *Channel) {
	for _, o := range os.list() {
		o.Vacated(ch)
	}
}

func (os *observers) clientEvent(c *Conn, ch *Channel, member, name string, data []byte) {
	for _, o := range os.list() {
		if o.ClientEvent != nil {
			o.ClientEvent(c, ch, member, name, data)
		}
	}
}

func (os *observers) missed(c *Conn, ch *Channel) {
	for _, o := range os.list() {
		if o.Missed != nil {
			o.Missed(c, ch)
		}
	}
}

// ShownMember is what clients see of a member.
type ShownMember struct {
	ID       string // with Policy.PerUser, that of its user
	User     string // the user id of its connection, or ""
	Identity string // equal for the members of one user; "" for a member without a user
	Text     []byte // as the protocol writes it
}

// Shown returns what clients see of a member, or false if it is not in the channel. member is its id,
// or the one with which clients see it, which an Observer's ClientEvent receives.
func (ch *Channel) Shown(member string) (ShownMember, bool) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	m := ch.replica.get(member)
	seen := ch.replica.shown().get(member)
	switch {
	case m != nil:
		seen = ch.replica.shownFor(m)
	case seen != nil:
		m = seen
	default:
		return ShownMember{}, false
	}
	ch.showLocked(seen)
	return ShownMember{
		ID:       seen.ID,
		User:     m.User,
		Identity: m.identity,
		Text:     seen.Text,
	}, true
}
