package pusher

import (
	"bytes"
	"errors"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// valueOf is the inverse of pusherform.Content: the JSON value that the string of a publisher contains or, if
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
