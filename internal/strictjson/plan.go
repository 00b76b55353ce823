package strictjson

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// decoder decodes the next value into v, which must be settable.
type decoder func(c *cursor, v reflect.Value) *Fault

// plans has the decoders that were made so far, by type. A type can contain itself.
type plans map[reflect.Type]*decoder

var (
	readsJSON  = reflect.TypeFor[json.Unmarshaler]()
	readsText  = reflect.TypeFor[encoding.TextUnmarshaler]()
	numberType = reflect.TypeFor[json.Number]()
	rawType    = reflect.TypeFor[json.RawMessage]()
	timeType   = reflect.TypeFor[time.Time]()
)

func (p plans) of(t reflect.Type) (decoder, error) {
	if made := p[t]; made != nil {
		// The decoder of a recursive type is not complete yet, so it is read when it runs.
		return func(c *cursor, v reflect.Value) *Fault { return (*made)(c, v) }, nil
	}
	made := new(decoder)
	p[t] = made
	var err error
	*made, err = p.make(t)
	return *made, err
}

func (p plans) make(t reflect.Type) (decoder, error) {
	own := reflect.PointerTo(t)
	switch {
	case t.Kind() == reflect.Pointer:
		return p.pointer(t)
	case t == timeType:
		return instant, nil
	case t == rawType:
		return raw, nil
	case own.Implements(readsJSON):
		return ownJSON, nil
	case own.Implements(readsText):
		return ownText, nil
	case t == numberType:
		return number, nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return boolean, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return integer(t), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return unsigned(t), nil
	case reflect.Float32, reflect.Float64:
		return float(t), nil
	case reflect.String:
		return characters, nil
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return nil, fmt.Errorf("%v has methods: the type to decode into is not known", t)
		}
		return anything, nil
	case reflect.Struct:
		return p.object(t)
	case reflect.Map:
		return p.dictionary(t)
	case reflect.Slice:
		e := reflect.PointerTo(t.Elem())
		if t.Elem().Kind() == reflect.Uint8 && !e.Implements(readsJSON) && !e.Implements(readsText) {
			return octets, nil
		}
		return p.list(t)
	case reflect.Array:
		return p.list(t)
	}
	return nil, fmt.Errorf("%v cannot be decoded from JSON", t)
}

func instant(c *cursor, v reflect.Value) *Fault {
	if f := c.want('"'); f != nil {
		return f
	}
	if err := v.Addr().Interface().(*time.Time).UnmarshalJSON(c.Raw()); err != nil {
		return &Fault{Reason: "must be a time such as 2006-01-02T15:04:05Z", Err: err}
	}
	return nil
}

func raw(c *cursor, v reflect.Value) *Fault {
	v.SetBytes(bytes.Clone(c.Raw()))
	return nil
}

// ownJSON decodes a value with the type's own UnmarshalJSON, which gets a copy that it can keep.
func ownJSON(c *cursor, v reflect.Value) *Fault {
	value := bytes.Clone(c.Raw())
	if err := v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(value); err != nil {
		return &Fault{Reason: "is not valid", Err: err}
	}
	return nil
}

// ownText decodes a string with the type's own UnmarshalText, which gets a copy that it can keep.
func ownText(c *cursor, v reflect.Value) *Fault {
	if f := c.want('"'); f != nil {
		return f
	}
	value := appendString(nil, c.String())
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText(value); err != nil {
		return &Fault{Reason: "is not valid", Err: err}
	}
	return nil
}

func octets(c *cursor, v reflect.Value) *Fault {
	if f := c.want('"'); f != nil {
		return f
	}
	value, err := base64.StdEncoding.DecodeString(c.characters())
	if err != nil {
		return &Fault{Reason: "must be bytes in base64", Err: err}
	}
	v.SetBytes(value)
	return nil
}

func characters(c *cursor, v reflect.Value) *Fault {
	if f := c.want('"'); f != nil {
		return f
	}
	v.SetString(c.characters())
	return nil
}

func boolean(c *cursor, v reflect.Value) *Fault {
	if f := c.want('t'); f != nil {
		return f
	}
	v.SetBool(c.Raw()[0] == 't')
	return nil
}

func number(c *cursor, v reflect.Value) *Fault {
	if f := c.want('0'); f != nil {
		return f
	}
	v.SetString(string(c.Raw()))
	return nil
}

func integer(t reflect.Type) decoder {
	most := int64(1)<<(t.Bits()-1) - 1
	return func(c *cursor, v reflect.Value) *Fault {
		if f := c.want('0'); f != nil {
			return f
		}
		n, err := strconv.ParseInt(string(c.Raw()), 10, t.Bits())
		if err != nil {
			return fault("must be a whole number from %d to %d", -most-1, most)
		}
		v.SetInt(n)
		return nil
	}
}

func unsigned(t reflect.Type) decoder {
	most := ^uint64(0) >> (64 - t.Bits())
	return func(c *cursor, v reflect.Value) *Fault {
		if f := c.want('0'); f != nil {
			return f
		}
		n, err := strconv.ParseUint(string(c.Raw()), 10, t.Bits())
		if err != nil {
			return fault("must be a whole number from 0 to %d", most)
		}
		v.SetUint(n)
		return nil
	}
}

