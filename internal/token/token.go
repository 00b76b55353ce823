// Package token makes and verifies tokens of version 2 (PROTOCOL.md, section 6), with which
// clients subscribe to private channels.
package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/sign"
)

// Limits of a token.
const (
	MaxBytes    = 8 << 10
	MaxChannels = 100
	MaxUser     = 128 // bytes, as for Conn.UserID
	// MaxLife is the longest time until a token expires.
	MaxLife = 24 * time.Hour
	// Skew is how far the clock of the signer may be ahead.
	Skew = 300 * time.Second
)

// Prefix begins every token of version 2 and no token of version 1.
const Prefix = "v2."

// Claims is what a token says.
type Claims struct {
	Channels []string  // sub: the channels, in any case
	Conn     string    // conn: the only connection that can use it, or ""
	User     string    // user: the only user whose connections can use it, or ""
	Issued   time.Time // iat, in seconds
	Expires  time.Time // exp, in seconds; zero for a token that is valid as long as Conn
	Data     []byte    // data: presence data in canonical form, or nil
	Publish  bool      // pub: the client can send events
}

// Sign validates the claims and returns the token. The time must be that at which it is
// signed: now.
func Sign(secret string, c Claims, now time.Time) (string, error) {
	if secret == "" {
		return "", errors.New("empty secret key")
	}
	if c.Data != nil {
		canonical, err := jsvalue.Canonical(nil, c.Data, jsvalue.TriggerLimits)
		if err != nil {
			return "", fmt.Errorf("data: %w", err)
		}
		c.Data = canonical
	}
	c.Issued = time.Unix(c.Issued.Unix(), 0) // as it is written
	if !c.Expires.IsZero() {
		c.Expires = time.Unix(c.Expires.Unix(), 0)
	}
	if err := c.check(now); err != nil {
		return "", err
	}
	if !c.Expires.IsZero() && !now.Before(c.Expires) {
		return "", errors.New("exp: is not in the future")
	}
	keyID := sign.KeyID(secret)
	payload := base64.RawURLEncoding.EncodeToString(c.encode())
	signed := Prefix + keyID + "." + payload + "." + sign.TokenV2(secret, keyID, payload)
	if len(signed) > MaxBytes {
		return "", fmt.Errorf("%w: it would have %d", ErrSize, len(signed))
	}
	return signed, nil
}

func (c *Claims) encode() []byte {
	sub := []byte{'['}
	for i, channel := range c.Channels {
		if i > 0 {
			sub = append(sub, ',')
		}
		sub = jsvalue.AppendQuote(sub, channel)
	}
	o := jsvalue.Object(nil).Raw("sub", append(sub, ']'))
	if c.Conn != "" {
		o = o.Text("conn", c.Conn)
	}
	if c.User != "" {
		o = o.Text("user", c.User)
	}
	o = o.Raw("iat", strconv.AppendInt(nil, c.Issued.Unix(), 10))
	if !c.Expires.IsZero() {
		o = o.Raw("exp", strconv.AppendInt(nil, c.Expires.Unix(), 10))
	}
	if c.Data != nil {
		o = o.Raw("data", c.Data)
	}
	if c.Publish {
		o = o.Raw("pub", []byte("true"))
	}
	return o
}

// check validates the claims. It does not check whether the token has expired.
func (c *Claims) check(now time.Time) error {
	if len(c.Channels) == 0 || len(c.Channels) > MaxChannels {
		return fmt.Errorf("sub: must have 1 to %d channels, not %d", MaxChannels, len(c.Channels))
	}
	for i, channel := range c.Channels {
		if _, err := names.Channel(channel); err != nil {
			return fmt.Errorf("sub[%d]: %w", i, err)
		}
	}
	switch {
	case c.Conn == "" && c.User == "":
		return errors.New("conn or user is needed")
	case c.Conn != "" && !names.IsUUID(c.Conn):
		return errors.New("conn: must be a UUID v4 in lower case, as the ids of connections are")
	case len(c.User) > MaxUser || !utf8.ValidString(c.User):
		return fmt.Errorf("user: must be UTF-8 of at most %d bytes", MaxUser)
	case c.Issued.After(now.Add(Skew)):
		return fmt.Errorf("iat: is %d s in the future, at most %d are allowed",
			int64(c.Issued.Sub(now)/time.Second), int64(Skew/time.Second))
	case c.Expires.IsZero() && c.Conn == "":
		return errors.New("exp: is needed without conn")
	// A signer whose clock is ahead signs for MaxLife from its own time.
	case c.Expires.After(now.Add(MaxLife)) && c.Expires.After(c.Issued.Add(MaxLife)):
		return fmt.Errorf("exp: must be at most %d hours away", int64(MaxLife/time.Hour))
	}
	return nil
}

// Covers reports whether the token is for a channel, whose name is in lower case.
func (c *Claims) Covers(channel string) bool {
	for _, name := range c.Channels {
		if lower, err := names.Channel(name); err == nil && lower == channel {
			return true
		}
	}
	return false
}

// Keys verifies tokens.
type Keys []key

type key struct {
	secret string
	id     string
}

// NewKeys returns the keys for these secrets.
func NewKeys(secrets []string) Keys {
	keys := make(Keys, 0, len(secrets))
	for _, secret := range secrets {
		keys = append(keys, key{
			secret: secret,
			id:     sign.KeyID(secret),
		})
	}
	return keys
}

// Errors of Verify that callers tell apart.
var (
	ErrForm      = errors.New("the token does not have the form v2.{key id}.{claims}.{signature}")
	ErrKey       = errors.New("no key has the key id of the token")
	ErrSignature = errors.New("the signature of the token is wrong")
	ErrSize      = fmt.Errorf("the token has more than %d bytes", MaxBytes)
)

// Verify returns the claims of a token, and the id of the key that it names, which is "" if the
// token does not have the form of one. The claims are decoded only if the signature is right. A
// token that has expired is valid: the caller compares Claims.Expires. The error never quotes
// the token.
func (k Keys) Verify(token string, now time.Time) (c Claims, keyID string, err error) {
	if len(token) > MaxBytes {
		return c, "", ErrSize
	}
	parts := strings.Split(token, ".")
	if len(parts) != 4 || parts[0]+"." != Prefix || !sign.IsHex(parts[1], sign.KeyIDLength) || !isPayload(parts[2]) {
		return c, "", ErrForm
	}
	keyID = parts[1]
	err = ErrKey
	for _, key := range k {
		if key.id != keyID {
			continue
		}
		if sign.Equal(parts[3], sign.TokenV2(key.secret, keyID, parts[2])) {
			err = nil
			break
		}
		err = ErrSignature // another key can have the same id
	}
	if err != nil {
		return c, keyID, err
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return c, keyID, ErrForm
	}
	if c, err = parse(payload); err == nil {
		err = c.check(now)
	}
	if err != nil {
		return Claims{}, keyID, fmt.Errorf("the claims of the token are not valid: %w", err)
	}
	return c, keyID, nil
}

// isPayload reports whether s has only characters of base64url, so that it has neither a line
// feed, which separates the parts of the signed string, nor padding.
func isPayload(s string) bool {
	for _, b := range []byte(s) {
		if (b|0x20 < 'a' || b|0x20 > 'z') && (b < '0' || b > '9') && b != '-' && b != '_' {
			return false
		}
	}
	return s != ""
}
