package pusher

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/limit"
)

// message is a message of a client.
type message struct {
	event   string
	channel string // "" if it is absent
	data    []byte // JSON, or nil; valid while the message is handled
}

// parse parses a message of a client. problem says what is wrong with it, or is "".
func parse(text []byte) (m message, problem string) {
	if !utf8.Valid(text) {
		return m, "the message is not UTF-8"
	}
	named, invalid := false, ""
	err := jsvalue.Fields(text, func(field, value []byte) {
		is := true
		switch string(field) {
		case "event":
			m.event, is = jsvalue.Text(value)
			named = is
		case "channel":
			m.channel = ""
			if string(value) != "null" {
				m.channel, is = jsvalue.Text(value)
			}
		case "data":
			m.data = value
		}
		if !is {
			invalid = string(field)
		}
	})
	switch {
	case err != nil:
		return m, "the message is not a JSON object"
	case invalid != "":
		return m, invalid + " must be a string"
	case !named || m.event == "":
		return m, "the message has no event"
	}
	return m, ""
}

// Handle implements hub.Foreign.
func (p *protocol) Handle(c *hub.Conn, text []byte, now time.Time) {
	m, problem := parse(text)
	if report := c.Watcher(); report != nil {
		report(watched(&m, problem))
	}
	switch c.Allow(now) {
	case limit.Abuse:
		return
	case limit.Over:
		p.fail(c, 0, "too many messages", "")
		return
	}
	switch {
	case problem != "":
		p.fail(c, 0, problem, "")
	case m.event == "pusher:ping":
		reply(c, eventPong, "", []byte("{}"))
	case m.event == "pusher:pong":
	case m.event == "pusher:subscribe":
		p.subscribe(c, &m)
	case m.event == "pusher:unsubscribe":
		p.unsubscribe(c, &m)
	case m.event == "pusher:signin":
		p.signIn(c, &m)
	case strings.HasPrefix(m.event, "pusher"):
		p.fail(c, 0, "there is no event "+m.event, "")
	default:
		p.clientEvent(c, &m)
	}
}

// watched describes a message for those who watch its connection. The data of the protocol's own
// events can have signatures, so it is left out.
func watched(m *message, problem string) hub.Decision {
	d := hub.Decision{
		Kind:    hub.DecidedReceived,
		Name:    m.event,
		Channel: m.channel,
		Reason:  problem,
	}
	if strings.HasPrefix(m.event, clientEvent) {
		d.Data = m.data
	}
	return d
}

// reply sends one of the protocol's own events. data is the content of the string that it carries.
// It fails only if the connection has ended, as the other funcs that send.
func reply(c *hub.Conn, event, channel string, data []byte) {
	_ = c.Send(&hub.Event{
		Kind:    hub.Replied,
		Name:    event,
		Channel: channel,
		Data:    data,
	})
}

// fail sends pusher:error. A code of 0 is none.
func (p *protocol) fail(c *hub.Conn, code int, message, channel string) {
	_ = c.Send(&hub.Event{
		Kind:    hub.Failed,
		Channel: channel,
		Code:    strconv.Itoa(code),
		Reason:  message,
	})
}

// Types of pusher:subscription_error.
const (
	typeAuth  = "AuthError"
	typeLimit = "LimitReached"
)

// refuse sends pusher:subscription_error, after which clients do not try again.
func refuse(c *hub.Conn, channel, kind string, status int, reason string) {
	_ = c.Send(&hub.Event{
		Kind:    hub.Failed,
		Name:    eventRefused,
		Channel: channel,
		Code:    strconv.Itoa(status),
		Reason:  reason,
		Data:    []byte(kind),
	})
}
