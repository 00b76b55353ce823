// Package formbody parses application/x-www-form-urlencoded bodies exactly as version 0.5.1
// of the qs package for Node.js does, because the signature of a trigger covers the JSON of
// the result.
//
// It differs where the behaviour of qs is harmful. Names that JavaScript objects inherit, such
// as __proto__ and constructor, are ordinary names. A name that begins with brackets, such as
// "[]", is used as it is: qs replaces the whole result with the value, which then may not be
// an object. And there are limits.
package formbody

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// The limits of a body. A body that exceeds one of them is refused.
const (
	MaxFields = 1000   // pairs between ampersands, including empty ones
	MaxDepth  = 32     // brackets in a name
	MaxIndex  = 1000   // of a list
	MaxValues = 20_000 // in the result, including the nulls that fill gaps
)

// An Error says why a body is refused. Field is the number of the field, from 1.
type Error struct {
	Field int
	Msg   string
}

func (e *Error) Error() string { return fmt.Sprintf("field %d: %s", e.Field, e.Msg) }

// Parse returns the object that body decodes to, as canonical JSON. Its values are strings,
// lists, objects, and null for the gaps in lists. The result for an empty body is {}. Invalid
// UTF-8 becomes U+FFFD, and a name or value with an invalid percent escape is not decoded.
// The error is an *Error.
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
		name, value := splitField(pair)
		if msg := p.set(decode(name), decode(value)); msg != "" {
			return nil, &Error{field, msg}
		}
	}
	// Canonical moves the names that are indexes to the front.
	return jsvalue.Canonical(nil, p.root.appendJSON(make([]byte, 0, 2*len(body))), jsvalue.Limits{})
}

// splitField splits a field at its first = outside of brackets, or, if there is none, at its first =.
// If there is no = or no name before it, the whole field is the name.
func splitField(pair string) (name, value string) {
	at := -1
	inside := false
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

// decode decodes + and percent escapes. If one escape is invalid, or the result is not UTF-8,
// decode returns s without changes.
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

// runeLen returns the number of bytes of a character with this first byte.
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
