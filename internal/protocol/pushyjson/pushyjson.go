// Package pushyjson implements the pushy protocol (PROTOCOL.md): it parses the messages of
// clients and renders the messages for them. No other package does.
package pushyjson

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// Names of events (PROTOCOL.md, sections 2 to 4).
const (
	eventConnect      = "pushy:connect"
	eventError        = "pushy:error"
	eventReply        = "pushy:reply"
	eventSuccess      = "pushy:subscription-success"
	eventFailed       = "pushy:subscription-failed"
	eventNeedAuth     = "pushy:subscription-needauth"
	eventEnd          = "pushy:subscription-end"
	eventPresenceAdd  = "pushy:presence-add"
	eventPresenceQuit = "pushy:presence-quit"
	eventPresenceSync = "pushy:presence-sync"
	eventPresenceNews = "pushy:presence-update"
	eventPresenceDiff = "pushy:presence-diff"
	eventResync       = "pushy:resync"
	eventDropped      = "pushy:dropped"
	eventReturn       = "pushy:return"
	eventDrain        = "pushy:drain"
)

// Protocol implements hub.Protocol.
type Protocol struct {
	// Channel validates the name of a channel and returns it in the form in which names are
	// compared. The error wraps names.ErrNotChecked if the validation itself failed.
	Channel func(name string) (string, error)
	// Command runs a command of the host and returns the error for the client, or nil. known
	// is false if there is no command with that name.
	Command func(r *Request) (refused *Error, known bool)
	// Measured is called when a command has returned, also if it has panicked, with the time when
	// its message was read. The name is as the client sent it.
	Measured func(name string, began time.Time)
	// PresenceBytes limits the presence data of a member. If it is not positive, there is no
	// limit.
	PresenceBytes int
	// Unavailable is called with the error of the broker when the history of a channel cannot
	// be read.
	Unavailable func(channel string, err error)
	// ClientEvents decide about the events that clients send.
	ClientEvents *ClientEvents
}

var _ hub.Protocol = (*Protocol)(nil)

// Append implements hub.Protocol.
func (p *Protocol) Append(dst []byte, e hub.Event) []byte {
	switch e.Kind {
	case hub.Published:
		if e.From != "" && strings.HasPrefix(e.Name, ClientEventPrefix) {
			return appendFrom(appendEvent(dst, e.Name, e.Channel, e.Data, 0), e.From)
		}
		return appendEvent(dst, e.Name, e.Channel, e.Data, e.Offset)
	case hub.Joined:
		return appendEvent(dst, eventPresenceAdd, e.Channel, jsvalue.Object(nil).Raw("member", e.Joiner.Text), 0)
	case hub.Left:
		return appendEvent(dst, eventPresenceQuit, e.Channel, jsvalue.Object(nil).Raw("member", e.Joiner.Text), 0)
	case hub.Members:
		return appendEvent(dst, eventPresenceSync, e.Channel, jsvalue.Object(nil).Raw("presence", list(e.Members)), 0)
	case hub.Updated:
		return appendEvent(dst, eventPresenceNews, e.Channel, jsvalue.Object(nil).Raw("member", updated(e.Update)), 0)
	case hub.Changed:
		return appendEvent(dst, eventPresenceDiff, e.Channel, appendChanges(view(e.View), e.View.Changes), 0)
	case hub.Listed:
		return appendListed(dst, &e)
	case hub.Gap:
		data := []byte("{}")
		if e.Reason != "" {
			data = appendPlace(jsvalue.Object(nil).Text("reason", e.Reason), e.Place)
		}
		return appendEvent(dst, eventResync, e.Channel, data, 0)
	case hub.Dropped:
		data := jsvalue.Object(nil).Raw("count", strconv.AppendInt(nil, e.Count, 10))
		return appendEvent(dst, eventDropped, e.Channel, data, 0)
	case hub.Direct:
		return appendReply(dst, e.Name, e.Data, e.Request)
	case hub.Replied:
		dst = slices.Grow(dst, len(e.Request)+len(e.Data)+60)
		dst = append(dst, `{"event":"`+eventReply+`","data":{"id":`...)
		dst = append(dst, e.Request...)
		dst = append(dst, `,"data":`...)
		dst = append(dst, e.Data...)
		return append(dst, "}}"...)
	case hub.Failed:
		data := jsvalue.Object(nil).Text("message", e.Reason).Text("code", e.Code)
		return appendReply(dst, eventError, data, e.Request)
	case hub.Connected:
		data := jsvalue.Object(nil).Text("socketId", e.Conn.ID()).Text("protocol", e.Conn.Transport())
		if within := e.Conn.ReturnWithin(); within > 0 {
			data = appendTime(data, "returnWithin", within)
		}
		return appendReply(dst, eventConnect, data, nil)
	case hub.WindowGrew:
		return appendReply(dst, eventReturn, appendTime(jsvalue.Object(nil), "returnWithin", e.Within), nil)
	case hub.Draining:
		return appendReply(dst, eventDrain, appendTime(jsvalue.Object(nil), "returnIn", e.Within), nil)
	case hub.Subscribed:
		data := jsvalue.Object(nil).Text("channel", e.Channel).Text("memberId", e.Member)
		if e.Key != "" {
			data = data.Text("key", e.Key)
		}
		if e.Returned {
			data = data.Raw("resumed", strconv.AppendBool(nil, e.Resumed))
		}
		if e.Expires > 0 && e.Conn.Version() >= 2 {
			data = data.Raw("expires", strconv.AppendInt(nil, e.Expires, 10))
		}
		if e.Past != nil {
			data = appendPast(data, e.Past)
		}
		if e.Within > 0 && (e.Conn.Version() >= 2 || e.Key != "") {
			data = appendTime(data, "settling", e.Within)
		}
		if e.Presence {
			data = data.Raw("presence", list(e.Members))
			if e.ListAt != nil {
				*e.ListAt = len(dst) + len(beforeSuccess) + len(data) - len("]}")
			}
		}
		data = appendView(data, &e)
		return appendReply(dst, eventSuccess, data, e.Request)
	case hub.Ended:
		data := jsvalue.Object(nil).Text("channel", e.Channel)
		if e.Reason != "" {
			data = data.Text("reason", e.Reason)
		}
		if e.Again {
			data = data.Raw("again", []byte("true"))
		}
		return appendReply(dst, eventEnd, data, e.Request)
	}
	panic("pushyjson: an event of unknown kind " + strconv.Itoa(int(e.Kind)))
}

