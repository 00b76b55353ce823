package pushyjson

import (
	"fmt"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// Kind is the kind of a client's message.
type Kind uint8

const (
	Bogus   Kind = iota // not a message of the protocol
	Emitted             // an event that the client sends
	Command
)

// Message is a message of a client (PROTOCOL.md, section 3). Its slices share memory with
// the argument of Parse.
type Message struct {
	Kind Kind
	Name string // of the command
	Data []byte // as sent; nil if absent
	ID   []byte // a JSON string or number; nil if it is absent or another value
	// Event and Channel are fields of an event, as sent.
	Event   []byte
	Channel []byte // nil if absent
}

// Parse parses a message of a client. Field names are case-sensitive, and the last of
// duplicate fields is used. Bytes that are not valid UTF-8, which some transports accept,
// are read as U+FFFD.
func Parse(text []byte) Message {
	if !utf8.Valid(text) {
		text = jsvalue.AppendValid(nil, text)
	}
	var m Message
	var name []byte
	err := jsvalue.Fields(text, func(field, value []byte) {
		switch string(field) {
		case "command":
			name = value
		case "event":
			m.Event = value
		case "channel":
			m.Channel = value
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
	if string(m.Event) == "null" {
		m.Event = nil
	}
	switch {
	case (name == nil) == (m.Event == nil):
	case m.Event != nil:
		m.Kind = Emitted
	default:
		if s, ok := jsvalue.Text(name); ok {
			m.Kind = Command
			m.Name = s
		}
	}
	return m
}

// PresenceError says why presence data is refused.
type PresenceError struct {
	Reason string // for the client
	detail string // for the host's log: sizes, and what to change
}

func (e *PresenceError) Error() string { return e.detail }

// PresenceFields is jsvalue.PresenceFields with a limit for the size of the data in bytes, if it is
// positive.
func PresenceFields(data []byte, limit int) (fields []byte, refused *PresenceError) {
	if limit > 0 && len(data) > limit && string(data) != "null" {
		return nil, &PresenceError{
			Reason: reasonDataTooLarge,
			detail: fmt.Sprintf("presence data of %d bytes is over the limit of %d: "+
				"send less, or raise Options.Limits.PresenceBytes", len(data), limit),
		}
	}
	fields, err := jsvalue.PresenceFields(data)
	if err != nil {
		return nil, &PresenceError{
			Reason: reasonInvalidData,
			detail: err.Error(),
		}
	}
	return fields, nil
}
