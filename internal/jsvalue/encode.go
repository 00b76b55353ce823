package jsvalue

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Encode encodes a value of the host as compact JSON. A json.RawMessage is used as it is.
func Encode(data any) (json.RawMessage, error) {
	raw, ok := data.(json.RawMessage)
	if !ok || raw == nil {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(data); err != nil {
			return nil, fmt.Errorf("encode data: %w", err)
		}
		raw = b.Bytes()
	}
	out, err := Compact(make([]byte, 0, len(raw)), raw, Limits{})
	if err != nil {
		return nil, fmt.Errorf("encode data: %w", err)
	}
	return out, nil
}
