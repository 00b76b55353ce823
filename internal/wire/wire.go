// Package wire builds the JSON texts that go to clients (PROTOCOL.md, section 2).
package wire

import "github.com/gopushy/pushy/internal/jsvalue"

// Object is a JSON object under construction, its members in the order given.
// nil is an object without members yet.
type Object []byte

// Text adds a member with a text value.
func (o Object) Text(name, value string) Object {
	o = jsvalue.AppendQuote(o.member(name), value)
	return append(o, '}')
}

// Raw adds a member with a value that is JSON already.
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

// Event returns the text of a channel event. data is JSON.
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

// Reply returns the text of a direct message. id, if it is not nil, becomes data's
// last member if data is an object without an id of its own; else data stays as it
// is and id is the message's last member.
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

// List is the JSON array of what each of values is as JSON.
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
