package token

import (
	"time"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// DefaultLife is the life of a token, unless its host chooses another.
const DefaultLife = time.Hour

// Spec is a token as hosts describe it. The public packages have structs with the same fields.
type Spec struct {
	Channels     []string
	Conn         string
	User         string
	Expires      time.Time // zero: 1 hour from now, or, if Conn is set, none
	Data         any       // encoded as an object, or nil
	ClientEvents bool
}

// Sign validates what hosts can set wrong, and returns the token.
func (s Spec) Sign(secret string, now time.Time) (string, error) {
	data, err := jsvalue.EncodePresence(s.Data)
	if err != nil {
		return "", err
	}
	if _, err := jsvalue.PresenceFields(data); err != nil {
		return "", err
	}
	if s.Expires.IsZero() && s.Conn == "" {
		s.Expires = now.Add(DefaultLife)
	}
	return Sign(secret, Claims{
		Channels: s.Channels,
		Conn:     s.Conn,
		User:     s.User,
		Issued:   now,
		Expires:  s.Expires,
		Data:     data,
		Publish:  s.ClientEvents,
	}, now)
}
