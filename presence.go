package pushy

import "encoding/json"

// Member is one membership of a private channel, on whichever node.
type Member struct {
	ID string // its memberId: new for every subscription, tells nothing of the connection
	// HasData reports whether the subscription brought presence data. The
	// first that did turns the channel's presence on, until it is empty.
	HasData bool
	// JSON is the member as clients see it: its data's fields, then subscribed,
	// memberId and idle (PROTOCOL.md, section 4).
	JSON json.RawMessage
}

// Presence returns the channel's members on all nodes in joining order, and
// whether presence is on; while it is off clients do not see them. Channels
// that are not private have none.
func (ch *Channel) Presence() (members []Member, on bool) {
	all, on := ch.ch.Members()
	for i := range all {
		members = append(members, Member{
			ID:      all[i].ID,
			HasData: all[i].Data != nil,
			JSON:    all[i].Text,
		})
	}
	return members, on
}
