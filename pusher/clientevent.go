package pusher

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

// codeClientEvent is the code of the error for an event that a client may not send.
const codeClientEvent = 4301

// clientEvent handles an event that a client sends to the other members of a channel. Of the message
// only the event, the channel and the data are relayed.
func (p *protocol) clientEvent(c *hub.Conn, m *message) {
	if refused := p.publishFor(c, m); refused != "" {
		p.fail(c, codeClientEvent, refused, m.channel)
	}
}

// publishFor publishes an event of a client. It returns why it does not, or "".
func (p *protocol) publishFor(c *hub.Conn, m *message) (refused string) {
	if !strings.HasPrefix(m.event, clientEvent) {
		return "the names of events that clients send begin with " + clientEvent
	}
	if err := p.checkEvent(m.event); err != nil {
		if errors.Is(err, names.ErrNotChecked) {
			return "internal error"
		}
		return "the name of the event " + err.Error()
	}
	if m.channel == "" || p.checkChannel(m.channel) != nil {
		return "the event has no valid channel"
	}
	if isEncrypted(m.channel) {
		return "clients cannot send events to encrypted channels"
	}
	if most := p.parts.ClientEventBytes; most > 0 && len(m.data) > most {
		return "the data of the event is too large"
	}
	data := []byte("null")
	if m.data != nil {
		compact, err := jsvalue.Compacted(m.data, jsvalue.TriggerLimits)
		if err != nil {
			return "the data of the event is not valid"
		}
		data = bytes.Clone(compact) // the host may keep it
	}
	switch err := c.AllowEvent(m.channel); {
	case errors.Is(err, hub.ErrNotMember):
		return "the connection is not subscribed to the channel"
	case errors.Is(err, hub.ErrTooOften):
		return "too many client events"
	case err != nil:
		return "client events are not allowed in this channel"
	}
	shown, refused := p.parts.ClientEvent(c, m.channel, m.event, data)
	if refused != "" || shown == nil {
		return refused
	}
	err := c.PublishEvent(c.Context(), m.channel, m.event, shown)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, hub.ErrClosed):
		return ""
	case errors.Is(err, hub.ErrNotMember):
		return "the connection is not subscribed to the channel"
	case errors.Is(err, broker.ErrTooLarge):
		return "the data of the event is too large"
	}
	p.parts.Notices.Warn("pusher: cannot publish the event of a client", "",
		slog.String("channel", m.channel), slog.String("error", err.Error()))
	return "the event could not be published"
}
