package subscriber

import (
	"context"
	"encoding/json"
	"slices"
)

// members has the members of a channel in joining order. Client.mu guards it.
type members struct {
	ids  []string
	text map[string]json.RawMessage
}

// memberID returns the id of a member, or "".
func memberID(member json.RawMessage) string {
	var m struct{ MemberID string }
	_ = json.Unmarshal(member, &m)
	return m.MemberID
}

func (ms *members) set(list []json.RawMessage) {
	*ms = members{}
	for _, m := range list {
		ms.add(m)
	}
}

func (ms *members) add(member json.RawMessage) {
	id := memberID(member)
	if ms.text == nil {
		ms.text = map[string]json.RawMessage{}
	}
	if _, known := ms.text[id]; !known {
		ms.ids = append(ms.ids, id)
	}
	ms.text[id] = member
}

func (ms *members) remove(member json.RawMessage) {
	id := memberID(member)
	if i := slices.Index(ms.ids, id); i >= 0 {
		ms.ids = slices.Delete(ms.ids, i, i+1)
		delete(ms.text, id)
	}
}

// update applies a change to a member, and returns the whole member, or nil if there is none. A member
// with the field "subscribed" is whole; of others, these are the fields that have changed.
func (ms *members) update(change json.RawMessage) json.RawMessage {
	var fields, member map[string]json.RawMessage
	old := ms.text[memberID(change)]
	if json.Unmarshal(change, &fields) != nil {
		return nil
	}
	if _, whole := fields["subscribed"]; whole {
		ms.add(change)
		return change
	}
	if json.Unmarshal(old, &member) != nil {
		return nil
	}
	for name, value := range fields {
		if name == "state" && string(value) == "null" {
			delete(member, name)
		} else {
			member[name] = value
		}
	}
	whole, err := json.Marshal(member)
	if err != nil {
		return nil
	}
	ms.add(whole)
	return whole
}

func (ms *members) list() []json.RawMessage {
	list := make([]json.RawMessage, 0, len(ms.ids))
	for _, id := range ms.ids {
		list = append(list, ms.text[id])
	}
	return list
}

// Members returns the members of a private channel, in joining order, as PROTOCOL.md, section 4,
// describes them. They are those of this moment, which the loop can still be about to receive. The list
// is empty without SubscribeOptions.Presence, and while nobody has brought presence data.
func (s *Subscription) Members() []json.RawMessage {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.members.list()
}

// Update sets the state of the Client's own member, an object of at most 1 KiB, or nil for none. The
// host must allow it (PresenceOptions.ClientState). The errors are those of Client.Exec.
func (s *Subscription) Update(ctx context.Context, state any) error {
	return s.c.Exec(ctx, "pushy:update", map[string]any{
		"channel": s.channel,
		"state":   state,
	}, nil)
}

// listLocked queues the list of the members.
func (s *Subscription) listLocked() {
	list, err := json.Marshal(s.members.list())
	if err != nil {
		return // each member is JSON that was parsed
	}
	s.pushLocked(&Event{
		Kind: KindMembers,
		Data: list,
	})
}

// memberLocked handles an event about members.
func (s *Subscription) memberLocked(m *message) {
	e := &Event{Data: m.fields.Member}
	switch m.Event {
	case "pushy:presence-sync":
		s.members.set(m.fields.Presence)
		s.listLocked()
		return
	case "pushy:presence-add":
		e.Kind = KindJoined
		s.members.add(e.Data)
	case "pushy:presence-quit":
		e.Kind = KindLeft
		s.members.remove(e.Data)
	default:
		e.Kind = KindUpdated
		e.Data = s.members.update(e.Data)
	}
	if e.Data != nil {
		s.pushLocked(e)
	}
}
