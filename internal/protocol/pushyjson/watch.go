package pushyjson

import (
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

// watched describes a message for those who watch its connection. The data of the protocol's own
// commands can have tokens, so only the channel is taken from it.
func watched(m *Message) hub.Decision {
	d := hub.Decision{
		Kind: hub.DecidedReceived,
		Name: m.Name,
		Data: m.Data,
	}
	text := func(value []byte) string {
		s, _ := jsvalue.Text(value)
		return s
	}
	switch m.Kind {
	case Bogus:
		d.Reason = "it is not a message of the protocol"
	case Emitted:
		d.Name = text(m.Event)
		d.Channel = text(m.Channel)
	default:
		if commands[string(names.AppendLowerASCII(nil, m.Name))] == nil {
			break
		}
		d.Data = nil
		_ = jsvalue.Fields(m.Data, func(field, value []byte) {
			if string(field) == "channel" {
				d.Channel = text(value)
			}
		})
	}
	return d
}
