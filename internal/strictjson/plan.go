package strictjson

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
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
		return reading('"', "must be a time such as 2006-01-02T15:04:05Z"), nil
	case own.Implements(readsJSON):
		return reading(0, "is not valid"), nil
	case own.Implements(readsText):
		return text, nil
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
		return p.anything()
	case reflect.Struct:
		return p.object(t)
	case reflect.Map:
		return p.dictionary(t)
	case reflect.Slice:
		e := reflect.PointerTo(t.Elem())
		if t.Elem().Kind() == reflect.Uint8 && !e.Implements(readsJSON) && !e.Implements(readsText) {
			return reading('"', "must be bytes in base64"), nil
		}
		return p.list(t)
	case reflect.Array:
		return p.list(t)
	}
	return nil, fmt.Errorf("%v cannot be decoded from JSON", t)
}

// reading decodes a value with encoding/json and the type's own methods. If kind is not 0,
// the value must be of that kind.
func reading(kind byte, reason string) decoder {
	return func(c *cursor, v reflect.Value) *Fault {
		if kind != 0 {
			if f := c.want(kind); f != nil {
				return f
			}
		}
		if err := json.Unmarshal(c.raw(), v.Addr().Interface()); err != nil {
			return &Fault{Reason: reason, Err: err}
		}
		return nil
	}
}

func text(c *cursor, v reflect.Value) *Fault { return reading('"', "is not valid")(c, v) }

func characters(c *cursor, v reflect.Value) *Fault {
	if f := c.want('"'); f != nil {
		return f
	}
	v.SetString(c.token().(string))
	return nil
}

func boolean(c *cursor, v reflect.Value) *Fault {
	if f := c.want('t'); f != nil {
		return f
	}
	v.SetBool(c.token().(bool))
	return nil
}

func number(c *cursor, v reflect.Value) *Fault {
	if f := c.want('0'); f != nil {
		return f
	}
	v.SetString(string(c.token().(json.Number)))
	return nil
}

func integer(t reflect.Type) decoder {
	most := int64(1)<<(t.Bits()-1) - 1
	return func(c *cursor, v reflect.Value) *Fault {
		if f := c.want('0'); f != nil {
			return f
		}
		n, err := strconv.ParseInt(string(c.token().(json.Number)), 10, t.Bits())
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
		n, err := strconv.ParseUint(string(c.token().(json.Number)), 10, t.Bits())
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
		n, err := strconv.ParseFloat(string(c.token().(json.Number)), t.Bits())
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
		if c.kind() == 'n' {
			c.token()
			v.SetZero()
			return nil
		}
		target := reflect.New(t.Elem())
		v.Set(target)
		return elem(c, target.Elem())
	}, nil
}

// anything decodes as encoding/json does for an interface, but refuses duplicate names.
func (p plans) anything() (decoder, error) {
	object, err := p.of(reflect.TypeFor[map[string]any]())
	if err != nil {
		return nil, err
	}
	array, err := p.of(reflect.TypeFor[[]any]())
	if err != nil {
		return nil, err
	}
	return func(c *cursor, v reflect.Value) *Fault {
		var value any
		var f *Fault
		switch c.kind() {
		case '{':
			into := map[string]any{}
			f = object(c, reflect.ValueOf(&into).Elem())
			value = into
		case '[':
			into := []any{}
			f = array(c, reflect.ValueOf(&into).Elem())
			value = into
		case 'n':
			c.token()
			v.SetZero()
			return nil
		default:
			value = c.token()
			if n, is := value.(json.Number); is {
				var err error
				if value, err = n.Float64(); err != nil {
					f = fault("must be a number that fits in 64 bits")
				}
			}
		}
		if f == nil {
			v.Set(reflect.ValueOf(value))
		}
		return f
	}, nil
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
		c.token()
		if t.Kind() == reflect.Slice {
			v.Set(reflect.MakeSlice(t, 0, 0))
		}
		n := 0
		for ; c.tokens.More(); n++ {
			if t.Kind() == reflect.Slice {
				v.Grow(1)
				v.SetLen(n + 1)
				v.Index(n).SetZero()
			} else if n == t.Len() {
				return fault("must have %d elements", t.Len())
			}
			if f := elem(c, v.Index(n)); f != nil {
				return f.in("[" + strconv.Itoa(n) + "]")
			}
		}
		c.token()
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
		c.token()
		v.Set(reflect.MakeMap(t))
		for c.tokens.More() {
			name := c.token().(string)
			k := reflect.New(t.Key()).Elem()
			if err := key(k, name); err != nil {
				return (&Fault{Reason: "is not an allowed name", Err: err}).in(field(name))
			}
			if v.MapIndex(k).IsValid() {
				return fault("duplicate field").in(field(name))
			}
			value := reflect.New(t.Elem()).Elem()
			if f := elem(c, value); f != nil {
				return f.in(field(name))
			}
			v.SetMapIndex(k, value)
		}
		c.token()
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

func (p plans) object(t reflect.Type) (decoder, error) {
	fields := map[string]member{}
	for _, m := range members(t) {
		decode, err := p.of(m.typ)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", m.name, err)
		}
		m.decode = decode
		if m.quoted {
			m.decode = quoted(decode)
		}
		fields[m.name] = m
	}
	unknown := func(name string) *Fault {
		for known := range fields {
			if strings.EqualFold(known, name) {
				return fault("unknown field; did you mean %s?", known).in(field(name))
			}
		}
		return fault("unknown field").in(field(name))
	}
	return func(c *cursor, v reflect.Value) *Fault {
		if f := c.want('{'); f != nil {
			return f
		}
		c.token()
		seen := map[string]bool{}
		for c.tokens.More() {
			name := c.token().(string)
			m, known := fields[name]
			switch {
			case !known:
				return unknown(name)
			case seen[name]:
				return fault("duplicate field").in(field(name))
			}
			seen[name] = true
			if f := m.decode(c, m.in(v)); f != nil {
				return f.in(field(name))
			}
		}
		c.token()
		return nil
	}, nil
}

// quoted decodes a value that is inside a string, for the string option of a tag.
func quoted(inner decoder) decoder {
	return func(c *cursor, v reflect.Value) *Fault {
		if v.Kind() == reflect.Pointer && c.kind() == 'n' {
			return inner(c, v)
		}
		if f := c.want('"'); f != nil {
			return f
		}
		inside := c.token().(string)
		if !json.Valid([]byte(inside)) || strings.TrimSpace(inside) != inside {
			return fault("must be a string that contains a value")
		}
		return inner(newCursor([]byte(inside)), v)
	}
}
