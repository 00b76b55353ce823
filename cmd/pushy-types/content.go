package main

import (
	"fmt"
	"go/token"
	"go/types"
	"strings"
)

// content returns the TypeScript type of what encoding/json writes for a type, without the null of a nil value.
// path and pos name the field in errors.
func (d *declarations) content(t types.Type, path string, pos token.Pos) string {
	t = types.Unalias(t)
	if named, ok := t.(*types.Named); ok {
		return d.ofNamed(named, path, pos)
	}
	switch t := t.(type) {
	case *types.Basic:
		return d.basic(t, path, pos)
	case *types.Pointer:
		return d.nilable(t.Elem(), path, pos, "")
	case *types.Slice:
		if isByte(t.Elem()) {
			return "string" // in base64
		}
		return d.nilable(t.Elem(), path+"[]", pos, "[]")
	case *types.Array:
		return d.nilable(t.Elem(), path+"[]", pos, "[]")
	case *types.Map:
		if !d.isKey(t.Key()) {
			d.fail(pos, path, "the keys of a map must be strings, integers, or have MarshalText, not "+d.short(t.Key()))
		}
		return "{ [key: string]: " + d.nilable(t.Elem(), path+"[]", pos, "") + " }"
	case *types.Struct:
		// An embedded field can bring a method along.
		if types.Implements(t, jsonMarshaler) || types.Implements(t, textMarshaler) {
			d.fail(pos, path, "the struct "+unknown)
			return "never"
		}
		return d.inline(t, path, pos)
	}
	d.fail(pos, path, fmt.Sprintf("%s cannot be declared: %s", d.short(t), allowed))
	return "never"
}

const (
	allowed = "data are structs, slices, maps, strings, numbers, booleans, times, and types with MarshalText"
	unknown = "has a MarshalJSON or MarshalText, and pushy-types cannot know what it writes"
)

// ofNamed returns the name of a type's declaration, or what it is if it needs none.
func (d *declarations) ofNamed(t *types.Named, path string, pos token.Pos) string {
	if text, ok := d.textual(t); ok {
		if text == "" {
			d.fail(pos, path, d.short(t)+" "+unknown)
			return "never"
		}
		return text
	}
	object := t.Obj()
	if object.Pkg() != nil && object.Pkg().Path() == "time" && object.Name() == "Duration" {
		return "number"
	}
	if object.Pkg() != nil && object.Pkg().Path() == "encoding/json" && object.Name() == "Number" {
		return "number"
	}
	switch t.Underlying().(type) {
	case *types.Interface, *types.Signature, *types.Chan:
		d.fail(pos, path, fmt.Sprintf("%s cannot be declared: %s", d.short(t), allowed))
		return "never"
	}
	d.add(t)
	return d.name(t)
}

// textual reports whether a type has methods that encode it, and what they write: "" if that is not known.
func (d *declarations) textual(t *types.Named) (string, bool) {
	if object := t.Obj(); object.Pkg() != nil && object.Pkg().Path() == "time" && object.Name() == "Time" {
		return "string", true
	}
	// A method of the pointer is called or not, depending on whether the value is addressable.
	if types.Implements(t, jsonMarshaler) || types.Implements(types.NewPointer(t), jsonMarshaler) {
		return "", true
	}
	if types.Implements(t, textMarshaler) {
		return "string", true
	}
	if types.Implements(types.NewPointer(t), textMarshaler) {
		return "", true
	}
	return "", false
}

var (
	jsonMarshaler = marshaler("MarshalJSON")
	textMarshaler = marshaler("MarshalText")
)

// marshaler returns the interface with a method name() ([]byte, error).
func marshaler(name string) *types.Interface {
	results := types.NewTuple(
		types.NewVar(token.NoPos, nil, "", types.NewSlice(types.Typ[types.Byte])),
		types.NewVar(token.NoPos, nil, "", types.Universe.Lookup("error").Type()),
	)
	method := types.NewFunc(token.NoPos, nil, name, types.NewSignatureType(nil, nil, nil, nil, results, false))
	return types.NewInterfaceType([]*types.Func{method}, nil).Complete()
}

func (d *declarations) basic(t *types.Basic, path string, pos token.Pos) string {
	switch info := t.Info(); {
	case info&types.IsBoolean != 0:
		return "boolean"
	case info&types.IsString != 0:
		return "string"
	case info&(types.IsInteger|types.IsFloat) != 0:
		return "number"
	}
	d.fail(pos, path, fmt.Sprintf("%s cannot be declared: %s", d.short(t), allowed))
	return "never"
}

// nilable returns the type of an element, with null if it can be nil, and a suffix.
func (d *declarations) nilable(t types.Type, path string, pos token.Pos, suffix string) string {
	text := d.content(t, path, pos)
	if nilable(t) && !isText(t) {
		text = orNull(text)
	}
	if suffix != "" && strings.HasSuffix(text, " | null") {
		return "(" + text + ")" + suffix
	}
	return text + suffix
}

func orNull(text string) string { return strings.TrimSuffix(text, " | null") + " | null" }

// inline returns a struct without a name.
func (d *declarations) inline(s *types.Struct, path string, pos token.Pos) string {
	lines := strings.Split(strings.TrimSuffix(d.fields(s, path, false, ""), "\n"), "\n")
	if lines[0] == "" {
		return "{ [key: string]: never }"
	}
	return "{ " + strings.TrimSuffix(strings.Join(lines, " "), ";") + " }"
}

// nilable reports whether encoding/json can write null for a type.
func nilable(t types.Type) bool {
	switch t.Underlying().(type) {
	case *types.Pointer, *types.Slice, *types.Map:
		return true
	}
	return false
}

// isText reports whether a slice or map has a MarshalText, which is called for nil, too.
func isText(t types.Type) bool {
	named, ok := types.Unalias(t).(*types.Named)
	return ok && types.Implements(named, textMarshaler)
}

// isByte reports whether a slice of a type is written in base64.
func isByte(t types.Type) bool {
	basic, ok := t.Underlying().(*types.Basic)
	if !ok || basic.Kind() != types.Byte {
		return false
	}
	named, ok := types.Unalias(t).(*types.Named)
	if !ok {
		return true
	}
	pointer := types.NewPointer(named)
	return !types.Implements(pointer, jsonMarshaler) && !types.Implements(pointer, textMarshaler)
}

func (d *declarations) isKey(t types.Type) bool {
	if basic, ok := t.Underlying().(*types.Basic); ok && basic.Info()&(types.IsString|types.IsInteger) != 0 {
		return true
	}
	return types.Implements(t, textMarshaler)
}
