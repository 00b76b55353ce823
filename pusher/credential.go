package pusher

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/gopushy/pushy/internal/pusherform"
)

// signed reports whether a signature is that of text, with one of the secrets.
func (a *Adapter) signed(text, signature string) bool {
	valid := false
	for _, secret := range a.secrets {
		if hmac.Equal([]byte(pusherform.Sign(secret, text)), []byte(signature)) {
			valid = true
		}
	}
	return valid
}

// credential verifies key:signature.
func (a *Adapter) credential(auth, text string) bool {
	key, signature, found := strings.Cut(auth, ":")
	return found && key == a.key && a.signed(text, signature)
}

// channelText returns what the credential for a channel signs.
func channelText(socketID, channel string, data *string) string {
	text := socketID + ":" + channel
	if data != nil {
		text += ":" + *data
	}
	return text
}

// userText returns what the credential for a user signs.
func userText(socketID, userData string) string { return socketID + "::user::" + userData }

// newSocketID returns the id of a connection: two random numbers. Signatures are made for it, so no
// other client sees it.
func newSocketID() string {
	var b [16]byte
	rand.Read(b[:])
	return strconv.FormatUint(binary.BigEndian.Uint64(b[:8]), 10) + "." +
		strconv.FormatUint(binary.BigEndian.Uint64(b[8:]), 10)
}
