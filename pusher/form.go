package pusher

import (
	"strings"
	"sync/atomic"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/pusherform"
)

// form is the form of the messages of all Pusher clients.
var form = fanout.NewFamily(func(text []byte) fanout.Encoding { return &encoding{text: text} })

// encoding is a message of pushy's own protocol as Pusher clients receive it. It is made once for all
// of them.
type encoding struct {
	text []byte
	wire atomic.Pointer[[]byte]
}

// Bytes implements fanout.Encoding.
func (e *encoding) Bytes(fanout.Form) []byte {
	if made := e.wire.Load(); made != nil {
		return *made
	}
	wire := encode(e.text)
	e.wire.Store(&wire)
	return wire
}

// Has implements fanout.Encoding.
func (e *encoding) Has(fanout.Form) bool { return e.wire.Load() != nil }

// Size implements fanout.Encoding.
func (e *encoding) Size() int {
	if made := e.wire.Load(); made != nil {
		return len(*made)
	}
	return 0
}

// ended is the event of pushy's protocol for a subscription that the host has ended.
const ended = "pushy:subscription-end"

// encode returns a message of pushy's own protocol that many clients receive as Pusher clients receive
// it, or nil if they do not.
func encode(text []byte) []byte {
	e := hub.Event{Kind: hub.Published}
	err := jsvalue.Fields(text, func(field, value []byte) {
		switch string(field) {
		case "event":
			e.Name, _ = jsvalue.Text(value)
		case "channel":
			e.Channel, _ = jsvalue.Text(value)
		case "data":
			e.Data = value
		case "from":
			e.From, _ = jsvalue.Text(value)
		}
	})
	var message []byte
	switch {
	case err != nil, e.Data == nil:
		return nil
	case e.Name == ended:
		message = refusalOf(e.Data)
	case strings.HasPrefix(e.Name, "pushy:"):
		return nil // the protocol has no such event
	case e.From != "" && pusherform.IsPresence(e.Channel):
		return nil // the hub renders it for those who were there when it was sent
	default:
		message = published(&e)
	}
	if message == nil {
		return nil
	}
	return fanout.TextFrame(message)
}

// refusalOf returns the message for the data of a subscription that the host has ended.
func refusalOf(data []byte) []byte {
	var channel, reason string
	_ = jsvalue.Fields(data, func(field, value []byte) {
		switch string(field) {
		case "channel":
			channel, _ = jsvalue.Text(value)
		case "reason":
			reason, _ = jsvalue.Text(value)
		}
	})
	return refusal(channel, reason, typeAuth, statusForbidden)
}
