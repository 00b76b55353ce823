package pushyjson

import (
	"errors"
	"strconv"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// Limits of the commands that concern members (PROTOCOL.md, section 4).
const (
	// MaxState is the size of a state, as it is sent.
	MaxState = 1 << 10
	// maxUsers is the number of users in one pushy:members.
	maxUsers = 100
	// maxUser is the length of a user's id.
	maxUser = 128
)

// The errors of the commands that concern members.
var (
	ErrNoPresence      = &Error{"404", "The channel has no presence"}
	ErrStateNotAllowed = &Error{"403", "Clients cannot set a state in this channel"}
	ErrStateTooLarge   = &Error{"413", "State too large"}
)

var (
	memberQueries = mustDecode[memberQuery]()
	stateChanges  = mustDecode[stateChange]()
	idleChanges   = mustDecode[idleChange]()
)

// memberQuery is the data of pushy:members.
type memberQuery struct {
	Channel string   `json:"channel"`
	After   *string  `json:"after"`
	Limit   *int     `json:"limit"`
	Users   []string `json:"users"`
}

func (q *memberQuery) request() (r hub.MembersRequest, err error) {
	if q.After != nil {
		if r.After, err = broker.ParsePosition(*q.After); err != nil || *q.After == "" {
			return r, invalid("after", "must be the value of next of the previous page")
		}
	}
	if q.Limit != nil {
		if *q.Limit < 1 || *q.Limit > maxMembers {
			return r, invalid("limit", "must be from 1 to %d", maxMembers)
		}
		r.Limit = *q.Limit
	}
	switch {
	case q.Users == nil:
		return r, nil
	case q.After != nil:
		return r, invalid("users", "must not be combined with after")
	case q.Limit != nil:
		return r, invalid("users", "must not be combined with limit")
	case len(q.Users) == 0 || len(q.Users) > maxUsers:
		return r, invalid("users", "must have 1 to %d ids", maxUsers)
	}
	for i, id := range q.Users {
		if id == "" || len(id) > maxUser {
			return r, invalid("users["+strconv.Itoa(i)+"]", "must have 1 to %d bytes", maxUser)
		}
	}
	r.Users = q.Users
	return r, nil
}

// Members is the built-in command pushy:members, which returns members of a channel that the
// client is subscribed to.
func (p *Protocol) Members(r *Request) *Error {
	if r.ID == nil {
		return &Error{
			Code:    codeMalformed,
			Message: "id is missing: the answer could not be recognized",
		}
	}
	q, err := memberQueries.Decode(r.Data)
	if err != nil {
		return malformed(err)
	}
	want, err := q.request()
	if err != nil {
		return malformed(err)
	}
	channel, refused := p.subscription(Subscription{Channel: q.Channel})
	if refused != nil {
		return refused
	}
	want.Channel = channel
	want.Request = r.ID
	return p.memberError(r.Conn, channel, r.Conn.ListMembers(want))
}

// stateChange is the data of pushy:update.
type stateChange struct {
	Channel string `json:"channel"`
	State   any    `json:"state"`
}

// Update is the built-in command pushy:update, with which a client sets the state of its
// member.
func (p *Protocol) Update(r *Request) *Error {
	q, err := stateChanges.Decode(r.Data)
	if err != nil {
		return malformed(err)
	}
	var raw []byte
	_ = jsvalue.Fields(r.Data, func(name, value []byte) { // it is valid
		if string(name) == "state" {
			raw = value
		}
	})
	if raw == nil {
		return malformed(invalid("state", "is missing"))
	}
	state, err := State(raw, MaxState)
	if err != nil {
		return malformed(err)
	}
	channel, refused := p.subscription(Subscription{Channel: q.Channel})
	if refused != nil {
		return refused
	}
	if refused := p.memberError(r.Conn, channel, r.Conn.SetOwnState(channel, state)); refused != nil {
		return refused
	}
	done(r)
	return nil
}

// State returns the state of a member in canonical form, or nil for null, which is no state.
// The error names the place. If limit is not positive, there is no limit.
func State(raw []byte, limit int) ([]byte, error) {
	if limit > 0 && len(raw) > limit {
		return nil, invalid("state", "must have at most %d bytes", limit)
	}
	if string(raw) == "null" {
		return nil, nil
	}
	state, err := jsvalue.Canonical(nil, raw, jsvalue.TriggerLimits)
	switch {
	case err != nil:
		return nil, invalid("state", "is not valid: %v", err)
	case string(state) == "[]":
		return []byte("{}"), nil
	case state[0] != '{':
		return nil, invalid("state", "must be an object or null, not %s", jsvalue.KindName(jsvalue.Kind(state)))
	}
	return state, nil
}

// idleChange is the data of pushy:idle.
type idleChange struct {
	Idle *bool `json:"idle"`
}

// Idle is the built-in command pushy:idle, with which a client says whether its user is idle.
func (p *Protocol) Idle(r *Request) *Error {
	q, err := idleChanges.Decode(r.Data)
	if err != nil {
		return malformed(err)
	}
	if q.Idle == nil {
		return malformed(invalid("idle", "is missing"))
	}
	if errors.Is(r.Conn.SetIdle(*q.Idle), hub.ErrTooOften) {
		return ErrTooManyRequests
	}
	done(r)
	return nil
}

// done answers a command that has succeeded, if it has an id.
func done(r *Request) {
	if r.ID == nil {
		return
	}
	_ = r.Conn.Send(&hub.Event{ // it fails only if the connection has ended
		Kind:    hub.Replied,
		Data:    []byte("{}"),
		Request: r.ID,
	})
}

func malformed(err error) *Error {
	return &Error{
		Code:    codeMalformed,
		Message: err.Error(),
	}
}

// memberError returns the error of a command for an error of the hub. While a server shuts down it
// publishes nothing any more, but some connections are still open.
func (p *Protocol) memberError(c *hub.Conn, channel string, err error) *Error {
	switch {
	case errors.Is(err, hub.ErrClosed) && c.Context().Err() == nil:
		return ErrUnavailable
	case err == nil, errors.Is(err, hub.ErrClosed):
		return nil
	case errors.Is(err, hub.ErrNoPresence):
		return ErrNoPresence
	case errors.Is(err, hub.ErrNotAllowed):
		return ErrStateNotAllowed
	case errors.Is(err, hub.ErrTooOften):
		return ErrTooManyRequests
	case errors.Is(err, hub.ErrDataTooLarge):
		return ErrStateTooLarge
	case errors.Is(err, hub.ErrNotMember) && c.Hub().Lookup(channel) == nil:
		return ErrChannelNotFound
	case errors.Is(err, hub.ErrNotMember):
		return ErrNotSubscribed
	}
	return ErrInternal
}

// appendView appends what pushy:subscription-success says about the members, beside the list.
func appendView(data jsvalue.Object, e *hub.Event) jsvalue.Object {
	v := e.View
	if v == nil {
		return data
	}
	if !e.Presence {
		members := jsvalue.Object(nil).Text("mode", modeName(v.Mode)).
			Raw("count", strconv.AppendInt(nil, int64(v.Count), 10)).
			Text("revision", v.Revision.String())
		switch {
		case v.Since != nil:
			members = appendChanges(members.Text("since", v.Since.String()), v.Changes)
		case v.Mode == hub.PresenceDiff:
			members = appendMembers(members, v)
		}
		data = data.Raw("members", members)
	}
	if v.Self != "" {
		data = data.Text("self", v.Self)
	}
	return data
}

func modeName(m hub.PresenceMode) string {
	switch m {
	case hub.PresenceDiff:
		return "diff"
	case hub.PresenceCount:
		return "count"
	case hub.PresenceNone:
		return "none"
	}
	return "list"
}

// view returns what all messages about members in pages and batches begin with.
func view(v *hub.View) jsvalue.Object {
	return jsvalue.Object(nil).Text("revision", v.Revision.String()).
		Raw("count", strconv.AppendInt(nil, int64(v.Count), 10))
}

// appendListed appends the answer to pushy:members.
func appendListed(dst []byte, e *hub.Event) []byte {
	v := e.View
	data := view(v)
	if v.Users == nil {
		data = appendMembers(data, v)
	} else {
		users := jsvalue.Object("{}")
		if len(v.Users) > 0 {
			users = nil
		}
		for _, u := range v.Users {
			users = users.Raw(u.User, list(u.Members))
		}
		data = data.Raw("users", users)
	}
	return appendReply(dst, eventReply, jsvalue.Object(nil).Raw("id", e.Request).Raw("data", data), nil)
}

func appendMembers(data jsvalue.Object, v *hub.View) jsvalue.Object {
	data = data.Raw("list", list(v.List))
	if v.Next == (broker.Position{}) {
		return data.Raw("next", []byte("null"))
	}
	return data.Text("next", v.Next.String())
}

// appendChanges appends changes; lists that are empty are left out.
func appendChanges(data jsvalue.Object, c *hub.Changes) jsvalue.Object {
	if c == nil {
		return data
	}
	if len(c.Add) > 0 {
		data = data.Raw("add", list(c.Add))
	}
	if len(c.Quit) > 0 {
		quit := []byte{'['}
		for i, id := range c.Quit {
			if i > 0 {
				quit = append(quit, ',')
			}
			quit = jsvalue.AppendQuote(quit, id)
		}
		data = data.Raw("quit", append(quit, ']'))
	}
	if len(c.Update) > 0 {
		update := []byte{'['}
		for i := range c.Update {
			if i > 0 {
				update = append(update, ',')
			}
			update = append(update, updated(&c.Update[i])...)
		}
		data = data.Raw("update", append(update, ']'))
	}
	return data
}

// updated returns a member that has changed: its id and the fields that have changed, or the
// whole member if these are not enough.
func updated(u *hub.Update) []byte {
	m := u.Member
	if u.Whole {
		return m.Text
	}
	data := jsvalue.Object(nil).Text("memberId", m.ID)
	if u.Idle {
		data = data.Raw("idle", strconv.AppendBool(nil, m.Idle))
	}
	if u.Tabs {
		data = data.Raw("tabs", strconv.AppendInt(nil, int64(m.Tabs), 10))
	}
	switch {
	case u.State && m.State == nil:
		data = data.Raw("state", []byte("null"))
	case u.State:
		data = data.Raw("state", m.State)
	}
	return data
}

// AppendState implements hub.Protocol.
func (p *Protocol) AppendState(dst []byte, s hub.MemberState) []byte {
	var o jsvalue.Object
	if s.Idle {
		o = o.Raw("idle", []byte("true"))
	}
	if s.State != nil {
		o = o.Raw("state", s.State)
	}
	if s.StateAt > 0 {
		o = o.Raw("at", strconv.AppendInt(nil, s.StateAt, 10))
	}
	return append(dst, o...)
}

// ParseState implements hub.Protocol. Fields of newer nodes are ignored.
func (p *Protocol) ParseState(data []byte) (s hub.MemberState) {
	err := jsvalue.Fields(data, func(name, value []byte) {
		switch string(name) {
		case "idle":
			s.Idle = string(value) == "true"
		case "state":
			if jsvalue.Kind(value) == '{' {
				s.State = value
			}
		case "at":
			s.StateAt, _ = strconv.ParseInt(string(value), 10, 64)
		}
	})
	if err != nil {
		return hub.MemberState{}
	}
	return s
}

// User returns the field "user" of presence data that MemberData has returned, if it is a
// string or a number, and "" otherwise.
func User(data []byte) string {
	user := ""
	_ = jsvalue.Fields(data, func(name, value []byte) {
		if string(name) != "user" {
			return
		}
		text, ok := jsvalue.Text(value)
		switch {
		case ok:
			user = "s" + text
		case jsvalue.Kind(value) == '0':
			user = "n" + string(value)
		default:
			user = ""
		}
	})
	return user
}
