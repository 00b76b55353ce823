package jsvalue

// Fields calls each for every member of the JSON object src, in the order
// sent, repeated names too: the last one counts. The name is unescaped, lone
// surrogates and invalid UTF-8 as U+FFFD, and good only during the call; the
// value is the raw part of src between the blanks. If src is not exactly one
// JSON object, no deeper than 10,000, the error says where, and each may have
// been called for what stands before that. It allocates for escaped names only.
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

// Field is a member to set: its name as plain text, its value as raw JSON.
type Field struct {
	Name  string
	Value []byte
}

// SetFields appends the JSON object with up to 64 fields set and returns the
// extended slice: where the object has a field's name the value is replaced
// in place, the others follow in the order given. The object should be in
// canonical form: its other members are copied as they stand. If it is not an
// object, the slice is dst as it was.
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

// comma separates a member from one before it.
func comma(object []byte) []byte {
	if object[len(object)-1] == '{' {
		return object
	}
	return append(object, ',')
}