func float(t reflect.Type) decoder {
	return func(c *cursor, v reflect.Value) *Fault {
		if f := c.want('0'); f != nil {
			return f
		}
		n, err := strconv.ParseFloat(string(c.Raw()), t.Bits())
		if err != nil {
			return fault("must be a number that fits in %d bits", t.Bits())
		}
		v.SetFloat(n)
		return nil
	}
}

func (p plans) pointer(t reflect.Type) (decoder, error) {
	elem, err := p.of(t.Elem())
	if err != nil {
		return nil, err
	}
	return func(c *cursor, v reflect.Value) *Fault {
		if c.Kind() == 'n' {
			c.Raw()
			v.SetZero()
			return nil
		}
		target := reflect.New(t.Elem())
		v.Set(target)
		return elem(c, target.Elem())
	}, nil
}

func anything(c *cursor, v reflect.Value) *Fault {
	value, f := c.anything()
	switch {
	case f != nil:
		return f
	case value == nil:
		v.SetZero()
	default:
		v.Set(reflect.ValueOf(value))
	}
	return nil
}

// anything returns the next value as encoding/json decodes it for an interface, but refuses
// duplicate names.
func (c *cursor) anything() (any, *Fault) {
	switch c.Kind() {
	case '{':
		return c.dictionary()
	case '[':
		return c.list()
	case '"':
		return c.characters(), nil
	case '0':
		n, err := strconv.ParseFloat(string(c.Raw()), 64)
		if err != nil {
			return nil, fault("must be a number that fits in 64 bits")
		}
		return n, nil
	}
	switch c.Raw()[0] {
	case 't':
		return true, nil
	case 'f':
		return false, nil
	}
	return nil, nil
}

func (c *cursor) dictionary() (map[string]any, *Fault) {
	values := map[string]any{}
	for c.Open(); c.More(); {
		name := string(c.name())
		if _, duplicate := values[name]; duplicate {
			return nil, fault("duplicate field").in(field(name))
		}
		value, f := c.anything()
		if f != nil {
			return nil, f.in(field(name))
		}
		values[name] = value
	}
	return values, nil
}

func (c *cursor) list() ([]any, *Fault) {
	values := []any{}
	for c.Open(); c.More(); {
		value, f := c.anything()
		if f != nil {
			return nil, f.in(element(len(values)))
		}
		values = append(values, value)
	}
	return values, nil
}

func (p plans) list(t reflect.Type) (decoder, error) {
	elem, err := p.of(t.Elem())
	if err != nil {
		return nil, err
	}
	return func(c *cursor, v reflect.Value) *Fault {
		if f := c.want('['); f != nil {
			return f
		}
		if t.Kind() == reflect.Slice {
			v.Set(reflect.MakeSlice(t, 0, 0))
		}
		n := 0
		for c.Open(); c.More(); n++ {
			if t.Kind() == reflect.Slice {
				v.Grow(1)
				v.SetLen(n + 1)
				v.Index(n).SetZero()
			} else if n == t.Len() {
				return fault("must have %d elements", t.Len())
			}
			if f := elem(c, v.Index(n)); f != nil {
				return f.in(element(n))
			}
		}
		if t.Kind() == reflect.Array && n < t.Len() {
			return fault("must have %d elements", t.Len())
		}
		return nil
	}, nil
}

func (p plans) dictionary(t reflect.Type) (decoder, error) {
	key, err := keys(t.Key())
	if err != nil {
		return nil, err
	}
	elem, err := p.of(t.Elem())
	if err != nil {
		return nil, err
	}
	return func(c *cursor, v reflect.Value) *Fault {
		if f := c.want('{'); f != nil {
			return f
		}
		v.Set(reflect.MakeMap(t))
		k := reflect.New(t.Key()).Elem()
		value := reflect.New(t.Elem()).Elem()
		for c.Open(); c.More(); {
			name := string(c.name())
			k.SetZero()
			if err := key(k, name); err != nil {
				return (&Fault{Reason: "is not an allowed name", Err: err}).in(field(name))
			}
			if v.MapIndex(k).IsValid() {
				return fault("duplicate field").in(field(name))
			}
			value.SetZero()
			if f := elem(c, value); f != nil {
				return f.in(field(name))
			}
			v.SetMapIndex(k, value)
		}
		return nil
	}, nil
}

// keys returns a function that decodes the names of the members of a map.
func keys(t reflect.Type) (func(k reflect.Value, name string) error, error) {
	switch {
	case t.Kind() == reflect.String && !reflect.PointerTo(t).Implements(readsText):
		return func(k reflect.Value, name string) error { k.SetString(name); return nil }, nil
	case reflect.PointerTo(t).Implements(readsText):
		return func(k reflect.Value, name string) error {
			return k.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(name))
		}, nil
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(k reflect.Value, name string) error {
			n, err := strconv.ParseInt(name, 10, t.Bits())
			k.SetInt(n)
			return err
		}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return func(k reflect.Value, name string) error {
			n, err := strconv.ParseUint(name, 10, t.Bits())
			k.SetUint(n)
			return err
		}, nil
	}
	return nil, fmt.Errorf("%v cannot be the name of a member", t)
}
