package pushy

import "encoding/json"

// Member is one membership of a private channel. It can be on any node.
type Member struct {
	// ID is the memberId of the protocol. It is new for each subscription and reveals
	// nothing about the connection.
	ID string
	// HasData reports whether the subscription had presence data. The first subscription
	// with data turns on the channel's presence, which stays on until the channel is empty.
	HasData bool
	// JSON is the member as clients see it: the fields of its data, followed by subscribed,
	// memberId and idle (PROTOCOL.md, section 4).
	JSON json.RawMessage
}

// Presence returns the channel's members on all nodes in the order in which they joined,
// and whether presence is on. While it is off, clients do not see the members. A public
// channel has no members here.
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
