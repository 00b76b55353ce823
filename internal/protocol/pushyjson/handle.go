package pushyjson

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/names"
)

// Error is the content of pushy:error.
type Error struct {
	Code    string
	Message string
}

// The errors of PROTOCOL.md, section 3. The spelling "recieved" is part of the protocol.
var (
	ErrBogus           = &Error{"100", "Bogus message recieved"}
	ErrUnknownCommand  = &Error{"200", "Unknown command"}
	ErrNoChannel       = &Error{"300", "No channel specified"}
	ErrInvalidChannel  = &Error{"301", "Invalid channel name"}
	ErrTooManyChannels = &Error{"302", "Too many channels"}
	ErrTooManyRequests = &Error{"429", "Too many requests"}
	ErrChannelNotFound = &Error{"404", "Channel not found"}
	ErrNotSubscribed   = &Error{"403", "Not subscribed to this channel"}
	ErrInternal        = &Error{"500", "Internal error"}
	ErrTimedOut        = &Error{"504", "Command timed out"}
)

// codeMalformed is the code of an error whose message names the place.
const codeMalformed = "400"

// Request is one command of a client.
type Request struct {
	Conn *hub.Conn
	Name string // as the client sent it
	Data []byte // valid while the command runs; nil if absent
	ID   []byte // JSON, or nil; the command may keep it
	Last bool   // see hub.Conn.Last

	id [23]byte // of an ID that fits
}

// Handle implements hub.Protocol. It answers every message, except events, see clientEvent.
func (p *Protocol) Handle(c *hub.Conn, message []byte, now time.Time) {
	m := Parse(message)
	r := &Request{
		Conn: c,
		Name: m.Name,
		Data: m.Data,
		Last: c.Last(),
	}
	if m.ID != nil {
		r.ID = append(r.id[:0], m.ID...) // it is used after the next message has overwritten this one
	}
	if report := c.Watcher(); report != nil {
		report(watched(&m))
	}
	refused := ErrInternal // if the command panics or ends its goroutine
	defer func() {
		if refused != nil {
			_ = Fail(c, refused, r.ID) // it fails only if the connection has ended
		}
	}()
	verdict := c.Allow(now)
	switch {
	case verdict == limit.Abuse:
		refused = nil
	case verdict == limit.Over:
		refused = ErrTooManyRequests
	case m.Kind == Bogus:
		refused = ErrBogus
	case m.Kind == Emitted:
		refused = p.clientEvent(r, &m)
	default:
		defer func() { p.Measured(r.Name, now) }()
		refused = p.run(r)
	}
}

func (p *Protocol) run(r *Request) *Error {
	if refused, known := p.Command(r); known {
		return refused
	}
	var buf [64]byte
	command := commands[string(names.AppendLowerASCII(buf[:0], r.Name))]
	if command == nil {
		return ErrUnknownCommand
	}
	return command(p, r)
}

// commands are the protocol's own commands, by lower-case name.
var commands = map[string]func(p *Protocol, r *Request) *Error{
	"subscribe":     (*Protocol).Subscribe,
	"unsubscribe":   (*Protocol).Unsubscribe,
	"pushy:history": (*Protocol).History,
	"pushy:members": (*Protocol).Members,
	"pushy:update":  (*Protocol).Update,
	"pushy:idle":    (*Protocol).Idle,
	"pushy:refresh": (*Protocol).Refresh,
}

// Commands returns the names of the protocol's own commands, sorted.
func Commands() []string { return slices.Sorted(maps.Keys(commands)) }

// Fail answers a command with pushy:error.
func Fail(c *hub.Conn, e *Error, id []byte) error {
	return c.Send(&hub.Event{
		Kind:    hub.Failed,
		Code:    e.Code,
		Reason:  e.Message,
		Request: id,
	})
}

// Subscribe is the built-in command SUBSCRIBE: {"channel":…} and, for private
// channels, "auth" and "data" (PROTOCOL.md, sections 3, 4 and 6).
func (p *Protocol) Subscribe(r *Request) *Error {
	want, malformed := ParseSubscription(r.Data)
	channel, refused := p.subscription(want)
	if refused != nil {
		return refused
	}
	if malformed != nil {
		return &Error{
			Code:    codeMalformed,
			Message: malformed.Error(),
		}
	}
	err := r.Conn.Join(hub.JoinRequest{
		Channel:  channel,
		Auth:     want.Auth,
		Data:     want.Data,
		Request:  r.ID,
		Past:     want.Past,
		Hold:     want.Hold,
		Return:   want.Return,
		Presence: want.Presence,
	})
	switch {
	case err == nil, errors.Is(err, hub.ErrClosed):
		return nil
	case errors.Is(err, hub.ErrTooManyChannels):
		return ErrTooManyChannels
	case errors.Is(err, hub.ErrTooManyJoins):
		return ErrTooManyRequests
	}
	answer := hub.Event{
		Kind:    hub.Direct,
		Name:    eventFailed,
		Request: r.ID,
	}
	if errors.Is(err, hub.ErrNeedAuth) {
		answer.Name = eventNeedAuth
	}
	data := jsvalue.Object(nil).Text("channel", channel)
	reason, code := Reason(err)
	if reason != "" {
		data = data.Text("reason", reason)
	}
	if code != "" {
		data = data.Text("code", code)
	}
	answer.Data = data
	_ = r.Conn.Send(&answer)
	return nil
}

// The reasons of pushy:subscription-failed (PROTOCOL.md, section 3). A host can send others.
const (
	ReasonDenied       = "Invalid credentials"
	reasonMember       = "Already subscribed to this channel"
	reasonInvalidData  = "Invalid presence data"
	reasonDataTooLarge = "Presence data too large"
	reasonFull         = "Channel is full"
	reasonUnavailable  = "Temporarily unavailable"
)

// Reason returns the reason and the code of pushy:subscription-failed, or of
// pushy:subscription-needauth, for an error of hub.Conn.Join. Each can be "".
func Reason(err error) (reason, code string) {
	var refused *hub.RefusedError
	switch {
	case errors.As(err, &refused):
		return refused.Reason, refused.Code
	case errors.Is(err, hub.ErrDenied):
		return ReasonDenied, ""
	case errors.Is(err, hub.ErrAlreadyMember):
		return reasonMember, ""
	case errors.Is(err, hub.ErrChannelFull):
		return reasonFull, ""
	case errors.Is(err, hub.ErrDataTooLarge):
		return reasonDataTooLarge, ""
	}
	return reasonUnavailable, ""
}

// Unsubscribe is the built-in command UNSUBSCRIBE: {"channel":…}.
func (p *Protocol) Unsubscribe(r *Request) *Error {
	want, _ := ParseSubscription(r.Data)
	channel, refused := p.subscription(want)
	switch {
	case refused != nil:
		return refused
	case r.Conn.Leave(channel, "", r.ID) == nil:
		return nil
	case r.Conn.Hub().Lookup(channel) == nil:
		return ErrChannelNotFound
	}
	return ErrNotSubscribed
}

// subscription returns the channel of a built-in command, in the form in which names are
// compared.
func (p *Protocol) subscription(want Subscription) (channel string, refused *Error) {
	if want.Channel == "" {
		return "", ErrNoChannel
	}
	channel, err := p.Channel(want.Channel)
	switch {
	case errors.Is(err, names.ErrNotChecked):
		return "", ErrInternal
	case err != nil:
		return "", ErrInvalidChannel
	}
	return channel, nil
}
