package hub

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
)

// Foreign is another protocol than Config.Protocol, which some of the connections use. It keeps no
// state of a client.
type Foreign interface {
	// Form returns the form of the Sessions of the clients, which fanout.NewFamily has returned. In
	// this form, events that many connections receive are made from the text of Config.Protocol,
	// except those that Encode renders: events for one connection, events with a From, and the
	// Joined and Left events for PresenceJoins.
	Form() fanout.Form
	// Encode returns an event as the clients receive it, with the framing of their transport. It
	// returns nil if they do not receive the event. It can be called with the lock of a channel,
	// and must not block.
	Encode(e *Event) []byte
	// Handle is as in Protocol.
	Handle(c *Conn, message []byte, now time.Time)
	// CloseCode returns the close code that clients receive for one of the codes with which this
	// package and the host end connections.
	CloseCode(code int) int
	// Farewell returns a message that precedes a close frame, or nil.
	Farewell(c *Conn, code int, reason string) []byte
	// Grace reports whether a connection that has ended with the code can be replaced by another
	// one of its client, see Config.Lease.
	Grace(code int) bool
}

// maxForeign is one more than the number of protocols that can be added.
const maxForeign = 4

// AddForeign adds a protocol and returns its number for Client.Foreign. It must be called before a
// client with the protocol connects.
func (h *Hub) AddForeign(p Foreign) (id uint8) {
	for {
		old := h.foreign.Load()
		var all []Foreign
		if old != nil {
			all = slices.Clone(*old)
		}
		all = append(all, p)
		if len(all) == maxForeign {
			panic("hub: too many protocols")
		}
		if h.foreign.CompareAndSwap(old, &all) {
			return uint8(len(all))
		}
	}
}

// foreignOf returns the protocol of the connection, or nil if that is Config.Protocol.
func (c *Conn) foreignOf() Foreign {
	if c.foreign == 0 {
		return nil
	}
	return (*c.hub.foreign.Load())[c.foreign-1]
}

// IsForeign reports whether the connection has another protocol than Config.Protocol.
func (c *Conn) IsForeign() bool { return c.foreign != 0 }

// frame returns an event for this connection only. It is nil if the client does not receive it.
func (c *Conn) frame(e *Event) *fanout.Frame {
	if c.foreign == 0 {
		return fanout.NewFrame(c.hub.cfg.Protocol.Append(nil, *e))
	}
	if wire := c.foreignOf().Encode(e); wire != nil {
		return fanout.RawFrame(wire)
	}
	return nil
}

// directFrame is frame for an event that no other connection receives.
func (c *Conn) directFrame(e *Event) *fanout.Frame {
	if c.foreign != 0 {
		other := *e // so that e is not on the heap
		return c.frame(&other)
	}
	text := texts.Get().(*[]byte)
	defer putText(text)
	*text = c.hub.cfg.Protocol.Append((*text)[:0], *e)
	return fanout.NewDirect(*text, c.out.Form())
}

// sendForeign is Send for a connection with another protocol.
func (c *Conn) sendForeign(e Event) error {
	if e.Conn == nil {
		e.Conn = c
	}
	if f := c.frame(&e); f != nil && !c.out.Send(f) {
		return ErrClosed
	}
	return nil
}

// listFrame is frame for an event with a list that the client has requested.
func (c *Conn) listFrame(e *Event) *fanout.Frame {
	if c.foreign == 0 {
		return fanout.NewList(c.hub.cfg.Protocol.Append(nil, *e))
	}
	if wire := c.foreignOf().Encode(e); wire != nil {
		return fanout.RawList(wire)
	}
	return nil
}

// rendered is the Encoding of a frame for one protocol whose clients have one form.
type rendered []byte

// Bytes implements fanout.Encoding.
func (r rendered) Bytes(fanout.Form) []byte { return r }

// Has implements fanout.Encoding.
func (r rendered) Has(fanout.Form) bool { return true }

// Size implements fanout.Encoding.
func (r rendered) Size() int { return len(r) }

// renderSender renders the event of a client for other protocols. Their clients see who has sent it
// in another way than by the id of its member, which is what the text of f says.
func (ch *Channel) renderSender(f *fanout.Frame, e Event) {
	if ch.forms.Load()&foreignForms == 0 {
		return
	}
	all := ch.hub.foreign.Load()
	if all == nil {
		return
	}
	e.Sender = ch.shownMember(e.From)
	for _, p := range *all {
		f.SetEncoding(p.Form(), rendered(p.Encode(&e)))
	}
}

// noteForm is called before a member can receive events, so that they are rendered in its form
// before the channel is locked.
func (ch *Channel) noteForm(form fanout.Form) {
	if form > fanout.Bare {
		ch.forms.Or(1 << form)
	}
}

// foreignForms are the forms of other protocols among Channel.forms.
const foreignForms = ^(uint64(1)<<(fanout.BareDeflate+1) - 1)

// render renders f in the forms of other protocols that members have, and compresses it for those
// whose WebSockets have permessage-deflate.
func (ch *Channel) render(f *fanout.Frame) {
	for forms := ch.forms.Load(); forms != 0; forms &= forms - 1 {
		form := fanout.Form(bits.TrailingZeros64(forms))
		if form.IsForeign() {
			f.Bytes(form)
		} else {
			ch.hub.cfg.Engine.Compress(f, form)
		}
	}
}

