package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// memberKeyLength is the length of a member's key: 132 bits.
const memberKeyLength = 22

// Member returns the key with which a client can take over its member: the first characters
// of the HMAC-SHA256, in base64url, of "member:", the channel name in lower case, ":" and the
// member's id, which has no colon.
func Member(secret, channel, member string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write([]byte("member:" + channel + ":" + member)) // never returns an error
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))[:memberKeyLength]
}

// MemberValid reports whether key is that of a member, made with any of the secrets.
func MemberValid(secrets []string, channel, member, key string) bool {
	for _, secret := range secrets {
		if Equal(key, Member(secret, channel, member)) {
			return true
		}
	}
	return false
}
