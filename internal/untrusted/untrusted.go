// Package untrusted validates what brokers deliver. Other programs can write to the same
// Redis or NATS, so data from there is not assumed to be from a node of pushy.
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

// JSON returns an error unless text is one JSON value in UTF-8. encoding/json takes
// invalid UTF-8 in strings, which clients over WebSocket must not receive.
func JSON(text []byte) error {
	switch {
	case !utf8.Valid(text):
		return ErrUTF8
	case !json.Valid(text):
		return ErrJSON
	}
	return nil
}
