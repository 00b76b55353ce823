package pushy_test

import (
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
