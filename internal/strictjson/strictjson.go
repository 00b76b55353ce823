// Package strictjson decodes JSON that strangers send. Where encoding/json is
// lenient it says no, and what it says names the place:
//
//   - a field is spelled as its type has it, in the same case, and stands once;
//   - one that the type does not have is a fault;
//   - null is for pointers and interfaces, and for types that read JSON
//     themselves; it is not a quiet zero;
//   - an array's length is the Go array's;
//   - there is one value, and nothing behind it.
//
// What is left out keeps its zero value. Tags and embedding mean what they do to
// encoding/json, and types with UnmarshalJSON or UnmarshalText read themselves.
package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// A Fault is what is wrong with a JSON text.
type Fault struct {
	Path   string // of the value, such as "moves[2].x"; "" is the whole text
	Reason string // such as "must be a string"
	Err    error  // what the type's own UnmarshalJSON or UnmarshalText said, or nil
}

// Error names the whole text "data". It does not show Err, which need not be for
// the sender's eyes.
func (f *Fault) Error() string {
	if f.Path == "" {
		return "data " + f.Reason
	}
	return f.Path + ": " + f.Reason
}

func (f *Fault) Unwrap() error { return f.Err }

func fault(format string, args ...any) *Fault { return &Fault{Reason: fmt.Sprintf(format, args...)} }

// What is shown of what a sender has made up.
const (
	maxShown = 40  // characters of a name
	maxPath  = 200 // bytes of a path, its end
)

// in returns f, seen from the container that step leads out of: ".x" or "[2]".
func (f *Fault) in(step string) *Fault {
	path := step + f.Path
	if len(path) > maxPath+len("…") {
		path = strings.TrimPrefix(path, "…")
		cut := len(path) - maxPath
		for !utf8.RuneStart(path[cut]) {
			cut++
		}
		path = "…" + path[cut:]
	}
	f.Path = path
	return f
}

// field is the step to an object's member.
func field(name string) string {
	if runes := []rune(name); len(runes) > maxShown {
		name = string(runes[:maxShown]) + "…"
	}
	for i, c := range []byte(name) {
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c == '-' || c >= '0' && c <= '9' && i > 0 {
			continue
		}
		return "[" + strconv.Quote(name) + "]"
	}
	return "." + name
}

// Decoder decodes into one type. It is safe for concurrent use.
type Decoder[T any] struct {
	decode decoder
	object bool
}

// New returns the Decoder of T, or says what in T cannot be decoded.
func New[T any]() (*Decoder[T], error) {
	p := plans{}
	decode, err := p.of(reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	return &Decoder[T]{decode: decode, object: readsObject(reflect.TypeFor[T]())}, nil
}

// readsObject reports whether only JSON objects can be decoded into a t, and a
// pointer's null.
func readsObject(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	own := reflect.PointerTo(t)
	if own.Implements(readsJSON) || own.Implements(readsText) {
		return false
	}
	return t.Kind() == reflect.Struct || t.Kind() == reflect.Map
}

// DecodePHP is Decode for text that PHP may have encoded, where an object without
// members is []: for a type that only objects can be decoded into it counts as {}.
func (d *Decoder[T]) DecodePHP(text []byte) (T, error) {
	if d.object {
		inner, opens := bytes.CutPrefix(bytes.TrimSpace(text), []byte("["))
		inner, closes := bytes.CutSuffix(inner, []byte("]"))
		if opens && closes && len(bytes.TrimSpace(inner)) == 0 {
			text = []byte("{}")
		}
	}
	return d.Decode(text)
}

// Decode returns the value that text holds, for nil the zero value. The error is
// a *Fault; the value then means nothing.
func (d *Decoder[T]) Decode(text []byte) (T, error) {
	var value T
	if text == nil {
		return value, nil
	}
	if !json.Valid(text) {
		return value, fault("must be one JSON value")
	}
	if f := d.decode(newCursor(text), reflect.ValueOf(&value).Elem()); f != nil {
		f.Path = strings.TrimPrefix(f.Path, ".")
		return value, f
	}
	return value, nil
}

// cursor reads a valid JSON text once, from its beginning to its end.
type cursor struct {
	text   []byte
	tokens *json.Decoder
}

func newCursor(text []byte) *cursor {
	c := &cursor{text: text, tokens: json.NewDecoder(bytes.NewReader(text))}
	c.tokens.UseNumber()
	return c
}

// kind returns the first byte of the value that comes next.
func (c *cursor) kind() byte {
	at := int(c.tokens.InputOffset())
	for strings.IndexByte(" \t\r\n,:", c.text[at]) >= 0 {
		at++
	}
	return c.text[at]
}

// token returns the next token. The text is valid, so there is one.
func (c *cursor) token() json.Token {
	token, err := c.tokens.Token()
	if err != nil {
		panic(fmt.Sprintf("strictjson: valid JSON gave %v", err))
	}
	return token
}

// raw returns the value that comes next as it stands.
func (c *cursor) raw() json.RawMessage {
	var raw json.RawMessage
	if err := c.tokens.Decode(&raw); err != nil {
		panic(fmt.Sprintf("strictjson: valid JSON gave %v", err))
	}
	return raw
}

// want returns a Fault unless a value of that kind comes next: '{', '[', '"',
// '0' for a number or 't' for true and false.
func (c *cursor) want(kind byte) *Fault {
	got := c.kind()
	switch got {
	case 'f':
		got = 't'
	case '-', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		got = '0'
	}
	if got == kind {
		return nil
	}
	return fault("must be %s, not %s", jsvalue.KindName(kind), jsvalue.KindName(got))
}