// AppendMember implements hub.Protocol. It appends the member's own fields, and then the
// fields of the server. A field of the server replaces a client's field of the same name in
// place, so that clients cannot choose its value.
func (p *Protocol) AppendMember(dst []byte, m *hub.Member) []byte {
	fields := m.Data
	if fields == nil {
		fields = []byte("{}")
	}
	subscribed := int64(0) // for a member that another program has written, without a time
	if !m.Joined.IsZero() {
		subscribed = m.Joined.UnixMilli()
	}
	set := make([]jsvalue.Field, 0, 5)
	set = append(set,
		jsvalue.Field{Name: "subscribed", Value: strconv.AppendInt(nil, subscribed, 10)},
		jsvalue.Field{Name: "memberId", Value: jsvalue.AppendQuote(nil, m.ID)},
		jsvalue.Field{Name: "idle", Value: strconv.AppendBool(nil, m.Idle)})
	if m.Tabs > 0 {
		set = append(set, jsvalue.Field{Name: "tabs", Value: strconv.AppendInt(nil, int64(m.Tabs), 10)})
	}
	if m.State != nil {
		set = append(set, jsvalue.Field{Name: "state", Value: m.State})
	}
	out, err := jsvalue.SetFields(dst, fields, set...)
	if err != nil {
		panic(err) // MemberData and the validation of a broker's entries accept only objects
	}
	return out
}

// MemberData implements hub.Protocol.
func (p *Protocol) MemberData(data []byte) ([]byte, error) {
	fields, refused := PresenceFields(data, p.PresenceBytes)
	if refused != nil {
		return nil, &hub.RefusedError{
			Reason: refused.Reason,
			Err:    refused,
		}
	}
	return fields, nil
}

// appendTime adds a field whose value is a number of milliseconds.
func appendTime(o jsvalue.Object, name string, d time.Duration) jsvalue.Object {
	return o.Raw(name, strconv.AppendInt(nil, d.Milliseconds(), 10))
}

// separator is what is between two members of a list.
const separator = ','

// Separator implements hub.Protocol.
func (p *Protocol) Separator() []byte { return []byte{separator} }

func list(members []*hub.Member) []byte {
	size := 2
	for _, m := range members {
		size += len(m.Text) + 1
	}
	b := append(make([]byte, 0, size), '[')
	for i, m := range members {
		if i > 0 {
			b = append(b, separator)
		}
		b = append(b, m.Text...)
	}
	return append(b, ']')
}

// appendEvent appends a channel event. data is JSON. offset is 0 if the event is not kept.
func appendEvent(b []byte, event, channel string, data []byte, offset uint64) []byte {
	most := len(event) + len(channel) + len(data) + 40
	if offset > 0 {
		most += 30
	}
	b = slices.Grow(b, most)
	b = append(b, `{"event":`...)
	b = jsvalue.AppendQuote(b, event)
	b = append(b, `,"channel":`...)
	b = jsvalue.AppendQuote(b, channel)
	b = append(b, `,"data":`...)
	b = append(b, data...)
	if offset > 0 {
		b = append(b, `,"offset":`...)
		b = strconv.AppendUint(b, offset, 10)
	}
	return append(b, '}')
}

// appendFrom appends the member that has sent an event to the message of the event.
func appendFrom(b []byte, from string) []byte {
	b = append(b[:len(b)-1], `,"from":`...)
	b = jsvalue.AppendQuote(b, from)
	return append(b, '}')
}

// beforeSuccess is what appendReply appends before the data of eventSuccess.
const beforeSuccess = `{"event":"` + eventSuccess + `","data":`

// appendReply appends a message for one connection. If id is not nil, it is added as the last
// field: to data if that is an object without a field "id", otherwise to the message.
func appendReply(b []byte, event string, data, id []byte) []byte {
	b = slices.Grow(b, len(event)+len(data)+len(id)+40)
	b = append(b, `{"event":`...)
	b = jsvalue.AppendQuote(b, event)
	b = append(b, `,"data":`...)
	b = append(b, data...)
	switch {
	case id == nil:
	case jsvalue.Kind(data) != '{' || hasID(data):
		b = append(b, `,"id":`...)
		b = append(b, id...)
	default:
		b = b[:len(b)-1]
		if len(data) > len("{}") {
			b = append(b, ',')
		}
		b = append(b, `"id":`...)
		b = append(b, id...)
		b = append(b, '}')
	}
	return append(b, '}')
}

// hasID reports whether an object has a field "id".
func hasID(object []byte) bool {
	if !bytes.Contains(object, []byte(`"id"`)) && !bytes.Contains(object, []byte(`\u00`)) {
		return false // most objects; the name is written so, or with an escape of one of its letters
	}
	found := false
	_ = jsvalue.Fields(object, func(name, _ []byte) { found = found || string(name) == "id" })
	return found
}
