package jsvalue

import "unicode/utf8"

// Compact appends the JSON text src without whitespace and returns the extended slice. Order,
// duplicate names, the form of numbers and escapes do not change; a number that is infinite
// as a double becomes null, and invalid UTF-8 becomes U+FFFD. After an error, which is a
// *SyntaxError or a *LimitError, the slice is dst without changes.
func Compact(dst, src []byte, lim Limits) ([]byte, error) {
	c := compactor{scanner: newScanner(src, lim), dst: dst}
	c.dropBlanks()
	if err := c.value(1); err != nil {
		return dst, err
	}
	c.dropBlanks()
	if err := c.end(); err != nil {
		return dst, err
	}
	c.replace(c.pos, nil)
	return c.dst, nil
}

// Compacted is Compact for untrusted input: it requires valid UTF-8. It returns src itself,
// without a copy, if there is nothing to change.
func Compacted(src []byte, lim Limits) ([]byte, error) {
	if !utf8.Valid(src) {
		return nil, &SyntaxError{Offset: validLen(src), Msg: "invalid UTF-8"}
	}
	c := compactor{scanner: newScanner(src, lim)}
	changed, err := c.text()
	switch {
	case err != nil:
		return nil, err
	case changed:
		return c.dst, nil
	}
	return src, nil
}

// compactor copies the longest possible runs: src[:kept] is done, and src[kept:pos] is still
// to be copied. So a text that is already compact is copied in one step.
type compactor struct {
	scanner
	dst   []byte
	kept  int
	quiet bool // validate only, do not write
}

// text compacts the whole text. If it is compact already, it writes nothing and reports false.
func (c *compactor) text() (changed bool, err error) {
	c.dropBlanks()
	if err := c.value(1); err != nil {
		return false, err
	}
	c.dropBlanks()
	if err := c.end(); err != nil {
		return false, err
	}
	if c.kept == 0 {
		return false, nil
	}
	c.replace(c.pos, nil)
	return true, nil
}

// replace copies src up to from, and then appends with instead of src[from:pos].
func (c *compactor) replace(from int, with []byte) {
	if c.quiet {
		return
	}
	c.dst = append(c.dst, c.src[c.kept:from]...)
	c.dst = append(c.dst, with...)
	c.kept = c.pos
}

func (c *compactor) dropBlanks() {
	if c.peek() > ' ' {
		return
	}
	from := c.pos
	c.blanks()
	if c.pos > from {
		c.replace(from, nil)
	}
}

func (c *compactor) value(depth int) error {
	if err := c.count(); err != nil {
		return err
	}
	switch b := c.peek(); b {
	case '"':
		_, err := c.str()
		return err
	case '{':
		return c.object(depth, nil)
	case '[':
		return c.array(depth)
	case 't':
		return c.literal("true")
	case 'f':
		return c.literal("false")
	case 'n':
		return c.literal("null")
	default:
		if b != '-' && b-'0' > 9 {
			return c.fail("a value")
		}
		from := c.pos
		if err := c.number(); err != nil {
			return err
		}
		if infinite(c.src[from:c.pos]) {
			c.replace(from, []byte("null"))
		}
		return nil
	}
}

func (c *compactor) str() (text, error) {
	t, err := c.scanner.str()
	if err != nil || !t.broken || c.quiet {
		return t, err
	}
	c.replace(t.start, nil)
	c.dst = AppendValid(c.dst, c.src[t.start:t.end])
	c.kept = t.end
	return t, nil
}

// object calls each for every member, unless each is nil.
func (c *compactor) object(depth int, each func(name text, value []byte)) error {
	if err := c.enter(depth); err != nil {
		return err
	}
	c.pos++
	c.dropBlanks()
	if c.peek() == '}' {
		c.pos++
		return nil
	}
	for {
		name, err := c.str()
		if err != nil {
			return err
		}
		c.dropBlanks()
		if c.peek() != ':' {
			return c.fail("':'")
		}
		c.pos++
		c.dropBlanks()
		from := c.pos
		if err := c.value(depth + 1); err != nil {
			return err
		}
		if each != nil {
			each(name, c.src[from:c.pos])
		}
		c.dropBlanks()
		switch c.peek() {
		case ',':
			c.pos++
			c.dropBlanks()
		case '}':
			c.pos++
			return nil
		default:
			return c.fail("',' or '}'")
		}
	}
}

func (c *compactor) array(depth int) error {
	if err := c.enter(depth); err != nil {
		return err
	}
	c.pos++
	c.dropBlanks()
	if c.peek() == ']' {
		c.pos++
		return nil
	}
	for {
		if err := c.value(depth + 1); err != nil {
			return err
		}
		c.dropBlanks()
		switch c.peek() {
		case ',':
			c.pos++
			c.dropBlanks()
		case ']':
			c.pos++
			return nil
		default:
			return c.fail("',' or ']'")
		}
	}
}
