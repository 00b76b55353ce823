package pushyjson

import (
	"fmt"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// Kind is what a client's message is.
type Kind uint8

const (
	Bogus   Kind = iota // not a message of the protocol
	Ignored             // an event that the client sends, which no one receives
	Command
)

// Message is what a client sent (PROTOCOL.md, section 3). Its slices share memory
// with what was parsed.
type Message struct {
	Kind Kind
	Name string // of the command
	Data []byte // as sent; nil if absent
	ID   []byte // a JSON string or number; nil if it is absent or anything else
}

// Parse reads a client's message. Names are matched
// exactly, and of a repeated one the last counts. Bytes that are not UTF-8, which
// not every transport refuses, are read as U+FFFD.
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
	Channel  string // "" if absent or not a string
	Auth     string // "" if absent or not a string
	Presence []byte // as sent; nil if absent or null
}

// ParseSubscription reads a built-in command's data; the result is empty for what is not an object.
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

// PresenceError is why presence data is refused.
type PresenceError struct {
	Reason string // for the client
	detail string // for the host: sizes, and what to change
}

func (e *PresenceError) Error() string { return e.detail }

// PresenceFields turns presence data as a client sent it into a member's own
// fields, in canonical form, or nil if there are none. Valid data is an object, a
// string that contains one, or PHP's empty array. A limit that is not above zero is no
// limit.
func PresenceFields(data []byte, limit int) (fields []byte, refused *PresenceError) {
	if len(data) == 0 || string(data) == "null" {
		return nil, nil
	}
	if limit > 0 && len(data) > limit {
		return nil, &PresenceError{
			Reason: reasonDataTooLarge,
			detail: fmt.Sprintf("presence data of %d bytes is over the limit of %d: "+
				"send less, or raise Options.Limits.PresenceBytes", len(data), limit),
		}
	}
	invalid := func(why string) *PresenceError {
		return &PresenceError{
			Reason: reasonInvalidData,
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
