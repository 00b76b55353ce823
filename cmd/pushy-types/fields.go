package main

import (
	"cmp"
	"go/types"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// field is a field of a JSON object.
type field struct {
	name     string
	v        *types.Var
	optional bool // it is absent if its value is empty
	quoted   bool // it is a string that contains the number or boolean
	nonnil   bool
	tagged   bool
	index    []int // the way to the field, through the embedded structs
}

// level is an embedded struct, or the struct itself.
type level struct {
	t        *types.Struct
	key      string
	index    []int
	optional bool // a nil pointer omits its fields
}

// fieldsOf returns the fields that encoding/json writes for a struct, in the order of the source. It follows the rules
// of encoding/json for embedded structs, level by level: of several fields with one name, the least nested one counts;
// on one level, the one with a tag; and if that is not decided, none.
func fieldsOf(t *types.Struct) []field {
	var (
		all     []field
		visited = map[string]bool{}
		now     []level
		next    = []level{{t: t, key: t.String()}}
		count   map[string]int
		counted = map[string]int{}
	)
	for len(next) > 0 {
		now, next = next, nil
		count, counted = counted, map[string]int{}
		for _, l := range now {
			if visited[l.key] {
				continue
			}
			visited[l.key] = true
			for i := range l.t.NumFields() {
				f, embedded, ok := read(l, i)
				if !ok {
					continue
				}
				if embedded == nil {
					all = append(all, f)
					if count[l.key] > 1 {
						all = append(all, f) // this struct is embedded twice on the level: both are ambiguous
					}
					continue
				}
				if counted[embedded.key]++; counted[embedded.key] == 1 {
					next = append(next, *embedded)
				}
			}
		}
	}
	return dominant(all)
}

// read returns a field of a struct, or the embedded struct that it is.
func read(l level, i int) (f field, embedded *level, ok bool) {
	v, tag := l.t.Field(i), reflect.StructTag(l.t.Tag(i))
	text := tag.Get("json")
	inner := v.Type()
	if p, isPointer := types.Unalias(inner).(*types.Pointer); isPointer {
		inner = p.Elem()
	}
	nested, isStruct := inner.Underlying().(*types.Struct)
	if text == "-" || !v.Exported() && !(v.Embedded() && isStruct) {
		return field{}, nil, false
	}
	name, rest, _ := strings.Cut(text, ",")
	options := strings.Split(rest, ",")
	if !valid(name) {
		name = ""
	}
	index := append(slices.Clone(l.index), i)
	if v.Embedded() && name == "" && isStruct {
		_, pointer := types.Unalias(v.Type()).(*types.Pointer)
		return field{}, &level{t: nested, key: inner.String(), index: index, optional: l.optional || pointer}, true
	}
	omitted := slices.Contains(options, "omitzero") || slices.Contains(options, "omitempty") && canBeEmpty(v.Type())
	f = field{
		name:     cmp.Or(name, v.Name()),
		v:        v,
		optional: l.optional || omitted,
		quoted:   slices.Contains(options, "string") && quotable(inner),
		nonnil:   tag.Get("pushy") == "nonnil",
		tagged:   name != "",
		index:    index,
	}
	return f, nil, true
}

// valid reports whether encoding/json accepts a name in a tag.
func valid(name string) bool {
	for _, c := range name {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return name != ""
}

// canBeEmpty reports whether omitempty has an effect.
func canBeEmpty(t types.Type) bool {
	switch t := t.Underlying().(type) {
	case *types.Struct:
		return false
	case *types.Array:
		return t.Len() == 0
	}
	return true
}

func quotable(t types.Type) bool {
	basic, ok := t.Underlying().(*types.Basic)
	return ok && basic.Info()&(types.IsBoolean|types.IsInteger|types.IsFloat|types.IsString) != 0
}

// dominant removes the fields that are hidden by others, and returns the rest in the order of the source.
func dominant(all []field) []field {
	slices.SortStableFunc(all, func(a, b field) int {
		return cmp.Or(
			strings.Compare(a.name, b.name),
			cmp.Compare(len(a.index), len(b.index)),
			compareBool(b.tagged, a.tagged),
		)
	})
	var kept []field
	for len(all) > 0 {
		first := all[0]
		n := 1
		for n < len(all) && all[n].name == first.name {
			n++
		}
		if n == 1 || len(all[1].index) != len(first.index) || all[1].tagged != first.tagged {
			kept = append(kept, first)
		}
		all = all[n:]
	}
	slices.SortFunc(kept, func(a, b field) int { return slices.Compare(a.index, b.index) })
	return kept
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
