package strictjson

import (
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// member is a field of a struct, or of a struct that is embedded in it, with its JSON name.
type member struct {
	name   string
	typ    reflect.Type
	index  []int // from the outermost struct
	tagged bool  // the name comes from a tag
	quoted bool  // the tag's string option
	decode decoder
}

// in returns the member of v. It allocates embedded structs on the path to the member.
func (m *member) in(v reflect.Value) reflect.Value {
	for i, at := range m.index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(at)
	}
	return v
}

// members returns the fields of t that have a JSON name. If several fields have the same name
// because of embedding, the least deep one is used, then the one with a tag; if there are
// still several, none is.
func members(t reflect.Type) []member {
	type embedded struct {
		typ   reflect.Type
		index []int
	}
	var all []member
	taken := map[string]bool{}
	visited := map[reflect.Type]bool{}
	for level := []embedded{{typ: t}}; len(level) > 0; {
		var next []embedded
		var here []member
		for _, e := range level {
			if visited[e.typ] {
				continue
			}
			for i := range e.typ.NumField() {
				f := e.typ.Field(i)
				name, option, skip := tag(f)
				index := append(slices.Clone(e.index), i)
				inner := f.Type
				if inner.Kind() == reflect.Pointer {
					inner = inner.Elem()
				}
				switch {
				case skip:
				case f.Anonymous && name == "" && inner.Kind() == reflect.Struct:
					// A pointer to a struct that is not exported cannot be set.
					if f.IsExported() || f.Type.Kind() != reflect.Pointer {
						next = append(next, embedded{inner, index})
					}
				case f.IsExported():
					m := member{
						name:   name,
						typ:    f.Type,
						index:  index,
						tagged: name != "",
						quoted: option && quotable(inner),
					}
					if name == "" {
						m.name = f.Name
					}
					here = append(here, m)
				}
			}
		}
		for _, e := range level {
			visited[e.typ] = true
		}
		for _, m := range here {
			if !taken[m.name] && m.dominates(here) {
				all = append(all, m)
			}
		}
		for _, m := range here {
			taken[m.name] = true
		}
		level = next
	}
	return all
}

// dominates reports whether m is the field to use among the fields of the same depth.
func (m member) dominates(equals []member) bool {
	for _, other := range equals {
		if other.name == m.name && !slices.Equal(other.index, m.index) && (other.tagged || !m.tagged) {
			return false
		}
	}
	return true
}

// tag parses the json tag of a field. name is "" if the tag has none. quoted reports whether
// the tag has the string option, and skip whether it excludes the field.
func tag(f reflect.StructField) (name string, quoted, skip bool) {
	text := f.Tag.Get("json")
	if text == "-" {
		return "", false, true
	}
	name, options, _ := strings.Cut(text, ",")
	for _, c := range name {
		if !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) {
			name = ""
			break
		}
	}
	return name, slices.Contains(strings.Split(options, ","), "string"), false
}

func quotable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	}
	return false
}
