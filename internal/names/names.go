// Package names has the rules for channel and event names (PROTOCOL.md, section 5), which
// servers and publishers share, and generates ids.
package names

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// ErrNotChecked is the error if a host's own rule for names has failed without a decision.
// The name can be valid.
var ErrNotChecked = errors.New("could not be checked")

// MaxBytes is the largest number of bytes of a channel or event name.
const MaxBytes = 200

// Channel returns name in lower case and validates it. The error says which rule it violates.
func Channel(name string) (lower string, err error) {
	lower = jsvalue.Lower(name)
	if lower == "." || lower == ".." {
		return lower, errors.New(`must not be "." or ".."`)
	}
	return lower, check(lower, true)
}

// Event validates an event name, which is case-sensitive. Names that begin with "pushy:", in
// any case, are reserved for the server.
func Event(name string) error {
	if strings.HasPrefix(jsvalue.Lower(name), "pushy:") {
		return errors.New(`"pushy:" is reserved`)
	}
	if name == "." || name == ".." {
		return errors.New(`must not be "." or ".."`)
	}
	return check(name, false)
}

// Received validates the name of an event that another node has published. Other protocols than
// pushy's have names that Event refuses.
func Received(name string) error {
	switch {
	case strings.HasPrefix(jsvalue.Lower(name), "pushy:"):
		return errors.New(`"pushy:" is reserved`)
	case name == "":
		return errors.New("must not be empty")
	case len(name) > MaxBytes:
		return errors.New("must not be longer than 200 bytes")
	case !utf8.ValidString(name):
		return errors.New("must be valid UTF-8")
	}
	for _, r := range name {
		if invisible(r) {
			return errors.New("must not contain control or invisible format characters")
		}
	}
	return nil
}

// invisible reports whether r is a control character or an invisible format character, other than
// the joiners.
func invisible(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r == unicode.ReplacementChar ||
		r >= 0x80 && r != 0x200c && r != 0x200d && unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

// Private reports whether a channel name, which must be in lower case, begins with
// "private-" or "presence-".
func Private(lower string) bool {
	return strings.HasPrefix(lower, "private-") || strings.HasPrefix(lower, "presence-")
}

func check(name string, channel bool) error {
	switch {
	case name == "":
		return errors.New("must not be empty")
	case len(name) > MaxBytes:
		return errors.New("must not be longer than 200 bytes")
	case !utf8.ValidString(name):
		return errors.New("must be valid UTF-8")
	}
	for _, r := range name {
		switch {
		case strings.ContainsRune("\"\\{}[]", r), channel && r == ':':
			// Signed strings have colons between their parts, and contain JSON. Without
			// these characters, a name cannot be mistaken for another part.
			return errors.New("must not contain " + string(r))
		case invisible(r):
			return errors.New("must not contain control or invisible format characters")
		}
	}
	return nil
}

// AppendLowerASCII appends s with its ASCII letters in lower case, which is the form in which
// names of commands are compared.
func AppendLowerASCII(dst []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}
