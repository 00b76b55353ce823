package pusher

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// contentOf returns the content of the string with which a client receives a JSON value. Clients parse
// the string as JSON, and take it as it is if that fails. So a value is its own JSON, and a string
// is sent as it is, unless clients would parse it.
func contentOf(value []byte) []byte {
	text, is := jsvalue.Text(value)
	if !is || json.Valid([]byte(text)) {
		return value
	}
	return []byte(text)
}

// valueOf is the inverse of contentOf: the JSON value that the string of a publisher contains or, if
// it contains none, the string.
func valueOf(content []byte) []byte {
	value, err := jsvalue.Compacted(content, jsvalue.TriggerLimits)
	if err != nil {
		return jsvalue.AppendQuote(nil, content)
	}
	return bytes.Clone(value)
}

// fieldsOf calls each for the members of the data of a message, which is an object or a string that
// contains one.
func fieldsOf(data []byte, each func(name string, value []byte)) error {
	if text, is := jsvalue.Text(data); is {
		data = []byte(text)
	}
	if jsvalue.Kind(data) != '{' {
		return errNotObject
	}
	return jsvalue.Fields(data, func(name, value []byte) { each(string(name), value) })
}

var errNotObject = errors.New("is not an object")
