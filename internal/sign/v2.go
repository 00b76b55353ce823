package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

// KeyIDLength is the number of hexadecimal digits of a key id.
const KeyIDLength = 8

// KeyID returns the id of a secret: the first 8 hexadecimal digits of the HMAC-SHA256 of
// "pushy2-key-id" (PROTOCOL.md, section 15).
func KeyID(secret string) string {
	return hmacHex(secret, nil, "pushy2-key-id")[:KeyIDLength]
}

// IsHex reports whether s is that many hexadecimal digits in lower case.
func IsHex(s string, digits int) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == digits
}

// Request signs a request to the signed API (PROTOCOL.md, section 15). path is what follows the
// prefix, such as "/api/publish". keyID, id and path must not contain a line feed.
func Request(secret, keyID string, timestamp int64, id, path string, body []byte) string {
	head := "pushy2-request\n" + keyID + "\n" + strconv.FormatInt(timestamp, 10) + "\n" + id + "\n" + path + "\n"
	return hmacHex(secret, body, head)
}

// TokenV2 signs the claims of a token of version 2 in base64url (PROTOCOL.md, section 6).
// keyID and claims must not contain a line feed.
func TokenV2(secret, keyID, claims string) string {
	return hmacHex(secret, nil, "pushy2-token\n"+keyID+"\n"+claims)
}

// hmacHex returns the HMAC-SHA256 of head and body in lower-case hexadecimal digits.
func hmacHex(secret string, body []byte, head string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write([]byte(head)) // never returns an error
	_, _ = mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}
