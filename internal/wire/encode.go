package wire

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// Encode encodes a host's value as compact JSON.
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
	out, err := jsvalue.Compact(make([]byte, 0, len(raw)), raw, jsvalue.Limits{})
	if err != nil {
		return nil, fmt.Errorf("encode data: %w", err)
	}
	return out, nil
}
