// Package untrusted validates what brokers deliver. Other programs can write to the same Redis
// or NATS, so data from there need not be from a node of pushy.
package untrusted

import (
	"encoding/json"
	"errors"
	"unicode/utf8"
)

var (
	ErrUTF8 = errors.New("invalid UTF-8")
	ErrJSON = errors.New("invalid JSON")
)

// JSON returns an error unless text is one JSON value in valid UTF-8. encoding/json accepts
// invalid UTF-8 in strings, which must not be sent over WebSocket.
func JSON(text []byte) error {
	switch {
	case !utf8.Valid(text):
		return ErrUTF8
	case !json.Valid(text):
		return ErrJSON
	}
	return nil
}
