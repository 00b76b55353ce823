package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// memberKeyLength is the length of a member's key: 132 bits.
const memberKeyLength = 22

// Member returns the key with which a client can take over its member: the first characters
// of the HMAC-SHA256, in base64url, of "member:", the channel name in lower case, ":", the
// member's id, ":" and what identifies the user. The name and the id have no colon.
func Member(secret, channel, member, user string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write([]byte("member:" + channel + ":" + member + ":" + user)) // never returns an error
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))[:memberKeyLength]
}

// MemberValid reports whether key is that of a user's member, made with any of the secrets.
func MemberValid(secrets []string, channel, member, user, key string) bool {
	if strings.Contains(member, ":") {
		return false // a client has chosen it
	}
	for _, secret := range secrets {
		if Equal(key, Member(secret, channel, member, user)) {
			return true
		}
	}
	return false
}
