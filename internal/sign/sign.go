// Package sign makes the signatures of the protocol: the SHA-256, in lower-case hex, of a
// string that ends in the secret. No other package of pushy hashes a secret.
package sign

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// Channel signs a subscription to a private channel: socketID, the channel name in lower
// case, and data, which is the JSON value that the client sends. If data is empty, the signed
// string has no part for it; the JSON value `""` does have one. Channel does not check
// whether socketID and channel make the string ambiguous.
func Channel(secret, socketID, channel string, data []byte) string {
	channel = jsvalue.Lower(channel)
	if len(data) == 0 {
		return sum(secret, nil, socketID, channel)
	}
	return sum(secret, data, socketID, channel)
}

// Trigger signs a trigger: the channel name in lower case, the event, the timestamp as sent,
// and body in one of the forms that the protocol lists. For an empty body, the signed string
// has an empty part; a caller that needs `{}` must pass it.
func Trigger(secret, channel, event, timestamp string, body []byte) string {
	if body == nil {
		body = []byte{}
	}
	return sum(secret, body, jsvalue.Lower(channel), event, timestamp)
}

// Equal reports whether two signatures are equal. Its time depends only on their lengths.
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

// sum hashes the parts, body unless it is nil, and secret, with colons between them. It does
// not copy body, which can be large.
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
