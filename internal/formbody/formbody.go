// Package formbody reads application/x-www-form-urlencoded bodies as version
// 0.5.1 of the qs package for node does, oddities included: the signature of
// a trigger covers the JSON of what comes out.
//
// It differs where qs does harm. Names that JavaScript objects inherit, such
// as __proto__ and constructor, are ordinary names. A name that begins with
// its brackets, such as "[]", is taken as it stands: qs replaces all that came
// before by the value, which need not be an object then. And there are limits.
package formbody

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// The limits of a body; one over any of them is refused.
const (
	MaxFields = 1000   // pairs between ampersands, empty ones too
	MaxDepth  = 32     // brackets in a name
	MaxIndex  = 1000   // of a list
	MaxValues = 20_000 // in the result, the nulls that fill gaps too
)

// An Error says which field of a body is refused, from 1, and why.
type Error struct {
	Field int
	Msg   string
}

func (e *Error) Error() string { return fmt.Sprintf("field %d: %s", e.Field, e.Msg) }

// Parse gives the object that body decodes to as canonical JSON; the values in
// it are texts, lists, objects, and null for the gaps of lists. An empty body
// is {}. Invalid UTF-8 becomes U+FFFD, and a name or value with a bad percent
// escape stays as it is. The error is an *Error.
func Parse(body []byte) ([]byte, error) {
	if len(body) == 0 {
		return []byte("{}"), nil
	}
	if !utf8.Valid(body) {
		body = jsvalue.AppendValid(nil, body)
	}
	var p parser
	p.root.promote()
	field := 0
	for pair := range strings.SplitSeq(string(body), "&") {
		field++
		if field > MaxFields {
			return nil, &Error{field, fmt.Sprintf("more than %d fields", MaxFields)}
		}
		name, value := cut(pair)
		if msg := p.set(decode(name), decode(value)); msg != "" {
			return nil, &Error{field, msg}
		}
	}
	// Canonical brings the names that are indexes to the front.
	return jsvalue.Canonical(nil, p.root.appendJSON(make([]byte, 0, 2*len(body))), jsvalue.Limits{})
}

// cut parts a field at its first = outside of brackets, or else at its first
// one. Without = or name the whole field is the name.
func cut(pair string) (name, value string) {
	at, inside := -1, false
	for i := 0; i < len(pair) && at < 0; i++ {
		switch pair[i] {
		case '[':
			inside = true
		case ']':
			inside = false
		case '=':
			if !inside {
				at = i
			}
		}
	}
	if at < 0 {
		at = strings.IndexByte(pair, '=')
	}
	if at <= 0 {
		return pair, ""
	}
	return pair[:at], pair[at+1:]
}

// decode resolves + and percent escapes, all or none: if one escape is bad, or
// they are not UTF-8, s comes back untouched.
func decode(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return strings.ReplaceAll(s, "+", " ")
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		switch c := s[i]; c {
		case '+':
			b = append(b, ' ')
			i++
		case '%':
			// The bytes of one character must all be escaped.
			var seq []byte
			for n := 1; len(seq) < n; i += 3 {
				if i+2 >= len(s) || s[i] != '%' || !isHex(s[i+1]) || !isHex(s[i+2]) {
					return s
				}
				seq = append(seq, unhex(s[i+1])<<4|unhex(s[i+2]))
				n = runeLen(seq[0])
			}
			if !utf8.Valid(seq) {
				return s
			}
			b = append(b, seq...)
		default:
			b = append(b, c)
			i++
		}
	}
	return string(b)
}

// runeLen gives how many bytes a character with this first byte has.
func runeLen(first byte) int {
	switch {
	case first >= 0xF0:
		return 4
	case first >= 0xE0:
		return 3
	case first >= 0xC0:
		return 2
	}
	return 1
}

func isHex(c byte) bool {
	return c-'0' <= 9 || c|0x20 >= 'a' && c|0x20 <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
