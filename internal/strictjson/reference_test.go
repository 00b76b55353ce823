package strictjson

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// Reference decodes a text as a Decoder does, with encoding/json: slowly, one token at a time,
// and without plans. Tests compare both.
func Reference[T any](text []byte) (T, error) {
	var value T
	if text == nil {
		return value, nil
	}
	if !json.Valid(text) {
		return value, fault("must be one JSON value")
	}
	if f := newTokens(text).decode(reflect.ValueOf(&value).Elem()); f != nil {
		f.Path = strings.TrimPrefix(f.Path, ".")
		return value, f
	}
	return value, nil
}

// tokens reads a valid text with a json.Decoder.
type tokens struct {
	text []byte
	*json.Decoder
}

func newTokens(text []byte) *tokens {
	t := &tokens{text, json.NewDecoder(bytes.NewReader(text))}
	t.UseNumber()
	return t
}

// kind returns the kind of the next value.
func (t *tokens) kind() byte {
	rest := bytes.TrimLeft(t.text[t.InputOffset():], " \t\r\n,:")
	return jsvalue.Kind(rest)
}

func (t *tokens) token() json.Token {
	token, err := t.Token()
	if err != nil {
		panic(err)
	}
	return token
}

func (t *tokens) want(kind byte) *Fault {
	got := t.kind()
	if got == kind || got == 'f' && kind == 't' {
		return nil
	}
	return fault("must be %s, not %s", jsvalue.KindName(kind), jsvalue.KindName(got))
}

// standard decodes the next value with encoding/json.
func (t *tokens) standard(v reflect.Value, kind byte, reason string) *Fault {
	if kind != 0 {
		if f := t.want(kind); f != nil {
			return f
		}
	}
	var raw json.RawMessage
	if err := t.Decode(&raw); err != nil {
		panic(err)
	}
	if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
		return &Fault{Reason: reason, Err: err}
	}
	return nil
}

func (t *tokens) decode(v reflect.Value) *Fault {
	typ := v.Type()
	own := reflect.PointerTo(typ)
	switch {
	case typ.Kind() == reflect.Pointer:
		if t.kind() == 'n' {
			t.token()
			v.SetZero()
			return nil
		}
		v.Set(reflect.New(typ.Elem()))
		return t.decode(v.Elem())
	case typ == timeType:
		return t.standard(v, '"', "must be a time such as 2006-01-02T15:04:05Z")
	case own.Implements(readsJSON):
		return t.standard(v, 0, "is not valid")
	case own.Implements(readsText):
		return t.standard(v, '"', "is not valid")
	}
	bits := 0
	switch typ.Kind() {
	case reflect.Bool:
		return t.standard(v, 't', "")
	case reflect.String:
		if typ == numberType {
			return t.standard(v, '0', "")
		}
		return t.standard(v, '"', "")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		bits = typ.Bits()
		most := int64(1)<<(bits-1) - 1
		return t.standard(v, '0', fmt.Sprintf("must be a whole number from %d to %d", -most-1, most))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		bits = typ.Bits()
		return t.standard(v, '0', fmt.Sprintf("must be a whole number from 0 to %d", ^uint64(0)>>(64-bits)))
	case reflect.Float32, reflect.Float64:
		return t.standard(v, '0', fmt.Sprintf("must be a number that fits in %d bits", typ.Bits()))
	case reflect.Interface:
		return t.anything(v)
	case reflect.Struct:
		return t.object(v)
	case reflect.Map:
		return t.dictionary(v)
	case reflect.Slice:
		e := reflect.PointerTo(typ.Elem())
		if typ.Elem().Kind() == reflect.Uint8 && !e.Implements(readsJSON) && !e.Implements(readsText) {
			return t.standard(v, '"', "must be bytes in base64")
		}
	}
	return t.list(v)
}

