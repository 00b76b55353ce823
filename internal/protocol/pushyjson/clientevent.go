package pushyjson

import (
	"bytes"
	"errors"
	"strings"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

// ClientEventPrefix is what the names of events that clients send begin with.
const ClientEventPrefix = "client-"

// The errors of events that clients send.
var (
	ErrNoClientEvents = &Error{"403", "Client events are not allowed"}
	ErrEventTooLarge  = &Error{"413", "Event too large"}
	ErrUnavailable    = &Error{"503", "Temporarily unavailable"}
)

// ClientEvents are what the host decides about the events that clients send to each other
// (PROTOCOL.md, section 3).
type ClientEvents struct {
	// Name validates the name of an event. The error wraps names.ErrNotChecked if the
	// validation itself failed.
	Name func(event string) error
	// Decide returns the data for the other members, nil if they receive nothing, or the error
	// for the client.
	Decide func(c *hub.Conn, channel, event string, data []byte) (shown []byte, refused *Error)
	// Ignored is called for an event that clients cannot send in the channel.
	Ignored func(c *hub.Conn, channel, event string)
	// Failed is called with the error of the broker.
	Failed func(channel string, err error)
	// Bytes limits the data of an event, as the client sends it. If it is not positive, there
	// is no limit.
	Bytes int
}

// clientEvent handles a message with an event and without a command. In channels for which the
// host does not allow such events, the message has no effect and no answer, as in all versions
// of the protocol.
func (p *Protocol) clientEvent(r *Request, m *Message) *Error {
	channel, event, on := p.addressed(r.Conn, m)
	if !on {
		return nil
	}
	data, refused := p.checkClientEvent(r, m, channel, event)
	if refused != nil {
		return refused
	}
	shown, refused := p.ClientEvents.Decide(r.Conn, channel, event, data)
	if refused != nil {
		return refused
	}
	if shown != nil {
		err := r.Conn.PublishEvent(r.Conn.Context(), channel, event, shown)
		if refused := p.clientEventError(r.Conn, channel, err); refused != nil {
			return refused
		}
	}
	done(r)
	return nil
}

// addressed returns the channel and the name of an event, which is "" if it is not a string. on
// is false if clients cannot send events in the channel.
func (p *Protocol) addressed(c *hub.Conn, m *Message) (channel, event string, on bool) {
	name, _ := jsvalue.Text(m.Channel)
	channel, err := names.Channel(name)
	if err != nil {
		return "", "", false
	}
	event, _ = jsvalue.Text(m.Event)
	policy, err := c.Hub().PolicyOf(channel)
	on = err == nil && policy.ClientEvents
	if err == nil && !on && strings.HasPrefix(event, ClientEventPrefix) {
		p.ClientEvents.Ignored(c, channel, event)
	}
	return channel, event, on
}

// checkClientEvent returns the data of an event that the client may send.
func (p *Protocol) checkClientEvent(r *Request, m *Message, channel, event string) ([]byte, *Error) {
	if jsvalue.Kind(m.Event) != '"' {
		return nil, malformed(invalid("event", "must be a string, not %s", jsvalue.KindName(jsvalue.Kind(m.Event))))
	}
	if !strings.HasPrefix(event, ClientEventPrefix) {
		return nil, malformed(invalid("event", "must begin with %s", ClientEventPrefix))
	}
	err := p.ClientEvents.Name(event)
	switch {
	case errors.Is(err, names.ErrNotChecked):
		return nil, ErrInternal
	case err != nil:
		return nil, malformed(invalid("event", "%v", err))
	case p.ClientEvents.Bytes > 0 && len(m.Data) > p.ClientEvents.Bytes:
		return nil, ErrEventTooLarge
	}
	data := []byte("null")
	if m.Data != nil {
		compact, err := jsvalue.Compacted(m.Data, jsvalue.TriggerLimits)
		if err != nil {
			return nil, malformed(invalid("data", "is not valid: %v", err))
		}
		data = bytes.Clone(compact) // the host may keep it
	}
	err = r.Conn.AllowEvent(channel)
	if errors.Is(err, hub.ErrNotAllowed) {
		return nil, ErrNoClientEvents
	}
	return data, p.memberError(r.Conn, channel, err)
}

// clientEventError returns the error for the client of an event that could not be published.
func (p *Protocol) clientEventError(c *hub.Conn, channel string, err error) *Error {
	switch {
	case errors.Is(err, broker.ErrTooLarge):
		return ErrEventTooLarge
	case err == nil, errors.Is(err, hub.ErrNotMember), errors.Is(err, hub.ErrClosed):
		return p.memberError(c, channel, err)
	case c.Context().Err() != nil:
		return nil
	}
	p.ClientEvents.Failed(channel, err)
	return ErrUnavailable
}
