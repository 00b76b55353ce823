package pushy_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// ownToken is the token of PROTOCOL.md, section 6, over a lower-cased name and
// data as sent, "" for none, computed here and not by the package under test.
func ownToken(connID, lower, data string) string {
	s := connID + ":" + lower
	if data != "" {
		s += ":" + data
	}
	return ownSum(s + ":" + peerKey)
}

// ownSum is the lower-case hex SHA-256 of a text.
func ownSum(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// ownSumWith returns the lower-case hex HMAC-SHA256 of a string.
func ownSumWith(key, text string) string {
	mac := hmac.New(sha256.New, []byte(key))
	_, _ = mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}
