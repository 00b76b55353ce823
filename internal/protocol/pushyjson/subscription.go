package pushyjson

import (
	"errors"
	"fmt"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/strictjson"
)

// Limits of a subscription (PROTOCOL.md, section 3).
const (
	// MaxPast is the largest number of events that rewind and pushy:history return.
	MaxPast = 500
	// maxWas is the number of connection ids in was.
	maxWas = 8
	// maxOffset is the largest offset that a JavaScript number represents exactly.
	maxOffset = 1<<53 - 1
	// maxText is the length of ids and keys that clients send.
	maxText = 64
	// maxAge is the largest number of seconds of a rewind: a year.
	maxAge = 366 * 24 * 60 * 60
	// maxMembers is the largest number of members in one answer.
	maxMembers = 500
)

// Subscription is the data of SUBSCRIBE and UNSUBSCRIBE.
type Subscription struct {
	Channel string // "" if absent or not a string
	Auth    string // "" if absent or not a string
	Data    []byte // presence data as sent; nil if absent or null

	Past     hub.Past
	Hold     bool
	Return   hub.Returning
	Presence hub.Presence
}

// ParseSubscription parses the data of a built-in command. If data is not an object, the
// result is empty. Clients of the original protocol send only channel, auth and data, and
// values of these that have another type are ignored, as the original did. The keys that
// were added later are strict: the error names the place.
func ParseSubscription(data []byte) (s Subscription, err error) {
	malformed := jsvalue.Fields(data, func(field, value []byte) {
		var invalid error
		switch string(field) {
		case "channel":
			s.Channel, _ = jsvalue.Text(value)
		case "auth":
			s.Auth, _ = jsvalue.Text(value)
		case "data":
			s.Data = value
			if string(value) == "null" {
				s.Data = nil
			}
		case "since":
			s.Past.Since, invalid = parsePosition(value)
		case "was":
			s.Past.Was, invalid = parseWas(value)
		case "partial":
			s.Past.Partial, invalid = decodeBoolean(value)
		case "rewind":
			s.Past.Rewind, invalid = parseRewind(value)
		case "hold":
			s.Hold, invalid = decodeBoolean(value)
		case "member":
			s.Return, invalid = parseReturning(value)
		case "presence":
			s.Presence, invalid = parsePresence(value)
		}
		if invalid != nil && err == nil {
			err = at(string(field), invalid)
		}
	})
	if malformed != nil {
		return Subscription{}, nil
	}
	return s, err
}

// at returns an error that names the place of a value in the data of a command.
func at(field string, err error) error {
	var fault *strictjson.Fault
	if !errors.As(err, &fault) {
		return fmt.Errorf("%s: %w", field, err)
	}
	if fault.Path == "" {
		return fmt.Errorf("%s: %s", field, fault.Reason)
	}
	if fault.Path[0] != '[' {
		field += "."
	}
	return fmt.Errorf("%s%s: %s", field, fault.Path, fault.Reason)
}

func invalid(path, reason string, args ...any) error {
	return &strictjson.Fault{
		Path:   path,
		Reason: fmt.Sprintf(reason, args...),
	}
}

// mustDecode returns a Decoder of T, a type of this package.
func mustDecode[T any]() *strictjson.Decoder[T] {
	d, err := strictjson.New[T]()
	if err != nil {
		panic(err)
	}
	return d
}

var (
	booleans  = mustDecode[bool]()
	numbers   = mustDecode[int]()
	texts     = mustDecode[[]string]()
	positions = mustDecode[position]()
	rewinds   = mustDecode[struct {
		Events  *int `json:"events"`
		Seconds *int `json:"seconds"`
	}]()
	returnings = mustDecode[returning]()
	presences  = mustDecode[presence]()
)

// parsePosition parses {"epoch":…,"offset":…}.
func parsePosition(value []byte) (*broker.Position, error) {
	p, err := decodePosition(value)
	switch {
	case err != nil:
		return nil, err
	case p.Epoch == nil:
		return nil, invalid("epoch", "is missing")
	case p.Offset == nil:
		return nil, invalid("offset", "is missing")
	case len(*p.Epoch) > maxText:
		return nil, invalid("epoch", "must have at most %d bytes", maxText)
	case *p.Offset < 0 || *p.Offset > maxOffset:
		return nil, invalid("offset", "must be from 0 to 2^53-1")
	}
	return &broker.Position{
		Epoch:  *p.Epoch,
		Offset: uint64(*p.Offset),
	}, nil
}

func parseWas(value []byte) ([]string, error) {
	was, err := decodeTexts(value)
	if err != nil {
		return nil, err
	}
	if len(was) > maxWas {
		return nil, invalid("", "has %d ids, at most %d are allowed", len(was), maxWas)
	}
	for i, id := range was {
		if len(id) > maxText {
			return nil, invalid(fmt.Sprintf("[%d]", i), "must have at most %d bytes", maxText)
		}
	}
	return was, nil
}

// parseRewind parses a number of events, or {"events":…,"seconds":…}.
func parseRewind(value []byte) (hub.Rewind, error) {
	var r hub.Rewind
	if jsvalue.Kind(value) != '{' {
		n, err := numbers.Decode(value)
		if err != nil {
			return r, err
		}
		if n < 0 || n > MaxPast {
			return r, invalid("", "must be from 0 to %d", MaxPast)
		}
		r.Events = n
		return r, nil
	}
	both, err := rewinds.Decode(value)
	if err != nil {
		return r, err
	}
	r.Events = MaxPast
	if both.Events != nil {
		r.Events = *both.Events
	}
	if r.Events < 0 || r.Events > MaxPast {
		return r, invalid("events", "must be from 0 to %d", MaxPast)
	}
	if both.Seconds != nil {
		if *both.Seconds < 1 || *both.Seconds > maxAge {
			return r, invalid("seconds", "must be from 1 to %d", maxAge)
		}
		r.Age = time.Duration(*both.Seconds) * time.Second
	}
	return r, nil
}

func parseReturning(value []byte) (hub.Returning, error) {
	r, err := decodeReturning(value)
	switch {
	case err != nil:
		return hub.Returning{}, err
	case len(r.ID) > maxText:
		return hub.Returning{}, invalid("id", "must have at most %d bytes", maxText)
	case len(r.Key) > maxText:
		return hub.Returning{}, invalid("key", "must have at most %d bytes", maxText)
	}
	return hub.Returning{
		ID:  r.ID,
		Key: r.Key,
	}, nil
}

// parsePresence parses the name of a mode, or {"mode":…,"since":…,"limit":…}.
func parsePresence(value []byte) (hub.Presence, error) {
	var p hub.Presence
	name, ok := jsvalue.Text(value)
	path := ""
	if !ok {
		want, err := decodePresence(value)
		if err != nil {
			return p, err
		}
		name = want.Mode
		path = "mode"
		if want.Since != nil {
			since, err := hub.ParseRevision(*want.Since)
			if err != nil {
				return p, invalid("since", `must be a revision of members`)
			}
			p.Since = &since
		}
		if want.Limit != nil {
			if *want.Limit < 1 || *want.Limit > maxMembers {
				return p, invalid("limit", "must be from 1 to %d", maxMembers)
			}
			p.Limit = *want.Limit
		}
	}
	switch name {
	case "list":
		p.Mode = hub.PresenceList
	case "diff":
		p.Mode = hub.PresenceDiff
	case "count":
		p.Mode = hub.PresenceCount
	case "none":
		p.Mode = hub.PresenceNone
	default:
		return p, invalid(path, `must be "list", "diff", "count" or "none"`)
	}
	return p, nil
}
