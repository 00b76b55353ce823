// Package pusherform has the rules of the Pusher protocol that both its connections and its webhooks
// follow: how it signs, names users and writes data.
package pusherform

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

const (
	// MaxUser is the most bytes of the id of a user.
	MaxUser = 128
	// MinSecret is the length in bytes under which a secret is reported as short.
	MinSecret = 16

	presencePrefix = "presence-"
	fieldUser      = "user"
)

var plain = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// IsPlain reports whether text can be the id or the key of an application.
func IsPlain(text string) bool { return plain.MatchString(text) }

// Sign returns the HMAC-SHA256 of text in lower-case hexadecimal digits.
func Sign[T string | []byte](secret string, text T) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// HasPrefix compares ASCII letters without regard to their case.
func HasPrefix(name, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// IsPresence reports whether the name of a channel is that of a presence channel.
func IsPresence(name string) bool { return HasPrefix(name, presencePrefix) }

// Content returns the content of the string with which a client receives a JSON value. Clients parse
// the string as JSON, and take it as it is if that fails. So a value is its own JSON, and a string
// is sent as it is, unless clients would parse it.
func Content(value []byte) []byte {
	text, is := jsvalue.Text(value)
	if !is || json.Valid([]byte(text)) {
		return value
	}
	return []byte(text)
}

// CheckUser checks the id of a user.
func CheckUser(id string) error {
	if id == "" || len(id) > MaxUser || !utf8.ValidString(id) {
		return errors.New("must have 1 to 128 bytes of UTF-8")
	}
	return nil
}

var errUserID = errors.New("user_id must be a string or an integer, of 1 to 128 bytes")

// UserID returns the id of a user that is a JSON string or integer.
func UserID(value []byte) (string, error) {
	id, is := jsvalue.Text(value)
	if !is {
		id = string(value)
		if _, err := strconv.ParseInt(id, 10, 64); err != nil {
			return "", errUserID
		}
	}
	if CheckUser(id) != nil {
		return "", errUserID
	}
	return id, nil
}

// MemberID returns the user_id of a member of a presence channel: the user id of its connection, or
// the field user of its presence data, or its memberId.
func MemberID(user string, data []byte, memberID string) string {
	if user != "" {
		return user
	}
	named := ""
	_ = jsvalue.Fields(data, func(name, value []byte) {
		if string(name) == fieldUser {
			named, _ = UserID(value)
		}
	})
	return cmp.Or(named, memberID)
}
