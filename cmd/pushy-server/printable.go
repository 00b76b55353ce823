package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Strings from a server, a client or a file are escaped before they are printed, to a
// terminal or to a pipe. Escaped is everything that controls a terminal or that changes how
// the rest of the line looks: control characters (and so ANSI sequences), direction marks,
// characters without width, and line separators.

// unprintable reports whether a character must not be printed as it is.
func unprintable(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Cs, unicode.Other_Default_Ignorable_Code_Point)
}

// printable returns a string as one line that is safe to print. A line break becomes \n.
func printable(text string) string {
	return string(escaped([]byte(text), func(to []byte, r rune, raw byte) []byte {
		switch {
		case r == '\n':
			return append(to, `\n`...)
		case r == '\t':
			return append(to, `\t`...)
		case r == '\r':
			return append(to, `\r`...)
		case r == utf8.RuneError:
			return fmt.Appendf(to, `\x%02x`, raw)
		case r < 0x80:
			return fmt.Appendf(to, `\x%02x`, r)
		case r > 0xFFFF:
			return fmt.Appendf(to, `\U%08x`, r)
		}
		return fmt.Appendf(to, `\u%04x`, r)
	}))
}

// printableJSON returns JSON as one line that is safe to print, with the same value.
func printableJSON(text []byte) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return nil, err
	}
	return escapedJSON(b.Bytes()), nil
}

// escapedJSON escapes unprintable characters in the strings of JSON without white space.
func escapedJSON(text []byte) []byte {
	return escaped(text, func(to []byte, r rune, _ byte) []byte {
		if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
			return fmt.Appendf(to, `\u%04x\u%04x`, high, low)
		}
		return fmt.Appendf(to, `\u%04x`, r)
	})
}

// escaped returns text with each unprintable character replaced by what escape appends.
// For a byte that is not UTF-8, escape receives utf8.RuneError and that byte.
func escaped(text []byte, escape func(to []byte, r rune, raw byte) []byte) []byte {
	result := make([]byte, 0, len(text))
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 || unprintable(r) {
			result = escape(result, r, text[0])
		} else {
			result = append(result, text[:size]...)
		}
		text = text[size:]
	}
	return result
}

// printableLines is the writer of a slog handler, which writes one line at a time. The
// handlers escape line breaks, but not all characters that control a terminal.
type printableLines struct{ io.Writer }

func (w printableLines) Write(line []byte) (int, error) {
	end := len(bytes.TrimRight(line, "\n"))
	_, err := w.Writer.Write(append(escapedJSON(line[:end]), line[end:]...))
	if err != nil {
		return 0, err
	}
	return len(line), nil
}

// say prints a line to standard error.
func (p *program) say(format string, args ...any) {
	fmt.Fprintf(p.stderr, "pushy-server: %s\n", printable(fmt.Sprintf(format, args...)))
}
