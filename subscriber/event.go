package subscriber

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/gopushy/pushy/broker"
)

// Kind is the kind of an Event.
type Kind uint8

// The kinds of events. KindMembers, KindJoined, KindLeft and KindUpdated occur only with
// SubscribeOptions.Presence.
const (
	// KindPublished is an event that was published, or that another client has sent.
	KindPublished Kind = iota + 1
	// KindGap means that events of the channel may be missing before the next one: fetch the
	// current state.
	KindGap
	// KindEnded means that the server has ended the subscription. The loop ends after it.
	KindEnded
	// KindMembers has the list of the members of a private channel, which replaces any earlier one.
	KindMembers
	KindJoined  // a member has joined
	KindLeft    // a member has left
	KindUpdated // the data, the state or the idleness of a member has changed
)

var kindNames = [...]string{
	KindPublished: "published",
	KindGap:       "gap",
	KindEnded:     "ended",
	KindMembers:   "members",
	KindJoined:    "joined",
	KindLeft:      "left",
	KindUpdated:   "updated",
}

// String returns the name of the kind, such as "published".
func (k Kind) String() string {
	if int(k) < len(kindNames) && k > 0 {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Event is what a Subscription receives. It has the fields of pushy.Received.
type Event struct {
	Kind    Kind
	Channel string // in lower case
	Name    string // of a KindPublished: the name of the event
	// Data is the data of an event as JSON; a member (PROTOCOL.md, section 4), of KindJoined, KindLeft
	// and KindUpdated; or an array of members, of KindMembers.
	Data json.RawMessage
	// From is the memberId of the client that has sent the event; an event without it was published
	// by the host or a backend.
	From string
	// Position is the place of an event, or the place that a Gap leads to. It is zero if the channel
	// keeps no events.
	Position broker.Position
	Time     time.Time // when it arrived
	// Reason is why there is a Gap: a reason of PROTOCOL.md, section 14, which is "off" after a
	// reconnect if the channel keeps no events, and "" if the servers have lost some of these;
	// "dropped" for events that the server did not send to this slow client; or "skipped" for events
	// that did not fit into the queue. Of KindEnded, it is the reason of the server.
	Reason string
	// Count is the number of events that are known to be missing at a Gap, because they were skipped
	// or dropped.
	Count int
}

// eventOverhead is what a queued event takes beside its data.
const eventOverhead = 250

func (e *Event) size() int { return len(e.Data) + len(e.Name) + eventOverhead }

// OnFull says what happens when an event does not fit into the queue of a Subscription. Other
// Subscriptions receive their events all the same.
type OnFull uint8

const (
	// EndWhenFull ends the Subscription: its loop receives what is queued, and then ErrSlowConsumer.
	EndWhenFull OnFull = iota
	// SkipWhenFull continues. In a channel that keeps events, the Client unsubscribes, and subscribes
	// again from where it was when the queue is empty, so nothing is lost while the server still has
	// it; others see that the member leaves and joins. In other channels one Event with KindGap, the
	// reason "skipped" and a Count takes the place of the events that did not fit, and if changes of
	// the members are among them, a KindMembers follows.
	SkipWhenFull
)

// queued is an event in the queue, or the place of events that were skipped.
type queued struct {
	Event
	skipped *skipped
}

type skipped struct {
	gap     Event
	members bool // changes of the members are among them
}

// queue has the events that the loop of a Subscription has not received yet. Client.mu guards it.
type queue struct {
	events    []queued
	bytes     int
	maxEvents int
	maxBytes  int
	gap       *skipped // the last element, if that is one
}

// fits reports whether push may be called.
func (q *queue) fits(e *Event) bool {
	return len(q.events) == 0 || len(q.events) < q.maxEvents && q.bytes+e.size() <= q.maxBytes
}

func (q *queue) push(e *Event) {
	q.gap = nil
	q.bytes += e.size()
	q.events = append(q.events, queued{Event: *e})
}

// skip puts a Gap in place of an event that does not fit.
func (q *queue) skip(e *Event) {
	if q.gap == nil {
		q.gap = &skipped{gap: Event{
			Kind:    KindGap,
			Channel: e.Channel,
			Reason:  "skipped",
		}}
		q.events = append(q.events, queued{skipped: q.gap})
	}
	gap := &q.gap.gap
	gap.Time = e.Time
	switch e.Kind {
	case KindPublished:
		gap.Count++
	case KindGap:
		gap.Reason = e.Reason
		gap.Position = e.Position
		gap.Count += e.Count
	default:
		q.gap.members = true
	}
}

// pop returns the next event, and whether changes of the members were skipped before the one that
// follows.
func (q *queue) pop() (e Event, members, ok bool) {
	if len(q.events) == 0 {
		return Event{}, false, false
	}
	first := q.events[0]
	q.events[0] = queued{}
	q.events = q.events[1:]
	if len(q.events) == 0 {
		q.events = nil
	}
	if first.skipped == nil {
		q.bytes -= first.size()
		return first.Event, false, true
	}
	if q.gap == first.skipped {
		q.gap = nil
	}
	return first.skipped.gap, first.skipped.members, true
}
