package pushyjson

import (
	"cmp"
	"errors"
	"strconv"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// The errors of pushy:refresh, beside those of the host.
var (
	ErrNeedAuth  = &Error{"401", "Authorization needed"}
	ErrDenied    = &Error{"403", "Invalid credentials"}
	ErrOtherUser = &Error{"403", "The token is for another user"}
	ErrDataSize  = &Error{"413", "Presence data too large"}
)

// renewal is the data of pushy:refresh.
type renewal struct {
	Channel string `json:"channel"`
	Auth    string `json:"auth"`
	Data    any    `json:"data"`
}

var renewals = mustDecode[renewal]()

// Refresh is the built-in command pushy:refresh, with which a client renews a subscription whose
// token expires.
func (p *Protocol) Refresh(r *Request) *Error {
	q, err := renewals.Decode(r.Data)
	if err != nil {
		return malformed(err)
	}
	var raw []byte
	_ = jsvalue.Fields(r.Data, func(name, value []byte) { // it is valid
		if string(name) == "data" && string(value) != "null" {
			raw = value
		}
	})
	channel, refused := p.subscription(Subscription{Channel: q.Channel})
	if refused != nil {
		return refused
	}
	expires, err := r.Conn.Refresh(channel, q.Auth, raw)
	switch {
	case err != nil:
		return p.refreshError(r.Conn, channel, err)
	case r.ID == nil:
		return nil
	}
	data := jsvalue.Object("{}")
	if expires > 0 {
		data = jsvalue.Object(nil).Raw("expires", strconv.AppendInt(nil, expires, 10))
	}
	_ = r.Conn.Send(&hub.Event{ // it fails only if the connection has ended
		Kind:    hub.Replied,
		Data:    data,
		Request: r.ID,
	})
	return nil
}

func (p *Protocol) refreshError(c *hub.Conn, channel string, err error) *Error {
	var refused *hub.RefusedError
	var unavailable *hub.UnavailableError
	switch {
	case errors.As(err, &refused) && refused.NeedAuth:
		return &Error{
			Code:    cmp.Or(refused.Code, ErrNeedAuth.Code),
			Message: cmp.Or(refused.Reason, ErrNeedAuth.Message),
		}
	case errors.As(err, &refused):
		return &Error{
			Code:    cmp.Or(refused.Code, ErrDenied.Code),
			Message: refused.Reason,
		}
	case errors.Is(err, hub.ErrNeedAuth):
		return ErrNeedAuth
	case errors.Is(err, hub.ErrDenied):
		return ErrDenied
	case errors.Is(err, hub.ErrOtherUser):
		return ErrOtherUser
	case errors.Is(err, hub.ErrDataTooLarge):
		return ErrDataSize
	case errors.As(err, &unavailable):
		return ErrUnavailable
	}
	return p.memberError(c, channel, err)
}
