package jsvalue

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Lower is JavaScript's String.prototype.toLowerCase for UTF-8: simple mappings, U+0130 as
// "i" U+0307, and the final sigma. It implements Unicode 17.0, like Node.js 20.20. It does
// not change invalid UTF-8, and does not copy a string that is already in lower case.
func Lower(s string) string {
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c-'A' <= 'Z'-'A' {
				return lowerFrom(s, i)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if lowerRune(r) != r {
			return lowerFrom(s, i)
		}
		i += n
	}
	return s
}

// lowerFrom is Lower for a string whose first change is at i.
func lowerFrom(s string, i int) string {
	var b strings.Builder
	b.Grow(len(s) + utf8.UTFMax) // a few runes have longer lower forms
	b.WriteString(s[:i])
	for i < len(s) {
		if c := s[i]; c < utf8.RuneSelf {
			if c-'A' <= 'Z'-'A' {
				c += 'a' - 'A'
			}
			b.WriteByte(c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError:
			b.WriteString(s[i : i+n])
		case r == 'İ':
			b.WriteString("i\u0307")
		case r == 'Σ' && isFinalSigma(s[:i], s[i+n:]):
			b.WriteRune('ς')
		default:
			b.WriteRune(lowerRune(r))
		}
		i += n
	}
	return b.String()
}

// lowerRune uses Go's tables, which implement Unicode 15.0, and the additions of Unicode 16.0
// and 17.0.
func lowerRune(r rune) rune {
	if l := unicode.ToLower(r); l != r || r < newLower[0].first {
		return l
	}
	for _, m := range newLower {
		if r >= m.first && r <= m.last {
			return r + m.delta
		}
	}
	return r
}

var newLower = []struct{ first, last, delta rune }{
	{0x1C89, 0x1C89, 1},
	{0xA7CB, 0xA7CB, 0x264 - 0xA7CB},
	{0xA7CC, 0xA7CC, 1},
	{0xA7CE, 0xA7CE, 1},
	{0xA7D2, 0xA7D2, 1},
	{0xA7D4, 0xA7D4, 1},
	{0xA7DA, 0xA7DA, 1},
	{0xA7DC, 0xA7DC, 0x19B - 0xA7DC},
	{0x10D50, 0x10D65, 0x20},
	{0x16EA0, 0x16EB8, 0x1B},
}

// isFinalSigma is the condition Final_Sigma of Unicode: there is a cased letter before the
// sigma and none after it, if case-ignorable runes on both sides are skipped.
func isFinalSigma(before, after string) bool {
	for {
		r, n := utf8.DecodeLastRuneInString(before)
		if n == 0 || !isCaseIgnorable(r) && !isCased(r) {
			return false
		}
		if !isCaseIgnorable(r) {
			break
		}
		before = before[:len(before)-n]
	}
	for _, r := range after {
		if !isCaseIgnorable(r) {
			return !isCased(r)
		}
	}
	return true
}

func isCased(r rune) bool {
	if r == 0x295 { // not a lower-case letter since Unicode 15.1
		return false
	}
	return unicode.In(r, cased...)
}

func isCaseIgnorable(r rune) bool {
	switch r {
	case '\'', '.', ':', 0xB7, 0x387, 0x55F, 0x5F4, 0x2018, 0x2019, 0x2024, 0x2027,
		0xFE13, 0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A: // word-break MidLetter, MidNumLet, Single_Quote
		return true
	case 0x1171E: // a spacing mark since Unicode 16.0
		return false
	}
	return unicode.In(r, caseIgnorable...)
}

// The tables newX have the runes that are X in Unicode 17.0 and not in 15.0.
var (
	cased = []*unicode.RangeTable{
		unicode.Lu,
		unicode.Ll,
		unicode.Lt,
		unicode.Other_Lowercase,
		unicode.Other_Uppercase,
		newCased,
	}
	caseIgnorable = []*unicode.RangeTable{unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk, newCaseIgnorable}

	newCased = &unicode.RangeTable{
		R16: []unicode.Range16{
			{0x1C89, 0x1C8A, 1}, {0xA7CB, 0xA7CF, 1}, {0xA7D2, 0xA7D2, 1}, {0xA7D4, 0xA7D4, 1},
			{0xA7DA, 0xA7DC, 1},
		},
		R32: []unicode.Range32{
			{0x10D50, 0x10D65, 1}, {0x10D70, 0x10D85, 1}, {0x16EA0, 0x16EB8, 1}, {0x16EBB, 0x16ED3, 1},
		},
	}
	newCaseIgnorable = &unicode.RangeTable{
		R16: []unicode.Range16{
			{0x897, 0x897, 1}, {0x1ACF, 0x1ADD, 1}, {0x1AE0, 0x1AEB, 1}, {0xA7F1, 0xA7F1, 1},
		},
		R32: []unicode.Range32{
			{0x10D4E, 0x10D4E, 1}, {0x10D69, 0x10D6D, 1}, {0x10D6F, 0x10D6F, 1}, {0x10EC5, 0x10EC5, 1},
			{0x10EFA, 0x10EFC, 1}, {0x113BB, 0x113C0, 1}, {0x113CE, 0x113CE, 1}, {0x113D0, 0x113D0, 1},
			{0x113D2, 0x113D2, 1}, {0x113E1, 0x113E2, 1}, {0x11B60, 0x11B60, 1}, {0x11B62, 0x11B64, 1},
			{0x11B66, 0x11B66, 1}, {0x11DD9, 0x11DD9, 1}, {0x11F5A, 0x11F5A, 1}, {0x1611E, 0x16129, 1},
			{0x1612D, 0x1612F, 1}, {0x16D40, 0x16D42, 1}, {0x16D6B, 0x16D6C, 1}, {0x16FF2, 0x16FF3, 1},
			{0x1E5EE, 0x1E5EF, 1}, {0x1E6E3, 0x1E6E3, 1}, {0x1E6E6, 0x1E6E6, 1}, {0x1E6EE, 0x1E6EF, 1},
			{0x1E6F5, 0x1E6F5, 1}, {0x1E6FF, 0x1E6FF, 1},
		},
	}
)
