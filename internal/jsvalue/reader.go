package jsvalue

// Valid reports whether text is exactly one JSON value with a depth of at most 10,000. As
// encoding/json does, it accepts strings that are not UTF-8.
func Valid(text []byte) bool {
	c := compactor{scanner: newScanner(text, Limits{}), quiet: true}
	c.blanks()
	return c.value(1) == nil && c.end() == nil
}

// A Reader reads a valid JSON text from its start to its end, each byte once. Its methods panic
// if the text is not valid, or if the next value is of another kind.
type Reader struct{ s scanner }

// NewReader returns a Reader of a JSON text that is known to be valid.
func NewReader(valid []byte) Reader { return Reader{newScanner(valid, Limits{})} }

// Kind returns the Kind of the next value.
func (r *Reader) Kind() byte {
	r.s.blanks()
	c := r.s.peek()
	if c == '-' || c-'0' <= 9 {
		return '0'
	}
	return c
}

// Open reads the opening bracket of an object or array. More is called next.
func (r *Reader) Open() {
	r.s.blanks()
	r.s.pos++
}

// More reports whether the object or array has another member or element, which is to be read
// next. If it has not, More reads its closing bracket.
func (r *Reader) More() bool {
	r.s.blanks()
	switch r.s.peek() {
	case ',':
		r.s.pos++
		return true
	case '}', ']':
		r.s.pos++
		return false
	}
	return true
}

// String is a JSON string of a text.
type String struct {
	Body    []byte // the part of the text between the quotes
	Escaped bool   // Body contains escapes
	Broken  bool   // Body contains invalid UTF-8
}

// Append appends the value of the string, with U+FFFD for lone surrogates and invalid UTF-8.
func (s String) Append(dst []byte) []byte {
	if !s.Escaped && !s.Broken {
		return append(dst, s.Body...)
	}
	return appendText(dst, s.Body)
}

// InPlace returns the value of the string as Append does. It overwrites Body if that has escapes.
func (s String) InPlace() []byte {
	switch {
	case s.Broken:
		return appendText(nil, s.Body)
	case s.Escaped:
		return appendText(s.Body[:0], s.Body)
	}
	return s.Body
}

// String reads a string.
func (r *Reader) String() String {
	r.s.blanks()
	t, err := r.s.str()
	r.must(err)
	return String{
		Body:    r.s.src[t.start:t.end],
		Escaped: t.escaped,
		Broken:  t.broken,
	}
}

// Name reads the name of a member and the colon after it. The value is to be read next.
func (r *Reader) Name() String {
	name := r.String()
	r.s.blanks()
	r.s.pos++
	return name
}

// Raw reads any value and returns it as it is in the text, without the whitespace around it.
func (r *Reader) Raw() []byte {
	r.s.blanks()
	from := r.s.pos
	depth := 0
	for {
		switch c := r.s.peek(); c {
		case '{', '[':
			depth++
			r.s.pos++
		case '}', ']':
			depth--
			r.s.pos++
		case '"':
			_, err := r.s.str()
			r.must(err)
		case ',', ':', ' ', '\t', '\n', '\r':
			r.s.pos++
		case 't':
			r.must(r.s.literal("true"))
		case 'f':
			r.must(r.s.literal("false"))
		case 'n':
			r.must(r.s.literal("null"))
		default:
			r.must(r.s.number())
		}
		if depth == 0 {
			return r.s.src[from:r.s.pos]
		}
	}
}

// Rest returns the part of the text that has not been read.
func (r *Reader) Rest() []byte { return r.s.src[r.s.pos:] }

func (r *Reader) must(err error) {
	if err != nil {
		panic("jsvalue: a Reader of a text that is not valid: " + err.Error())
	}
}
