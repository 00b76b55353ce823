// Package sign makes the signatures of the protocol: lower-case hex SHA-256
// of strings that end in the secret. Nothing else in pushy hashes a secret.
package sign

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// Channel signs a subscription to a private channel: socketID, the channel
// name in lower case, and data, the raw JSON value that the client sends with
// it. Empty data is absent data and has no slot; the JSON text `""` has one.
// It does not check that socketID and channel keep the string unambiguous.
func Channel(secret, socketID, channel string, data []byte) string {
	channel = jsvalue.Lower(channel)
	if len(data) == 0 {
		return sum(secret, nil, socketID, channel)
	}
	return sum(secret, data, socketID, channel)
}

// Trigger signs a trigger: the channel name in lower case, the event, the
// timestamp as sent, and body in one of the forms that the protocol lists. An
// empty body has an empty slot; it is for the caller to pass `{}` instead.
func Trigger(secret, channel, event, timestamp string, body []byte) string {
	if body == nil {
		body = []byte{}
	}
	return sum(secret, body, jsvalue.Lower(channel), event, timestamp)
}

// Equal compares two signatures in a time that depends on their lengths only.
func Equal(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	var diff byte
	for i := range len(a) {
		diff |= a[i] ^ b[i]
	}
	return subtle.ConstantTimeByteEq(diff, 0) == 1
}

// sum hashes the parts, then body unless it is nil, then secret, with colons
// between. The body goes to the hash as it is: it may be large.
func sum(secret string, body []byte, parts ...string) string {
	var scratch [512]byte
	buf := scratch[:0]
	for i, p := range parts {
		if i > 0 {
			buf = append(buf, ':')
		}
		buf = append(buf, p...)
	}
	h := sha256.New()
	if body != nil {
		h.Write(append(buf, ':'))
		h.Write(body)
		buf = buf[:0]
	}
	buf = append(append(buf, ':'), secret...)
	h.Write(buf)

	var digest [sha256.Size]byte
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], h.Sum(digest[:0]))
	return string(text[:])
}
