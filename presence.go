package pushy

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// Member is one membership of a private channel, or one user if PresenceOptions.PerUser is
// set. It can be on any node.
type Member struct {
	// ID is the memberId of the protocol. It is new for each subscription and reveals
	// nothing about the connection.
	ID string
	// User is the Conn.UserID of its connection, or "".
	User string
	// HasData reports whether the subscription had presence data. The first subscription
	// with data turns on the channel's presence, which stays on until the channel is empty.
	HasData bool
	// JSON is the member as clients see it: the fields of its data, followed by subscribed,
	// memberId and idle and, if there are any, tabs and state (PROTOCOL.md, section 4).
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
			User:    all[i].User,
			HasData: all[i].Data != nil,
			JSON:    all[i].Text,
		})
	}
	return members, on
}

const maxHostState = 4 << 10

// Update sets the state of conn's member, which the other members see beside the member's
// data. state is encoded as a JSON object of at most 4 KiB, or it is nil, which removes the
// state. The members receive pushy:presence-update, or a batch (PROTOCOL.md, section 4); they
// receive nothing while the channel's presence is not turned on. Update waits until the
// Broker has appended the change. While the Broker is away, only the members on this node
// receive it, and the others when the Broker is back. The error is ErrNotMember or ErrClosed,
// or says why the state is not valid, or that the channel is not private or has no presence.
func (ch *Channel) Update(conn *Conn, state any) error {
	raw, err := jsvalue.Encode(state)
	if err != nil {
		return fmt.Errorf("pushy: update: %w", err)
	}
	raw, err = pushyjson.State(raw, maxHostState)
	if err != nil {
		return fmt.Errorf("pushy: update: %w", err)
	}
	if conn.c.Hub() != ch.ch.Hub() {
		return ErrNotMember
	}
	switch err := conn.c.SetState(ch.ch.Name(), raw); {
	case err == nil:
		return nil
	case errors.Is(err, hub.ErrNotMember):
		return ErrNotMember
	case errors.Is(err, hub.ErrClosed):
		return ErrClosed
	default:
		return fmt.Errorf("pushy: update: %w", err)
	}
}
