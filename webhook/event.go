package webhook

import (
	"encoding/json"

	"github.com/gopushy/pushy/broker"
)

// The names of the events.
const (
	ChannelOccupied  = "channel.occupied"
	ChannelVacated   = "channel.vacated"
	MemberJoined     = "member.joined"
	MemberLeft       = "member.left"
	ConnectionOpened = "connection.opened"
	ConnectionClosed = "connection.closed"
	// ClientEvent is an event that a client has sent to the other members of a channel.
	ClientEvent = "client.event"
	// ChannelMiss is a subscription that asked for past events and received none, because the
	// channel keeps events (pushy.ChannelOptions.Keep) and has none.
	ChannelMiss = "channel.miss"
	// EventsLost is sent whatever Options.Events has.
	EventsLost = "events.lost"
)

// Reasons of a MemberLeft.
const (
	reasonLeft   = "left"   // the connection is still open
	reasonClosed = "closed" // the connection has ended
	reasonLost   = "lost"   // the server of the connection has failed or was shut down
)

// codeLost is the close code of a connection that was lost with its server.
const codeLost = 1006

// Reasons of an EventsLost.
const (
	reasonOverflow = "overflow" // the queue was full
	reasonExpired  = "expired"  // the receiver did not accept them within an hour
	reasonHandover = "handover" // the server that was to send them has failed
	reasonLarge    = "large"    // the broker, or maxEvent, does not allow their size
)

// maxEvent limits the JSON of one event, because a receiver limits its requests:
// backend.VerifyWebhook accepts 1 MiB.
const maxEvent = 768 << 10

// event is the JSON of one event.
type event struct {
	ID         string          `json:"id"`
	Event      string          `json:"event"`
	Channel    string          `json:"channel,omitempty"`
	Name       string          `json:"name,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
	Member     json.RawMessage `json:"member,omitempty"`
	MemberID   string          `json:"memberId,omitempty"`
	Connection string          `json:"connection,omitempty"`
	User       string          `json:"user,omitempty"`
	At         int64           `json:"at"` // milliseconds
	Revision   uint64          `json:"revision,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	Code       int             `json:"code,omitempty"`
	Count      int             `json:"count,omitempty"`
}

// item is an event that waits.
type item struct {
	json []byte // empty if the form of the requests does not have the event: an EventsLost
	// lost is the reason of an EventsLost.
	lost string
	// count is the number of events for which it stands: 1, or for an EventsLost their number.
	count int
	// rev is the entry of the log that has caused it, or zero.
	rev broker.Position
}
