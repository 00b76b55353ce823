package jsvalue

import "unicode/utf8"

const replacement = "\uFFFD"

// brokenLen returns the length of the maximal invalid sequence at the start of s, which must
// not be empty and must not start with a valid rune. These are the bytes that a WHATWG
// decoder, such as that of Node.js, replaces with one U+FFFD. Go replaces each byte.
func brokenLen[T string | []byte](s T) int {
	lo, hi := byte(0x80), byte(0xBF) // the range of the next byte
	want := 0                        // the number of bytes that must follow
	c := s[0]
	switch {
	case c >= 0xC2 && c <= 0xDF:
		want = 1
	case c >= 0xE0 && c <= 0xEF:
		want = 2
		if c == 0xE0 {
			lo = 0xA0
		} else if c == 0xED {
			hi = 0x9F
		}
	case c >= 0xF0 && c <= 0xF4:
		want = 3
		if c == 0xF0 {
			lo = 0x90
		} else if c == 0xF4 {
			hi = 0x8F
		}
	}
	n := 1
	for n <= want && n < len(s) && s[n] >= lo && s[n] <= hi {
		n++
		lo, hi = 0x80, 0xBF
	}
	return n
}

// AppendValid appends s as Node.js reads it, with one U+FFFD for each maximal invalid
// sequence.
func AppendValid(dst, s []byte) []byte {
	if utf8.Valid(s) {
		return append(dst, s...)
	}
	start := 0
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		if r != utf8.RuneError || n != 1 {
			i += n
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = append(dst, replacement...)
		i += brokenLen(s[i:])
		start = i
	}
	return append(dst, s[start:]...)
}

// validLen returns the length of the prefix of s that is valid UTF-8.
func validLen(s []byte) int {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRune(s[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(s)
}
