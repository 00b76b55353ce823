package hub

import (
	"slices"
	"strings"
)

// ChannelsAfter returns up to limit channels that have members on this node and whose names
// begin with prefix and follow the name after, sorted by name, and whether there are more.
func (h *Hub) ChannelsAfter(prefix, after string, limit int) (channels []*Channel, more bool) {
	first := First[*Channel]{
		After: after,
		Limit: limit,
	}
	var found []*Channel // of one shard; inUse is called without the lock of the shard
	for i := range h.shards {
		s := &h.shards[i]
		found = found[:0]
		s.mu.RLock()
		for name, ch := range s.channels {
			if strings.HasPrefix(name, prefix) && name > after {
				found = append(found, ch)
			}
		}
		s.mu.RUnlock()
		for _, ch := range found {
			if first.Wants(ch.name) && ch.inUse() {
				first.Add(ch.name, ch)
			}
		}
	}
	return first.Result()
}

// ShowsMembers reports whether clients see the members of the channel.
func (ch *Channel) ShowsMembers() bool {
	if !ch.policy.Presence {
		return false
	}
	ch.fan.Lock()
	defer ch.fan.Unlock()
	return ch.replica.on
}

// MembersAfter returns up to limit members of a channel on all nodes whose ids follow the id
// after, sorted by id, with their Text, whether clients see them, and whether there are more.
// With Policy.PerUser, these are users. The page is shorter if its members have over size bytes.
// known is false if the channel is not open on this node; then the other results have no meaning.
func (h *Hub) MembersAfter(channel, after string, limit, size int) (members []Member, on, more, known bool) {
	ch := h.find(channel)
	if ch == nil || ch.watching == nil {
		return nil, false, false, false
	}
	// A channel can have 100,000 members, for which the lock would delay its events. So the
	// members are searched without it. Those that have left meanwhile are not in the page.
	for {
		places, known := ch.places()
		if !known {
			return nil, false, false, false
		}
		first := First[*Member]{
			After: after,
			Limit: limit,
		}
		for _, p := range places {
			if p.member != nil && first.Wants(p.member.ID) {
				first.Add(p.member.ID, p.member)
			}
		}
		page, more := first.Result()
		members, on, cut := ch.stillShown(page, size)
		if more = more || cut; len(members) > 0 || !more {
			return members, on, more, true
		}
		after = page[len(page)-1].ID
	}
}

// places returns a copy of the places of the members that clients see. The ids of members do not
// change, and only they can be read without the lock of the fan-outs. known is false if the node
// does not know the members yet.
func (ch *Channel) places() (places []place, known bool) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if !ch.ready {
		return nil, false
	}
	return slices.Clone(ch.replica.shown().places), true
}

// stillShown returns those of the members that clients see, with their Text, until they have over
// size bytes, and reports whether it has left out any because of that.
func (ch *Channel) stillShown(page []*Member, size int) (members []Member, on, cut bool) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	shown := ch.replica.shown()
	for _, m := range page {
		m = shown.get(m.ID) // it can have joined again
		if m == nil {
			continue
		}
		ch.showLocked(m)
		if size -= len(m.Text) + memberOverhead; size < 0 && len(members) > 0 {
			return members, ch.replica.on, true
		}
		members = append(members, *m)
	}
	return members, ch.replica.on, false
}

// Waiting returns the bytes that are queued for the connection or being written.
func (c *Conn) Waiting() int64 { return c.out.Waiting() }

// Since returns when the connection began, in milliseconds since 1970.
func (c *Conn) Since() int64 { return c.since }

// ConnsOf returns the connections of a user whose Connect hook has returned, in no order.
func (h *Hub) ConnsOf(user string) []*Conn {
	return slices.DeleteFunc(h.admission.ofUser(user), func(c *Conn) bool { return !c.isGreeted() })
}

func (c *Conn) isGreeted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.greeted
}
