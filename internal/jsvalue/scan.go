package jsvalue

import (
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// scanner scans the tokens of src. Every method that scans something expects pos at its first
// byte and leaves pos after its last byte.
type scanner struct {
	src    []byte
	pos    int
	lim    Limits
	values int
}

func newScanner(src []byte, lim Limits) scanner {
	if lim.Depth <= 0 || lim.Depth > maxDepth {
		lim.Depth = maxDepth
	}
	return scanner{src: src, lim: lim}
}

// The classes of the bytes of a string. Zero is the class of bytes without a special meaning.
const (
	byteQuote = iota + 1
	byteEscape
	byteControl
	byteHigh
)

var byteClass = func() (t [256]uint8) {
	for c := range 0x20 {
		t[c] = byteControl
	}
	for c := 0x80; c < 0x100; c++ {
		t[c] = byteHigh
	}
	t['"'], t['\\'] = byteQuote, byteEscape
	return t
}()

// peek returns the next byte, or 0 at the end. No token starts with 0.
func (s *scanner) peek() byte {
	if s.pos < len(s.src) {
		return s.src[s.pos]
	}
	return 0
}

func (s *scanner) blanks() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// fail returns the error that the byte at pos, or the end of the text, is not what.
func (s *scanner) fail(what string) error {
	if s.pos >= len(s.src) {
		return &SyntaxError{s.pos, "unexpected end, expected " + what}
	}
	c := s.src[s.pos]
	if c < ' ' || c > '~' {
		return &SyntaxError{s.pos, fmt.Sprintf("unexpected byte 0x%02x, expected %s", c, what)}
	}
	return &SyntaxError{s.pos, fmt.Sprintf("unexpected %q, expected %s", c, what)}
}

// count counts a value. It is called once for each value.
func (s *scanner) count() error {
	s.values++
	if s.lim.Values > 0 && s.values > s.lim.Values {
		return &LimitError{s.pos, "values", s.lim.Values}
	}
	return nil
}

// enter checks the depth of an array or object. It is called for each of them; the outermost
// one has the depth 1.
func (s *scanner) enter(depth int) error {
	if depth > s.lim.Depth {
		return &LimitError{s.pos, "depth", s.lim.Depth}
	}
	return nil
}

// text is a scanned string: src[start:end] is the part between the quotes. If it is neither
// escaped nor broken, this part is its value.
type text struct {
	start, end int
	escaped    bool // it contains a backslash
	broken     bool // it contains invalid UTF-8
}

// str scans a string, including its quotes.
func (s *scanner) str() (text, error) {
	if s.peek() != '"' {
		return text{}, s.fail("a string")
	}
	src := s.src
	i := s.pos + 1
	t := text{start: i}
	for {
		i += plainLen(src[i:])
		if i == len(src) {
			break
		}
		switch byteClass[src[i]] {
		case byteHigh:
			r, n := utf8.DecodeRune(src[i:])
			if r == utf8.RuneError && n == 1 {
				t.broken = true
			}
			i += n
		case byteQuote:
			t.end = i
			s.pos = i + 1
			return t, nil
		case byteControl:
			s.pos = i
			return t, s.fail("an escape for it")
		case byteEscape:
			t.escaped = true
			s.pos = i + 1
			if err := s.escape(); err != nil {
				return t, err
			}
			i = s.pos
		}
	}
	s.pos = i
	return t, s.fail(`'"'`)
}

// plainLen returns the length of the prefix of s that has only ASCII characters other than
// quotes, backslashes and control characters.
func plainLen[T string | []byte](s T) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; len(s)-n >= 8; n += 8 {
		// Check eight bytes at a time. The top bit of a byte in special is set if it was set
		// in w, or if one of the subtractions borrows. A borrow can affect only higher bytes,
		// so the lowest set bit is correct.
		b := s[n : n+8]
		w := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		special := (w | (w - ones*' ') | ((w ^ ones*'"') - ones) | ((w ^ ones*'\\') - ones)) & tops
		if special != 0 {
			return n + bits.TrailingZeros64(special)/8
		}
	}
	for n < len(s) && byteClass[s[n]] == 0 {
		n++
	}
	return n
}

// escape scans an escape after its backslash.
func (s *scanner) escape() error {
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return nil
	case 'u':
		s.pos++
		for range 4 {
			if _, ok := unhex(s.peek()); !ok {
				return s.fail("four hex digits")
			}
			s.pos++
		}
		return nil
	}
	return s.fail("an escape")
}

func unhex(c byte) (rune, bool) {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0'), true
	case c >= 'a' && c <= 'f':
		return rune(c - 'a' + 10), true
	case c >= 'A' && c <= 'F':
		return rune(c - 'A' + 10), true
	}
	return 0, false
}

// literal scans true, false or null.
func (s *scanner) literal(word string) error {
	for i := range len(word) {
		if s.peek() != word[i] {
			return s.fail(word)
		}
		s.pos++
	}
	return nil
}

// number scans a number.
func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.peek() == '.' {
		s.pos++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		return s.digits()
	}
	return nil
}

func (s *scanner) digits() error {
	start := s.pos
	for s.pos < len(s.src) && s.src[s.pos]-'0' <= 9 {
		s.pos++
	}
	if s.pos == start {
		return s.fail("a digit")
	}
	return nil
}

// end checks that only whitespace follows.
func (s *scanner) end() error {
	s.blanks()
	if s.pos < len(s.src) {
		return s.fail("the end")
	}
	return nil
}
