// Package strictjson decodes untrusted JSON. It is stricter than encoding/json, and its errors
// name the place:
//
//   - field names are case-sensitive, and duplicate fields are refused;
//   - unknown fields are refused;
//   - null is valid only for pointers, interfaces, and types with UnmarshalJSON other than
//     time.Time; encoding/json ignores it for many types;
//   - the length of a JSON array for a Go array must be equal;
//   - after the value, only whitespace is allowed.
//
// Fields that are absent keep their zero value. Tags and embedding have the same meaning as in
// encoding/json, and the methods UnmarshalJSON and UnmarshalText are used.
package strictjson

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// A Fault is an error in a JSON text.
type Fault struct {
	Path   string // of the value, such as "moves[2].x"; "" is the whole text
	Reason string // such as "must be a string"
	Err    error  // the error of the type's own UnmarshalJSON or UnmarshalText, or nil
}

// Error returns a message for the sender. It calls the whole text "data". It does not include
// Err, which may not be intended for the sender.
func (f *Fault) Error() string {
	if f.Path == "" {
		return "data " + f.Reason
	}
	return f.Path + ": " + f.Reason
}

func (f *Fault) Unwrap() error { return f.Err }

func fault(format string, args ...any) *Fault { return &Fault{Reason: fmt.Sprintf(format, args...)} }

// Limits of messages, because a sender chooses names.
const (
	maxShown = 40  // characters of a name
	maxPath  = 200 // bytes of a path, its end
)

// in adds a step, such as ".x" or "[2]", at the start of the path of f, and returns f.
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

// field returns the step of a path for a member of an object.
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

// element returns the step of a path for an element of an array.
func element(i int) string { return "[" + strconv.Itoa(i) + "]" }

// Decoder decodes JSON into values of type T. It is safe for concurrent use.
type Decoder[T any] struct {
	decode decoder
	object bool
}

// New returns a Decoder for T. The error says which part of T cannot be decoded.
func New[T any]() (*Decoder[T], error) {
	p := plans{}
	decode, err := p.of(reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	return &Decoder[T]{decode: decode, object: readsObject(reflect.TypeFor[T]())}, nil
}

// readsObject reports whether only JSON objects can be decoded into a t; null, which is valid
// for a pointer, does not count.
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

// DecodePHP is DecodeValid for text that PHP may have encoded, which writes [] for an object
// without members. If only objects can be decoded into T, [] is decoded as {}.
func (d *Decoder[T]) DecodePHP(valid []byte) (T, error) {
	if d.object && jsvalue.Kind(bytes.TrimLeft(valid, " \t\r\n")) == '[' {
		array := jsvalue.NewReader(valid)
		array.Open()
		if !array.More() {
			valid = []byte("{}")
		}
	}
	return d.DecodeValid(valid)
}

// Decode decodes text. If text is nil, it returns the zero value. The error is a *Fault; after
// an error, the value must not be used.
func (d *Decoder[T]) Decode(text []byte) (T, error) {
	if text != nil && !jsvalue.Valid(text) {
		var value T
		return value, fault("must be one JSON value")
	}
	return d.DecodeValid(text)
}

// DecodeValid is Decode for a text that is known to be valid JSON. It panics if it is not.
func (d *Decoder[T]) DecodeValid(text []byte) (T, error) {
	if text == nil {
		var zero T
		return zero, nil
	}
	run := &struct { // one allocation for both
		cursor
		value T
	}{cursor: cursor{Reader: jsvalue.NewReader(text)}}
	if f := d.decode(&run.cursor, reflect.ValueOf(&run.value).Elem()); f != nil {
		f.Path = strings.TrimPrefix(f.Path, ".")
		return run.value, f
	}
	return run.value, nil
}

// cursor reads a valid JSON text once, from the start to the end.
type cursor struct {
	jsvalue.Reader
	buf []byte // of the last name with escapes
}

// want returns a Fault unless the next value is of that kind: '{', '[', '"', '0' for a number
// or 't' for true and false.
func (c *cursor) want(kind byte) *Fault {
	got := c.Kind()
	if got == kind || got == 'f' && kind == 't' {
		return nil
	}
	return fault("must be %s, not %s", jsvalue.KindName(kind), jsvalue.KindName(got))
}

// name returns the name of the next member, which is valid until the next call.
func (c *cursor) name() []byte {
	s := c.Name()
	if !s.Escaped && !s.Broken {
		return s.Body
	}
	c.buf = appendString(c.buf[:0], s)
	return c.buf
}

// characters returns the next value, which is a string.
func (c *cursor) characters() string {
	s := c.String()
	if !s.Escaped && !s.Broken {
		return string(s.Body)
	}
	return string(appendString(nil, s))
}

// appendString appends the value of a string. In contrast to package jsvalue, it replaces each
// byte that is not UTF-8, as encoding/json does.
func appendString(dst []byte, s jsvalue.String) []byte {
	for i := 0; s.Broken && i < len(s.Body); {
		r, n := utf8.DecodeRune(s.Body[i:])
		if r == utf8.RuneError && n == 1 {
			dst = jsvalue.String{Body: s.Body[:i], Escaped: s.Escaped}.Append(dst)
			dst = utf8.AppendRune(dst, utf8.RuneError)
			s.Body = s.Body[i+1:]
			i = 0
			continue
		}
		i += n
	}
	s.Broken = false
	return s.Append(dst)
}
