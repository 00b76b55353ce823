// Package wire reads the JSON messages that clients send, and builds those that they
// receive (PROTOCOL.md, sections 2 and 3).
package wire

import "github.com/gopushy/pushy/internal/jsvalue"

// Object is a JSON object under construction. Its members have the order in which
// they were added; nil is an object without members.
type Object []byte

// Text adds a member whose value is a string.
func (o Object) Text(name, value string) Object {
	o = jsvalue.AppendQuote(o.member(name), value)
	return append(o, '}')
}

// Raw adds a member whose value is JSON already.
func (o Object) Raw(name string, value []byte) Object {
	o = append(o.member(name), value...)
	return append(o, '}')
}

func (o Object) member(name string) Object {
	if len(o) == 0 {
		o = append(make(Object, 0, 96), '{')
	} else {
		o[len(o)-1] = ','
	}
	return append(jsvalue.AppendQuote(o, name), ':')
}

// Event returns a channel event as JSON. data is JSON.
func Event(event, channel string, data []byte) []byte {
	b := make([]byte, 0, len(event)+len(channel)+len(data)+40)
	b = append(b, `{"event":`...)
	b = jsvalue.AppendQuote(b, event)
	b = append(b, `,"channel":`...)
	b = jsvalue.AppendQuote(b, channel)
	b = append(b, `,"data":`...)
	b = append(b, data...)
	return append(b, '}')
}

// Reply returns a direct message as JSON. id, if it is not nil, becomes the last
// member of data if that is an object without an id of its own. Otherwise data stays
// as it is, and id becomes the last member of the message.
func Reply(event string, data, id []byte) []byte {
	b := make([]byte, 0, len(event)+len(data)+len(id)+40)
	b = append(b, `{"event":`...)
	b = jsvalue.AppendQuote(b, event)
	b = append(b, `,"data":`...)
	b = append(b, data...)
	switch {
	case id == nil:
	case jsvalue.Kind(data) != '{' || has(data, "id"):
		b = append(b, `,"id":`...)
		b = append(b, id...)
	default:
		b = b[:len(b)-1]
		if len(data) > len("{}") {
			b = append(b, ',')
		}
		b = append(b, `"id":`...)
		b = append(b, id...)
		b = append(b, '}')
	}
	return append(b, '}')
}

func has(object []byte, name string) bool {
	found := false
	_ = jsvalue.Fields(object, func(n, _ []byte) { found = found || string(n) == name })
	return found
}

// List returns the JSON array of values; json returns one of them as JSON.
func List[T any](values []T, json func(T) []byte) []byte {
	b := []byte{'['}
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, json(v)...)
	}
	return append(b, ']')
}
