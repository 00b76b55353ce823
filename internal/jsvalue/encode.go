package jsvalue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
)

// Encode encodes a value of the host as compact JSON. A json.RawMessage is used as it is.
func Encode(data any) (json.RawMessage, error) {
	e, err := Encoded(data)
	if err != nil {
		return nil, err
	}
	defer e.Free()
	return bytes.Clone(e.JSON), nil
}

// An Encoding has the compact JSON of a value of the host. JSON is valid until Free, after which
// its memory is used again.
type Encoding struct {
	JSON []byte

	encoded bytes.Buffer
	encoder *json.Encoder // to encoded
	compact []byte
}

// maxReused is the size above which the memory of an Encoding is not used again.
const maxReused = 64 << 10

var encodings = sync.Pool{New: func() any {
	e := new(Encoding)
	e.encoder = json.NewEncoder(&e.encoded)
	e.encoder.SetEscapeHTML(false)
	return e
}}

// Encoded is Encode for a result that is used only for a short time. Free must be called if there
// is no error.
func Encoded(data any) (*Encoding, error) {
	e := encodings.Get().(*Encoding)
	if err := e.encode(data); err != nil {
		e.Free()
		return nil, fmt.Errorf("encode data: %w", err)
	}
	return e, nil
}

func (e *Encoding) encode(data any) error {
	raw, ok := data.(json.RawMessage)
	if !ok || raw == nil {
		if err := e.encoder.Encode(data); err != nil {
			return err
		}
		raw = e.encoded.Bytes()
		raw = raw[:len(raw)-1] // without the newline
	}
	c := compactor{
		scanner: newScanner(raw, Limits{}),
		dst:     e.compact[:0],
	}
	changed, err := c.text()
	if err != nil {
		return err
	}
	e.JSON = raw
	if changed {
		e.compact = c.dst
		e.JSON = c.dst
	}
	return nil
}

// Free ends the use of JSON.
func (e *Encoding) Free() {
	e.JSON = nil
	e.encoded.Reset()
	if e.encoded.Cap()+cap(e.compact) <= maxReused {
		encodings.Put(e)
	}
}
