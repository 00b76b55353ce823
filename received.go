package pushy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/eventstream"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// Kind is the kind of what a Listener receives.
type Kind uint8

// The kinds of Received. KindMembers, KindJoined, KindLeft and KindUpdated occur only with
// ListenOptions.Presence.
const (
	// KindPublished is an event that was published, or that a client has sent.
	KindPublished Kind = iota + 1
	// KindGap means that events of the channel may be missing before the next one: read the
	// current state.
	KindGap
	// KindEnded means that the subscription of the channel has ended (Server.Kick).
	KindEnded
	// KindMembers has the list of the members of a private channel, which replaces any earlier
	// one. It is the first that is received of the channel.
	KindMembers
	KindJoined  // a member has joined
	KindLeft    // a member has left
	KindUpdated // the data, the state or the idleness of a member has changed
)

// kindNames are the names of the kinds, and of their events where a Received is written as SSE.
var kindNames = [...]struct{ name, event string }{
	KindPublished: {"published", ""},
	KindGap:       {"gap", "pushy:gap"},
	KindEnded:     {"ended", "pushy:end"},
	KindMembers:   {"members", "pushy:presence-sync"},
	KindJoined:    {"joined", "pushy:presence-add"},
	KindLeft:      {"left", "pushy:presence-quit"},
	KindUpdated:   {"updated", "pushy:presence-update"},
}

// String returns the name of the kind, such as "published".
func (k Kind) String() string {
	if int(k) < len(kindNames) && k > 0 {
		return kindNames[k].name
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Received is what Go code receives from a channel: an event, or a message about the channel. (Event
// is an event to publish.) It is a value that can be kept. The bytes of Data are shared with others
// and must not be changed.
type Received struct {
	Kind    Kind
	Channel string // in lower case
	Name    string // of a KindPublished: the name of the event
	// Data is the data of an event as JSON; a member as clients see it (PROTOCOL.md, section 4), of
	// KindJoined, KindLeft and KindUpdated; or an array of members, of KindMembers.
	Data json.RawMessage
	// From is the memberId of the client that has sent the event; an event without it was published
	// by the host or a backend.
	From string
	// Position is the place of an event, or the place that a Gap leads to. It is zero if the channel
	// keeps no events.
	Position broker.Position
	// Time is when the Broker got the event, by its clock. For events that are not kept, and for all
	// that is not an event, it is when this node received it.
	Time time.Time
	// Reason is why there is a Gap: a reason of PROTOCOL.md, section 14, or "skipped" for events that
	// did not fit into the queue of the Listener; "" for lost events of a channel that keeps none. Of
	// KindEnded, it is the Kick.Reason.
	Reason string
	// Count is the number of events that are known to be missing at a Gap, because they were skipped.
	Count int
}

func receivedOf(e *hub.ListenerEvent) Received {
	r := Received{
		Channel:  e.Channel,
		Name:     e.Name,
		Data:     e.Data,
		From:     e.From,
		Position: e.Position,
		Time:     e.Time,
		Reason:   e.Reason,
		Count:    e.Count,
	}
	switch e.Kind {
	case hub.Published:
		r.Kind = KindPublished
	case hub.Gap:
		r.Kind = KindGap
	case hub.Ended:
		r.Kind = KindEnded
	case hub.Joined:
		r.Kind = KindJoined
	case hub.Left:
		r.Kind = KindLeft
	case hub.Updated:
		r.Kind = KindUpdated
	case hub.Members:
		r.Kind = KindMembers
		r.Data = append(append([]byte{'['}, bytes.Join(e.Members, []byte{','})...), ']')
	}
	return r
}

// AppendSSE appends what was received to dst as one event of a Server-Sent Events stream, with the
// blank line that ends it: the name as event, unless it is "message"; the data, as its content if it
// is a string, and otherwise as compact JSON; and the position as id, if there is one. A Gap is the
// event "pushy:gap", and an end "pushy:end", with the channel and the reason as data; changes of the
// members have their names and data of PROTOCOL.md, section 4.
func (r Received) AppendSSE(dst []byte) []byte {
	name := r.Name
	data := string(r.Data)
	switch r.Kind {
	case KindPublished:
		if text, ok := jsvalue.Text(r.Data); ok {
			data = text
		}
	case KindMembers:
		data = string(jsvalue.Object(nil).Raw("presence", r.Data))
	case KindJoined, KindLeft, KindUpdated:
		data = string(jsvalue.Object(nil).Raw("member", r.Data))
	default:
		data = string(jsvalue.Object(nil).Text("channel", r.Channel).Text("reason", r.Reason))
	}
	if r.Kind != KindPublished && int(r.Kind) < len(kindNames) {
		name = kindNames[r.Kind].event
	}
	dst = eventstream.AppendName(dst, name)
	dst = eventstream.AppendLines(dst, data)
	if r.Position.Epoch != "" {
		dst = append(dst, "id: "...)
		dst = append(dst, r.Position.String()...)
		dst = append(dst, '\n')
	}
	return append(dst, '\n')
}
