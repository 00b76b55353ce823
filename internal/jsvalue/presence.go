package jsvalue

import (
	"encoding/json"
	"errors"
	"fmt"
)

// EncodePresence encodes presence data of the host. nil, and what encodes as null, is none.
func EncodePresence(data any) (json.RawMessage, error) {
	raw, err := Encode(data)
	if string(raw) == "null" {
		raw = nil
	}
	return raw, err
}

// PresenceFields returns the fields of a member, in canonical form, for presence data, or nil if
// there is no data. Valid data is an object, a string that contains one, or [], which PHP writes
// for an empty object.
func PresenceFields(data []byte) (fields []byte, err error) {
	if len(data) == 0 || string(data) == "null" {
		return nil, nil
	}
	raw := data
	if text, ok := Text(data); ok {
		raw = []byte(text)
	}
	fields, err = Canonical(nil, raw, TriggerLimits)
	switch {
	case err == nil && string(fields) == "[]":
		return []byte("{}"), nil
	case err != nil:
		return nil, fmt.Errorf("presence data is not valid: %w", err)
	case fields[0] != '{':
		return nil, errors.New("presence data must be an object, not " + KindName(Kind(fields)))
	}
	return fields, nil
}
