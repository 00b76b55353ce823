package strictjson

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// fields are the members of a struct, in their order.
type fields struct {
	list   []member
	byName map[string]int
}

// find returns the index of the field with a name, or -1. next is the index of the most likely one,
// because most clients send the fields in their order.
func (f *fields) find(name []byte, next int) int {
	if next < len(f.list) && f.list[next].name == string(name) {
		return next
	}
	if i, known := f.byName[string(name)]; known {
		return i
	}
	return -1
}

func (f *fields) unknown(name string) *Fault {
	for _, known := range f.list {
		if strings.EqualFold(known.name, name) {
			return fault("unknown field; did you mean %s?", known.name).in(field(name))
		}
	}
	return fault("unknown field").in(field(name))
}

// seen is a set of indexes of fields.
type seen struct {
	first uint64
	more  []uint64 // of 64 fields each
}

// add adds an index, and reports whether it was in the set before.
func (s *seen) add(i int) (again bool) {
	word := &s.first
	if i >= 64 {
		for len(s.more) < i/64 {
			s.more = append(s.more, 0)
		}
		word = &s.more[i/64-1]
	}
	bit := uint64(1) << (i % 64)
	again = *word&bit != 0
	*word |= bit
	return again
}

func (p plans) object(t reflect.Type) (decoder, error) {
	f := fields{byName: map[string]int{}}
	for _, m := range members(t) {
		decode, err := p.of(m.typ)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", m.name, err)
		}
		m.decode = decode
		if m.quoted {
			m.decode = quoted(decode)
		}
		f.byName[m.name] = len(f.list)
		f.list = append(f.list, m)
	}
	return f.decode, nil
}

func (f *fields) decode(c *cursor, v reflect.Value) *Fault {
	if wrong := c.want('{'); wrong != nil {
		return wrong
	}
	var had seen
	i := -1
	for c.Open(); c.More(); {
		name := c.name()
		i = f.find(name, i+1)
		if i < 0 {
			return f.unknown(string(name))
		}
		m := &f.list[i]
		if had.add(i) {
			return fault("duplicate field").in(field(m.name))
		}
		if wrong := m.decode(c, m.in(v)); wrong != nil {
			return wrong.in(field(m.name))
		}
	}
	return nil
}

// quoted decodes a value that is inside a string, for the string option of a tag.
func quoted(inner decoder) decoder {
	return func(c *cursor, v reflect.Value) *Fault {
		if v.Kind() == reflect.Pointer && c.Kind() == 'n' {
			return inner(c, v)
		}
		if f := c.want('"'); f != nil {
			return f
		}
		inside := c.characters()
		if !jsvalue.Valid([]byte(inside)) || strings.TrimSpace(inside) != inside {
			return fault("must be a string that contains a value")
		}
		return inner(&cursor{Reader: jsvalue.NewReader([]byte(inside))}, v)
	}
}
