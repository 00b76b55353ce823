package names_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/names"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, in, lower string // lower is "" if in is not a valid channel name
		event           bool
	}{
		{"plain", "News", "news", true},
		{"turkish", "PRİVATE-x", "pri\u0307vate-x", true},
		{"kelvin", "\u212a", "k", true},
		{"finalSigma", "ΟΔΟΣ", "οδος", true},
		{"prototype", "__proto__", "__proto__", true},
		{"length", "length", "length", true},
		{"slash", "a/b", "a/b", true},
		{"blank", " ", " ", true},
		{"emoji", "😀", "😀", true},
		{"joiner", "a\u200d\u200c", "a\u200d\u200c", true},
		{"longest", strings.Repeat("x", 200), strings.Repeat("x", 200), true},
		{"tooLong", strings.Repeat("x", 201), "", false},
		{"longOnceLower", strings.Repeat("İ", 100), "", true},
		{"empty", "", "", false},
		{"colon", "a:b", "", true},
		{"reserved", "pushy:x", "", false},
		{"reservedCase", "PUSHY:x", "", false},
		{"notReserved", "pushy", "pushy", true},
		{"dot", ".", "", false},
		{"dots", "..", "", false},
		{"threeDots", "...", "...", true},
		{"quote", `"`, "", false},
		{"backslash", `\`, "", false},
		{"brace", "a{", "", false},
		{"endBrace", "a}", "", false},
		{"bracket", "[", "", false},
		{"endBracket", "]", "", false},
		{"control", "a\n", "", false},
		{"nul", "\x00", "", false},
		{"delete", "\x7f", "", false},
		{"c1", "\u0085", "", false},
		{"softHyphen", "a\u00ad", "", false},
		{"bom", "\ufeffa", "", false},
		{"override", "\u202ea", "", false},
		{"lineSeparator", "\u2028", "", false},
		{"paragraphSeparator", "\u2029", "", false},
		{"replacement", "a\ufffd", "", false},
		{"invalid", "a\xff", "", false},
		{"surrogate", "a\xed\xa0\x80", "", false},
		{"tag", "a\U000e0041", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lower, err := names.Channel(c.in)
			if c.lower == "" {
				assert.Error(t, err, "channel")
			} else if assert.NoError(t, err, "channel") {
				assert.Equal(t, c.lower, lower)
			}
			if err := names.Event(c.in); c.event {
				assert.NoError(t, err, "event")
			} else {
				assert.Error(t, err, "event")
			}
		})
	}
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	for name, private := range map[string]bool{"private-x": true, "private-": true, "private": false, "xprivate-": false, "Private-x": false} {
		assert.Equal(t, private, names.Private(name), name)
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		id := names.NewUUID()
		assert.True(t, names.IsUUID(id), id)
		assert.False(t, seen[id])
		seen[id] = true
	}
	assert.Len(t, names.RandomHex(16), 32)
	for _, id := range []string{"", "x", "3C8F1F6E-0A5C-4F5C-9D0E-0123456789AB", "3c8f1f6e-0a5c-1f5c-9d0e-0123456789ab",
		"3c8f1f6e-0a5c-4f5c-7d0e-0123456789ab", "3c8f1f6e00a5c-4f5c-9d0e-0123456789ab", "3c8f1f6e-0a5c-4f5c-9d0e-0123456789a:", "3c8f1f6e-0a5c-4f5c-9d0e-0123456789ab "} {
		assert.False(t, names.IsUUID(id), "%q", id)
	}
	for token, is := range map[string]bool{"a": true, "Z_-9": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "": false,
		"a.b": false, "é": false, "@": false, "[": false, "`": false, "{": false, "a b": false} {
		assert.Equal(t, is, names.IsToken(token), "%q", token)
	}
}
