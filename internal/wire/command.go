package wire

import (
	"fmt"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// Kind is what a client's message is.
type Kind uint8

const (
	Bogus   Kind = iota // not a message of the protocol
	Ignored             // an event of the client's own: never relayed
	Command
)

// Message is what a client sent (PROTOCOL.md, section 3). Its slices are parts
// of the text that was parsed.
type Message struct {
	Kind Kind
	Name string // of the command
	Data []byte // as sent; nil if absent
	ID   []byte // a JSON text or number; nil without one, or with any other value
}

// Parse reads a client's message. Names match exactly, a repeated one counts
// last. Bytes that are no UTF-8, which not every transport refuses, are read as
// U+FFFD: an id goes back as it came.
func Parse(text []byte) Message {
	if !utf8.Valid(text) {
		text = jsvalue.AppendValid(nil, text)
	}
	var m Message
	var name, event []byte
	err := jsvalue.Fields(text, func(field, value []byte) {
		switch string(field) {
		case "command":
			name = value
		case "event":
			event = value
		case "data":
			m.Data = value
		case "id":
			m.ID = nil
			if k := jsvalue.Kind(value); k == '"' || k == '0' {
				m.ID = value
			}
		}
	})
	if err != nil {
		return Message{}
	}
	if string(event) == "null" {
		event = nil
	}
	switch {
	case (name == nil) == (event == nil):
	case event != nil:
		m.Kind = Ignored
	default:
		if s, ok := jsvalue.Text(name); ok {
			m.Kind, m.Name = Command, s
		}
	}
	return m
}

// Subscription is the data of SUBSCRIBE and UNSUBSCRIBE.
type Subscription struct {
	Channel  string // "" if absent or not a text
	Auth     string // "" if absent or not a text
	Presence []byte // as sent; nil if absent or null
}

// ParseSubscription reads a built-in command's data; what is no object is empty.
func ParseSubscription(data []byte) Subscription {
	var s Subscription
	err := jsvalue.Fields(data, func(field, value []byte) {
		switch string(field) {
		case "channel":
			s.Channel, _ = jsvalue.Text(value)
		case "auth":
			s.Auth, _ = jsvalue.Text(value)
		case "data":
			s.Presence = value
			if string(value) == "null" {
				s.Presence = nil
			}
		}
	})
	if err != nil {
		return Subscription{}
	}
	return s
}

// PresenceTooLarge is the reason that a client receives for presence data that is
// over a limit.
const PresenceTooLarge = "Presence data too large"

// PresenceError is why presence data is refused.
type PresenceError struct {
	Reason string // for the client
	detail string // for the host: sizes, and what to change
}

func (e *PresenceError) Error() string { return e.detail }

// PresenceFields turns presence data as a client sent it into a member's own
// fields, in canonical form, or nil if there are none. Valid data is an object, a
// string that contains one, or PHP's empty array.
func PresenceFields(data []byte, limit int) (fields []byte, refused *PresenceError) {
	if len(data) == 0 || string(data) == "null" {
		return nil, nil
	}
	if limit > 0 && len(data) > limit {
		return nil, &PresenceError{
			Reason: PresenceTooLarge,
			detail: fmt.Sprintf("presence data of %d bytes is over the limit of %d: "+
				"send less, or raise Options.Limits.PresenceBytes", len(data), limit),
		}
	}
	invalid := func(why string) *PresenceError {
		return &PresenceError{
			Reason: "Invalid presence data",
			detail: "presence data " + why,
		}
	}
	raw := data
	if text, ok := jsvalue.Text(data); ok {
		raw = []byte(text)
	}
	fields, err := jsvalue.Canonical(nil, raw, jsvalue.TriggerLimits)
	switch {
	case err == nil && string(fields) == "[]":
		return []byte("{}"), nil
	case err != nil:
		return nil, invalid("is not valid: " + err.Error())
	case fields[0] != '{':
		return nil, invalid("must be an object, not " + jsvalue.KindName(jsvalue.Kind(fields)))
	}
	return fields, nil
}

// Member returns a member as clients see it: its own fields, in canonical form
// or nil, then those that the server gives it. These stand where the client put
// fields of the same name, so it cannot choose them.
func Member(fields []byte, subscribed []byte, id string) ([]byte, error) {
	if fields == nil {
		fields = []byte("{}")
	}
	return jsvalue.SetFields(nil, fields,
		jsvalue.Field{Name: "subscribed", Value: subscribed},
		jsvalue.Field{Name: "memberId", Value: jsvalue.AppendQuote(nil, id)},
		jsvalue.Field{Name: "idle", Value: []byte("false")})
}