func (t *tokens) anything(v reflect.Value) *Fault {
	into := reflect.Value{}
	switch t.kind() {
	case 'n':
		t.token()
		v.SetZero()
		return nil
	case '{':
		into = reflect.ValueOf(new(map[string]any))
	case '[':
		into = reflect.ValueOf(new([]any))
	case '"':
		into = reflect.ValueOf(new(string))
	case '0':
		into = reflect.ValueOf(new(float64))
	default:
		into = reflect.ValueOf(new(bool))
	}
	f := t.decode(into.Elem())
	v.Set(into.Elem())
	return f
}

func (t *tokens) list(v reflect.Value) *Fault {
	if f := t.want('['); f != nil {
		return f
	}
	t.token()
	array := v.Kind() == reflect.Array
	if !array {
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	}
	n := 0
	for ; t.More(); n++ {
		if !array {
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		} else if n == v.Len() {
			break
		}
		if f := t.decode(v.Index(n)); f != nil {
			return f.in("[" + strconv.Itoa(n) + "]")
		}
	}
	if array && (n < v.Len() || t.More()) {
		return fault("must have %d elements", v.Len())
	}
	t.token()
	return nil
}

func (t *tokens) dictionary(v reflect.Value) *Fault {
	if f := t.want('{'); f != nil {
		return f
	}
	t.token()
	v.Set(reflect.MakeMap(v.Type()))
	for t.More() {
		name := t.token().(string)
		k := reflect.New(v.Type().Key())
		if err := referenceKey(k, name); err != nil {
			return (&Fault{Reason: "is not an allowed name", Err: err}).in(field(name))
		}
		if v.MapIndex(k.Elem()).IsValid() {
			return fault("duplicate field").in(field(name))
		}
		value := reflect.New(v.Type().Elem()).Elem()
		if f := t.decode(value); f != nil {
			return f.in(field(name))
		}
		v.SetMapIndex(k.Elem(), value)
	}
	t.token()
	return nil
}

// referenceKey decodes the name of a member of a map into the key to which k points.
func referenceKey(k reflect.Value, name string) (err error) {
	if own, ok := k.Interface().(encoding.TextUnmarshaler); ok {
		return own.UnmarshalText([]byte(name))
	}
	if k.Elem().Kind() == reflect.String {
		k.Elem().SetString(name)
		return nil
	}
	if k.Elem().CanInt() {
		var n int64
		n, err = strconv.ParseInt(name, 10, k.Elem().Type().Bits())
		k.Elem().SetInt(n)
		return err
	}
	n, err := strconv.ParseUint(name, 10, k.Elem().Type().Bits())
	k.Elem().SetUint(n)
	return err
}

func (t *tokens) object(v reflect.Value) *Fault {
	if f := t.want('{'); f != nil {
		return f
	}
	t.token()
	seen := map[string]bool{}
	for t.More() {
		name := t.token().(string)
		unknown := fault("unknown field")
		var m *member
		for _, known := range members(v.Type()) {
			switch {
			case known.name == name:
				m = &known
			case strings.EqualFold(known.name, name):
				unknown = fault("unknown field; did you mean %s?", known.name)
			}
		}
		switch {
		case m == nil:
			return unknown.in(field(name))
		case seen[name]:
			return fault("duplicate field").in(field(name))
		}
		seen[name] = true
		decode := t.decode
		if m.quoted {
			decode = t.quoted
		}
		if f := decode(m.in(v)); f != nil {
			return f.in(field(name))
		}
	}
	t.token()
	return nil
}

// quoted decodes a value that is inside a string, for the string option of a tag.
func (t *tokens) quoted(v reflect.Value) *Fault {
	if v.Kind() == reflect.Pointer && t.kind() == 'n' {
		return t.decode(v)
	}
	if f := t.want('"'); f != nil {
		return f
	}
	inside := t.token().(string)
	if !json.Valid([]byte(inside)) || strings.TrimSpace(inside) != inside {
		return fault("must be a string that contains a value")
	}
	return newTokens([]byte(inside)).decode(v)
}
