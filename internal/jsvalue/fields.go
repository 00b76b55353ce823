package jsvalue

// Fields calls each for every member of the JSON object src, in order. It includes duplicate
// names, of which the last must be used. The name is unescaped, with U+FFFD for lone
// surrogates and invalid UTF-8, and valid only during the call. The value is the part of src
// without the whitespace around it. If src is not exactly one JSON object with a depth of at
// most 10,000, the error has the position, and each may have been called for the members
// before it. Fields allocates only for names with escapes or invalid UTF-8.
func Fields(src []byte, each func(name, value []byte)) error {
	return members(src, func(t text, value []byte) {
		name := src[t.start:t.end]
		if t.escaped || t.broken {
			name = appendText(nil, name)
		}
		each(name, value)
	})
}

func members(src []byte, each func(name text, value []byte)) error {
	c := compactor{scanner: newScanner(src, Limits{}), quiet: true}
	c.blanks()
	if c.peek() != '{' {
		return c.fail("an object")
	}
	if err := c.object(1, each); err != nil {
		return err
	}
	return c.end()
}

// Field is a member to set: its name, and its value as JSON.
type Field struct {
	Name  string
	Value []byte
}

// SetFields appends the JSON object with up to 64 fields set and returns the extended slice.
// If the object has a member with the name of a field, its value is replaced in place; the
// other fields follow at the end, in the given order. The other members are copied without
// changes, so object should be in canonical form. After an error, which means that it is not
// an object, the slice is dst without changes.
func SetFields(dst, object []byte, fields ...Field) ([]byte, error) {
	out := append(dst, '{')
	var set uint64
	err := members(object, func(name text, value []byte) {
		raw := object[name.start:name.end]
		for i, f := range fields {
			if string(raw) == f.Name || name.escaped && string(appendText(nil, raw)) == f.Name {
				value = f.Value
				set |= 1 << i
			}
		}
		out = append(comma(out), object[name.start-1:name.end+1]...)
		out = append(out, ':')
		out = append(out, value...)
	})
	if err != nil {
		return dst, err
	}
	for i, f := range fields {
		if set&(1<<i) == 0 {
			out = AppendQuote(comma(out), f.Name)
			out = append(out, ':')
			out = append(out, f.Value...)
		}
	}
	return append(out, '}'), nil
}

// comma appends a comma if the object has a member.
func comma(object []byte) []byte {
	if object[len(object)-1] == '{' {
		return object
	}
	return append(object, ',')
}
