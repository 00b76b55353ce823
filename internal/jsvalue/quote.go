package jsvalue

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

const hex = "0123456789abcdef"

// AppendQuote appends s as a JSON string with the escapes of JSON.stringify, that is, without
// escapes for HTML and U+2028. Invalid UTF-8 becomes U+FFFD.
func AppendQuote[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	dst = AppendEscaped(dst, s)
	return append(dst, '"')
}

// AppendEscaped is AppendQuote without the quotes.
func AppendEscaped[T string | []byte](dst []byte, s T) []byte {
	start := 0
	for i := 0; i < len(s); {
		class := byteClass[s[i]]
		if class == 0 {
			i += plainLen(s[i:])
			continue
		}
		if class == byteHigh {
			// The conversion of four bytes does not allocate, because they stay on the stack.
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r != utf8.RuneError || n != 1 {
				i += n
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = append(dst, replacement...)
			i += brokenLen(s[i:])
		} else {
			dst = append(dst, s[start:i]...)
			dst = appendEscaped(dst, s[i])
			i++
		}
		start = i
	}
	return append(dst, s[start:]...)
}

// appendEscaped appends the escape of a quote, a backslash or a control character.
func appendEscaped(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	return appendUnicode(dst, rune(c))
}

func appendUnicode(dst []byte, r rune) []byte {
	return append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// AppendPHP appends a canonical JSON text in the form in which PHP's json_encode writes the
// value by default: with `\/`, with lower-case `\uXXXX` for all characters that are not
// ASCII, as surrogate pairs if necessary, and with PHP's form of numbers.
func AppendPHP(dst, canonical []byte) []byte {
	inString := false
	for i := 0; i < len(canonical); {
		c := canonical[i]
		switch {
		case c == '"':
			inString = !inString
		case inString && c == '\\': // the escaped character does not end the string
			dst = append(dst, c, canonical[i+1])
			i += 2
			continue
		case !inString && (c == '-' || '0' <= c && c <= '9'):
			n := bytes.IndexAny(canonical[i:], ",]}")
			if n < 0 {
				n = len(canonical) - i
			}
			dst = appendPHPNumber(dst, canonical[i:i+n])
			i += n
			continue
		}
		if c < utf8.RuneSelf {
			if c == '/' {
				dst = append(dst, '\\')
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(canonical[i:])
		if r == utf8.RuneError && n == 1 {
			n = brokenLen(canonical[i:])
		}
		i += n
		if r >= 0x10000 {
			r -= 0x10000
			dst = appendUnicode(dst, 0xD800+r>>10)
			r = 0xDC00 + r&0x3FF
		}
		dst = appendUnicode(dst, r)
	}
	return dst
}

// appendPHPNumber appends a canonical number as PHP writes it. PHP has integers of 64 bits. It
// writes floats below 0.0001 and from 1e17 on with an exponent, and with a decimal point
// before the exponent.
func appendPHPNumber(dst, canonical []byte) []byte {
	if _, err := strconv.ParseInt(string(canonical), 10, 64); err == nil {
		return append(dst, canonical...)
	}
	value, err := strconv.ParseFloat(string(canonical), 64)
	if err != nil {
		return append(dst, canonical...)
	}
	digits, exponent, _ := strings.Cut(strconv.FormatFloat(value, 'e', -1, 64), "e")
	n, err := strconv.Atoi(exponent)
	if err != nil || n >= -4 && n < 17 {
		return append(dst, canonical...)
	}
	dst = append(dst, digits...)
	if !strings.Contains(digits, ".") {
		dst = append(dst, ".0"...)
	}
	dst = append(dst, 'e')
	if n > 0 {
		dst = append(dst, '+')
	}
	return strconv.AppendInt(dst, int64(n), 10)
}

// Text returns the string that a JSON value is, with U+FFFD for lone surrogates and invalid
// UTF-8, and false if value is not exactly one JSON string.
func Text(value []byte) (string, bool) {
	s := newScanner(value, Limits{})
	t, err := s.str()
	if err != nil || s.pos < len(value) {
		return "", false
	}
	if !t.escaped && !t.broken {
		return string(value[t.start:t.end]), true
	}
	body := value[t.start:t.end]
	return string(appendText(make([]byte, 0, len(body)), body)), true
}

// TextLen returns the length of the result of Text for a valid JSON string.
func TextLen(value []byte) int {
	body := value[1 : len(value)-1]
	n := 0
	var run [utf8.UTFMax]byte
	for i := 0; i < len(body); {
		if body[i] < utf8.RuneSelf && body[i] != '\\' {
			n++
			i++
			continue
		}
		if body[i] == '\\' {
			r, size := unescape(body[i:])
			n += len(utf8.AppendRune(run[:0], r))
			i += size
			continue
		}
		r, size := utf8.DecodeRune(body[i:])
		if r == utf8.RuneError && size == 1 {
			n += len(replacement)
			i += brokenLen(body[i:])
			continue
		}
		n += size
		i += size
	}
	return n
}

// appendText appends the value of a valid JSON string without its quotes, with U+FFFD for lone
// surrogates and invalid UTF-8. dst can be body[:0] if body is valid UTF-8: no escape is shorter
// than its character.
func appendText(dst, body []byte) []byte {
	for i := 0; i < len(body); {
		if n := plainLen(body[i:]); n > 0 {
			dst = append(dst, body[i:i+n]...)
			i += n
			continue
		}
		if body[i] != '\\' {
			n := bytes.IndexByte(body[i:], '\\')
			if n < 0 {
				n = len(body) - i
			}
			dst = AppendValid(dst, body[i:i+n])
			i += n
			continue
		}
		switch c := body[i+1]; c {
		case '"', '\\', '/':
			dst = append(dst, c)
			i += 2
		default:
			r, n := unescape(body[i:])
			dst = utf8.AppendRune(dst, r) // a lone surrogate becomes U+FFFD here
			i += n
		}
	}
	return dst
}

// appendRequoted appends a valid JSON string, without its quotes, in canonical form.
func appendRequoted(dst, body []byte) []byte {
	for i := 0; i < len(body); {
		if body[i] != '\\' {
			var n int
			dst, n = appendRun(dst, body[i:])
			i += n
			continue
		}
		r, n := unescape(body[i:])
		i += n
		switch {
		case r < ' ' || r == '"' || r == '\\':
			dst = appendEscaped(dst, byte(r))
		case r >= 0xD800 && r <= 0xDFFF:
			dst = appendUnicode(dst, r)
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return dst
}

// appendRun appends s up to its first backslash, and returns the length of that part of s.
func appendRun(dst, s []byte) ([]byte, int) {
	n := bytes.IndexByte(s, '\\')
	if n < 0 {
		n = len(s)
	}
	return AppendValid(dst, s[:n]), n
}

// unescape decodes the valid escape at the start of s, or both escapes of a surrogate pair,
// and returns their length. It returns a lone surrogate as it is.
func unescape(s []byte) (r rune, n int) {
	switch s[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
	default:
		return rune(s[1]), 2
	}
	r = codeUnit(s)
	if r >= 0xD800 && r <= 0xDBFF && len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
		if low := codeUnit(s[6:]); low >= 0xDC00 && low <= 0xDFFF {
			return (r-0xD800)<<10 + (low - 0xDC00) + 0x10000, 12
		}
	}
	return r, 6
}

// codeUnit decodes the valid `\uXXXX` at the start of s.
func codeUnit(s []byte) (u rune) {
	for _, c := range s[2:6] {
		d, _ := unhex(c)
		u = u<<4 | d
	}
	return u
}
