package pusher

import (
	"strconv"
	"strings"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/pusherform"
	"github.com/gopushy/pushy/internal/session"
)

// The protocol's own events.
const (
	eventConnected    = "pusher:connection_established"
	eventError        = "pusher:error"
	eventPong         = "pusher:pong"
	eventSignedIn     = "pusher:signin_success"
	eventCacheMiss    = "pusher:cache_miss"
	eventRefused      = "pusher:subscription_error"
	eventSubscribed   = "pusher_internal:subscription_succeeded"
	eventMemberJoined = "pusher_internal:member_added"
	eventMemberLeft   = "pusher_internal:member_removed"
)

// protocol implements hub.Foreign.
type protocol struct{ *Adapter }

var _ hub.Foreign = (*protocol)(nil)

// Form implements hub.Foreign.
func (*protocol) Form() fanout.Form { return form }

// Encode implements hub.Foreign.
func (p *protocol) Encode(e *hub.Event) []byte {
	var message []byte
	switch e.Kind {
	case hub.Published:
		message = published(e)
	case hub.Joined:
		message = channelMessage(eventMemberJoined, e.Channel, memberOf(e.Joiner).data())
	case hub.Left:
		left := jsvalue.Object(nil).Text("user_id", memberOf(e.Joiner).id)
		message = channelMessage(eventMemberLeft, e.Channel, left)
	case hub.Subscribed:
		return p.subscribed(e)
	case hub.Ended:
		if e.Request == nil { // otherwise the client has asked for it, and expects no answer
			message = refusal(e.Channel, e.Reason, typeAuth, statusForbidden)
		}
	case hub.Direct:
		message = direct(e)
	case hub.Replied:
		message = jsvalue.Object(nil).Text("event", e.Name).Raw("data", jsvalue.AppendQuote(nil, e.Data))
		if e.Channel != "" {
			message = channelMessage(e.Name, e.Channel, e.Data)
		}
	case hub.Failed:
		if e.Name == eventRefused {
			status, _ := strconv.Atoi(e.Code)
			message = refusal(e.Channel, e.Reason, string(e.Data), status)
			break
		}
		code, _ := strconv.Atoi(e.Code)
		message = errorMessage(code, e.Reason, e.Channel)
	case hub.Connected:
		idle := strconv.AppendInt(nil, int64(p.idle), 10)
		data := jsvalue.Object(nil).Text("socket_id", e.Conn.ID()).Raw("activity_timeout", idle)
		message = jsvalue.Object(nil).Text("event", eventConnected).Raw("data", jsvalue.AppendQuote(nil, []byte(data)))
	}
	if message == nil {
		return nil // the protocol has no such event
	}
	return fanout.TextFrame(message)
}

// published returns the message of an event of a channel.
func published(e *hub.Event) []byte {
	if strings.HasPrefix(e.Name, "pusher") {
		return nil // clients would take it for one of the protocol
	}
	if e.From == "" || !strings.HasPrefix(e.Name, clientEvent) {
		return channelMessage(e.Name, e.Channel, pusherform.Content(e.Data))
	}
	// What a client sends is relayed as it is.
	message := jsvalue.Object(nil).Text("event", e.Name).Text("channel", e.Channel).Raw("data", e.Data)
	if !pusherform.IsPresence(e.Channel) {
		return message
	}
	sender := e.From
	if e.Sender != nil {
		sender = memberOf(e.Sender).id
	}
	return message.Text("user_id", sender)
}

// direct returns the message of an event for one connection. It has the channel of its user if the
// client has subscribed to that.
func direct(e *hub.Event) []byte {
	if strings.HasPrefix(e.Name, "pusher") {
		return nil
	}
	if user := stateOf(e.Conn).toUser; user != "" {
		return channelMessage(e.Name, toUser+user, pusherform.Content(e.Data))
	}
	return jsvalue.Object(nil).Text("event", e.Name).Raw("data", jsvalue.AppendQuote(nil, pusherform.Content(e.Data)))
}

// subscribed returns the answer to a subscription and, in a cache channel without an event, the
// message that says so. They are one frame of the outbox, so that no event is between them.
func (p *protocol) subscribed(e *hub.Event) []byte {
	data := []byte("{}")
	if e.Presence {
		data = presenceData(e.Members)
	}
	wire := fanout.TextFrame(channelMessage(eventSubscribed, e.Channel, data))
	if isCache(e.Channel) && e.Past != nil && e.Past.Asked && e.Past.Replay == 0 {
		wire = append(wire, fanout.TextFrame(channelMessage(eventCacheMiss, e.Channel, []byte("{}")))...)
	}
	return wire
}

// channelMessage returns an event of a channel. data is the content of the string that it carries.
func channelMessage(event, channel string, data []byte) []byte {
	return jsvalue.Object(nil).Text("event", event).Text("channel", channel).Raw("data", jsvalue.AppendQuote(nil, data))
}

// errorMessage returns pusher:error, whose data is an object and not a string. A code of 0 is shown
// as null.
func errorMessage(code int, message, channel string) []byte {
	shown := []byte("null")
	if code != 0 {
		shown = strconv.AppendInt(nil, int64(code), 10)
	}
	data := jsvalue.Object(nil).Raw("code", shown).Text("message", message)
	if channel != "" {
		data = data.Text("channel", channel)
	}
	return jsvalue.Object(nil).Text("event", eventError).Raw("data", data)
}

func errorFrame(code int, message string) []byte {
	return fanout.TextFrame(errorMessage(code, message, ""))
}

// refusal returns pusher:subscription_error.
func refusal(channel, reason, kind string, status int) []byte {
	code := strconv.AppendInt(nil, int64(status), 10)
	data := jsvalue.Object(nil).Text("type", kind).Text("error", reason).Raw("status", code)
	return channelMessage(eventRefused, channel, data)
}

// CloseCode implements hub.Foreign.
func (*protocol) CloseCode(code int) int {
	switch {
	case code == hub.CloseShutdown:
		return codeDrain
	case code >= 3500 && code <= 3999: // pushy's clients do not return after these
		return codeRefused
	case code == hub.CloseAbuse, code == 1011, code == 1013, code == 1014, code == session.CloseRestart,
		code >= 3000 && code <= 3499, code >= 4000:
		return codeUnavailable
	}
	return code
}

// Farewell implements hub.Foreign.
func (*protocol) Farewell(c *hub.Conn, code int, reason string) []byte {
	if c.Version() >= withoutErrors {
		return nil
	}
	return errorFrame(code, reason)
}

// Grace implements hub.Foreign. Clients that disconnect on purpose send no code.
func (*protocol) Grace(code int) bool {
	switch {
	case code == 1000, code == 1005, code == hub.CloseAbuse, code >= 3500 && code <= 3999:
		return false
	}
	return true
}
