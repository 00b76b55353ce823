// Package webhooksign makes and verifies the signatures of Standard Webhooks 1.0.0
// (github.com/standard-webhooks/standard-webhooks), with HMAC-SHA256.
package webhooksign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of a request.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// Tolerance is the greatest difference between the time of a request and that of the receiver.
const Tolerance = 5 * time.Minute

const (
	prefix    = "whsec_"
	version   = "v1,"
	minSecret = 24
	maxSecret = 64

	maxSignatures = 20  // in one header
	maxID         = 256 // bytes
)

// ErrInvalid is wrapped by all errors of Verify.
var ErrInvalid = errors.New("not valid")

// Key is a secret.
type Key struct {
	bytes []byte
	text  string
}

// ParseKey decodes a secret, which is "whsec_" and the Base64 of 24 to 64 bytes. The error does
// not contain the secret.
func ParseKey(secret string) (Key, error) {
	text, ok := strings.CutPrefix(secret, prefix)
	if !ok {
		return Key{}, fmt.Errorf("does not begin with %q", prefix)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return Key{}, fmt.Errorf("is not %q followed by Base64", prefix)
	}
	if len(key) < minSecret || len(key) > maxSecret {
		return Key{}, fmt.Errorf("has %d bytes, but must have %d to %d", len(key), minSecret, maxSecret)
	}
	return Key{
		bytes: key,
		text:  text,
	}, nil
}

// Same reports whether another secret, in any form, has the same bytes.
func (k Key) Same(secret string) bool {
	for _, form := range []string{string(k.bytes), k.text, prefix + k.text} {
		if hmac.Equal([]byte(form), []byte(secret)) {
			return true
		}
	}
	return false
}

// Sign sets the headers of a request, with a signature for each key.
func Sign(header http.Header, keys []Key, id string, at time.Time, body []byte) {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	signatures := make([]string, len(keys))
	for i, k := range keys {
		signatures[i] = version + base64.StdEncoding.EncodeToString(k.sum(id, timestamp, body))
	}
	header.Set(HeaderID, id)
	header.Set(HeaderTimestamp, timestamp)
	header.Set(HeaderSignature, strings.Join(signatures, " "))
}

func (k Key) sum(id, timestamp string, body []byte) []byte {
	h := hmac.New(sha256.New, k.bytes)
	h.Write([]byte(id + "." + timestamp + "."))
	h.Write(body)
	return h.Sum(nil)
}

// Verify returns the id and the time of a request that one of the keys has signed. The errors
// wrap ErrInvalid.
func Verify(header http.Header, keys []Key, now time.Time, body []byte) (id string, at time.Time, err error) {
	id, err = only(header, HeaderID)
	if err != nil {
		return "", at, err
	}
	timestamp, err := only(header, HeaderTimestamp)
	if err != nil {
		return "", at, err
	}
	signatures, err := only(header, HeaderSignature)
	if err != nil {
		return "", at, err
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	switch {
	case len(id) > maxID:
		return "", at, fmt.Errorf("%w: its id is too long", ErrInvalid)
	case err != nil || strconv.FormatInt(seconds, 10) != timestamp:
		return "", at, fmt.Errorf("%w: its time is not a number of seconds", ErrInvalid)
	case now.Unix()-seconds > int64(Tolerance/time.Second) || seconds-now.Unix() > int64(Tolerance/time.Second):
		return "", at, fmt.Errorf("%w: its time differs from that of this computer by more than %v", ErrInvalid, Tolerance)
	}
	list := strings.SplitN(signatures, " ", maxSignatures+1)
	if len(list) > maxSignatures {
		return "", at, fmt.Errorf("%w: it has more than %d signatures", ErrInvalid, maxSignatures)
	}
	for _, k := range keys {
		want := k.sum(id, timestamp, body)
		for _, s := range list {
			text, known := strings.CutPrefix(s, version)
			if !known {
				continue // of another version
			}
			got, err := base64.StdEncoding.Strict().DecodeString(text)
			if err == nil && hmac.Equal(got, want) {
				return id, time.Unix(seconds, 0), nil
			}
		}
	}
	return "", at, fmt.Errorf("%w: no signature matches", ErrInvalid)
}

// only returns the value of a header that must occur once.
func only(header http.Header, name string) (string, error) {
	values := header.Values(name)
	if len(values) != 1 || values[0] == "" {
		return "", fmt.Errorf("%w: it must have one header %s", ErrInvalid, strings.ToLower(name))
	}
	return values[0], nil
}