// gapLocked notifies the members that events may have been lost. Clients of other protocols, which
// have no such event, are disconnected: they connect and subscribe again.
func (ch *Channel) gapLocked(reason string, place broker.Position) {
	if ch.listeners != nil {
		ch.listeners.gap(reason, place)
	}
	ch.broadcastLocked(ch.hub.frame(&Event{
		Kind:    Gap,
		Channel: ch.name,
		Reason:  reason,
		Place:   place,
	}), nil)
	if !ch.hub.HasForeign() || ch.forms.Load()&foreignForms == 0 {
		return
	}
	window := returnWindow(ch.hub.admission.Len(), ch.hub.cfg.ReturnRate)
	ch.mu.Lock()
	members := ch.members.all()
	ch.mu.Unlock()
	for _, m := range members {
		if m.conn.foreign != 0 {
			m.conn.endWithin(window, session.CloseRestart, "events may have been lost")
		}
	}
}

// endWithin ends the connection at a random time of the window, so that not all clients return at
// the same moment. Only the first call has an effect.
func (c *Conn) endWithin(window time.Duration, code int, reason string) {
	c.mu.Lock()
	first := !c.fewLocked().ending
	c.few.ending = true
	c.mu.Unlock()
	if first {
		time.AfterFunc(time.Duration(rand.Float64()*float64(window)), func() { c.end(code, reason) })
	}
}

// Repeat queues the Subscribed event of a channel that the connection is in once more. The error is
// ErrNotMember.
func (c *Conn) Repeat(channel string) error {
	m := c.membership(channel)
	if m == nil || !c.isIn(m) {
		return ErrNotMember
	}
	ch := m.ch
	e := Event{
		Kind:    Subscribed,
		Channel: channel,
		Conn:    c,
		Member:  m.id,
	}
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if m.viewer != nil && ch.policy.Presence && ch.replica.on && m.presence.Mode == PresenceJoins {
		e.Presence = true
		e.Members = ch.firstsLocked()
	}
	f := c.listFrame(&e)
	if m.out.SendThrough(&m.gate, f) {
		ch.hub.cfg.Engine.Flush()
	}
	c.chargeBytes(int64(len(f.Bytes(c.out.Form()))), answerToken)
	return nil
}

// firstsLocked returns the members that clients see, with the data of the first connection of each
// user.
func (ch *Channel) firstsLocked() []*Member {
	members := ch.replica.shown().values()
	for i, m := range members {
		u := ch.replica.users[m.identity]
		if u == nil || u.seen != m {
			continue
		}
		first := *m
		for _, one := range u.members {
			if one.Data != nil {
				first.Data = one.Data
				break
			}
		}
		members[i] = &first
	}
	return members
}

// shownMember returns a copy of what clients see of a member, or nil if there is none with that id.
func (ch *Channel) shownMember(id string) *Member {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	m := ch.replica.shown().get(id)
	if m == nil {
		return nil
	}
	seen := *m
	return &seen
}

// tellJoinsLocked notifies the members with PresenceJoins of a member that has joined or left.
func (ch *Channel) tellJoinsLocked(c change) {
	if len(ch.watchers[PresenceJoins]) == 0 {
		return
	}
	e := Event{
		Kind:    Joined,
		Channel: ch.name,
		Joiner:  c.member,
	}
	switch c.kind {
	case memberAdded:
	case memberRemoved:
		e.Kind = Left
	default:
		return
	}
	var frames [maxForeign]*fanout.Frame
	for _, m := range ch.watchers[PresenceJoins] {
		f := &frames[m.conn.foreign]
		if *f == nil {
			*f = m.conn.frame(&e)
		}
		m.out.SendThrough(&m.gate, *f)
	}
	ch.hub.cfg.Engine.Flush()
}

// SetUser gives a connection that has no user id one. It returns false if the connection has
// another one.
func (c *Conn) SetUser(id string) bool { return c.hub.admission.setUser(c, id) }

// sendFarewell sends the message that precedes a close frame of the server.
func (c *Conn) sendFarewell(first bool, by Ender, code int, reason string) {
	foreign := c.foreignOf()
	if !first || by != ByServer || foreign == nil {
		return
	}
	if last := foreign.Farewell(c, code, reason); last != nil {
		c.out.Send(fanout.RawFrame(last))
	}
}

// hasGrace reports whether the members of the connection, which has ended with the code, are held.
func (c *Conn) hasGrace(code int) bool {
	if foreign := c.foreignOf(); foreign != nil {
		return foreign.Grace(code)
	}
	return hasGrace(code)
}

// Attach stores a value of the connection's protocol, which Attached returns.
func (c *Conn) Attach(value any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fewLocked().attached = value
}

// Attached returns what was passed to Attach, or nil.
func (c *Conn) Attached() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.few == nil {
		return nil
	}
	return c.few.attached
}

// HasForeign reports whether there are other protocols than Config.Protocol.
func (h *Hub) HasForeign() bool { return h.foreign.Load() != nil }

// Spellings returns the channels that are open on this node and of whose names lower returns name.
func (h *Hub) Spellings(name string, lower func(string) string) (names []string) {
	for _, ch := range h.Channels() {
		if lower(ch.name) == name {
			names = append(names, ch.name)
		}
	}
	return names
}
