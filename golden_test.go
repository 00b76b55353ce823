package pushy_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// The golden files were recorded from the Node original, with the secret
// "secret" and the clock at goldenTime. What counts is compared: of HTTP
// answers status, Content-Type and body; of JSON the values, see canon.
const goldenTime = 1_700_000_000

func goldenClock() time.Time { return time.Unix(goldenTime, 0) }

func readGolden(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, into))
}

// goldenBody is a recorded body: text, or bytes that are no text.
func goldenBody(text *string, inBase64 string) (body []byte, err error) {
	if inBase64 != "" {
		return base64.StdEncoding.DecodeString(inBase64)
	}
	if text == nil {
		return nil, nil
	}
	return []byte(*text), nil
}

func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// canon returns a JSON text in a form that is equal for equal values: keys in
// their order, numbers as doubles, texts unescaped. Lone surrogates, which
// encoding/json hides, are kept. A text that is not JSON stays as it is.
func canon(text string) string {
	if !json.Valid([]byte(text)) {
		return text
	}
	var out []byte
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			end := stringEnd(text, i)
			out = appendASCII(out, unquote(text[i:end]))
			i = end
		case c == '-' || c >= '0' && c <= '9':
			end := i + 1
			for end < len(text) && strings.IndexByte("+-.0123456789eE", text[end]) >= 0 {
				end++
			}
			number, _ := strconv.ParseFloat(text[i:end], 64) // out of range is ±Inf
			out = strconv.AppendFloat(out, number, 'g', -1, 64)
			i = end
		default:
			if strings.IndexByte(" \t\r\n", c) < 0 {
				out = append(out, c)
			}
			i++
		}
	}
	return string(out)
}

// stringEnd returns where the JSON string that begins at i ends.
func stringEnd(text string, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// unquote unescapes a JSON string. Lone surrogates come out as three bytes, as
// if UTF-8 could write them.
func unquote(quoted string) string {
	var out []byte
	s := quoted[1 : len(quoted)-1]
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		if at := strings.IndexByte(`"\/bfnrt`, s[i]); at >= 0 {
			out = append(out, "\"\\/\b\f\n\r\t"[at])
			continue
		}
		r := hexRune(s[i+1:])
		i += 4
		if utf16.IsSurrogate(r) && strings.HasPrefix(s[i+1:], `\u`) {
			if pair := utf16.DecodeRune(r, hexRune(s[i+3:])); pair != utf8.RuneError {
				r = pair
				i += 6
			}
		}
		if utf16.IsSurrogate(r) {
			out = append(out, 0xe0|byte(r>>12), 0x80|byte(r>>6)&0xbf, 0x80|byte(r)&0xbf)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return string(out)
}

func hexRune(s string) rune {
	n, _ := strconv.ParseUint(s[:4], 16, 16) // s is a JSON string's
	return rune(n)
}

func appendASCII(out []byte, s string) []byte { return strconv.AppendQuoteToASCII(out, s) }

// unframe returns the messages of a SockJS frame a[…].
func unframe(frame string) (messages []string, ok bool) {
	array, ok := strings.CutPrefix(frame, "a")
	if !ok || !json.Valid([]byte(array)) {
		return nil, false
	}
	for i := 1; i < len(array); {
		if array[i] != '"' {
			i++
			continue
		}
		end := stringEnd(array, i)
		messages = append(messages, unquote(array[i:end]))
		i = end
	}
	return messages, true
}

// bindings are what the placeholders of one scenario stand for.
type bindings map[string]string

var (
	placeholder = regexp.MustCompile(`<(socketId|memberId)(:[A-Z]\d*)?>`)
	forms       = map[string]string{
		"socketId": `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`,
		"memberId": `[0-9a-f]{32}`,
	}
)

// fill puts in what is known.
func (b bindings) fill(template string) string {
	pinned := strconv.FormatInt(goldenTime*1000, 10)
	template = strings.NewReplacer(`"<ms>"`, pinned, `<ms>`, pinned).Replace(template)
	for name, value := range b {
		template = strings.ReplaceAll(template, name, value)
	}
	return template
}

// match reports whether got is what the template says, and learns what its
// placeholders stand for. New ids are new: none is one that was known.
func (b bindings) match(template, got string) bool {
	want, got := canon(b.fill(template)), canon(got)
	names := placeholder.FindAllStringSubmatch(want, -1)
	pattern := regexp.QuoteMeta(want)
	for _, name := range names {
		pattern = strings.ReplaceAll(pattern, regexp.QuoteMeta(name[0]), "("+forms[name[1]]+")")
	}
	values := regexp.MustCompile(`^` + pattern + `$`).FindStringSubmatch(got)
	if values == nil {
		return false
	}
	known := map[string]bool{}
	for _, value := range b {
		known[value] = true
	}
	learnt := bindings{}
	for i, name := range names {
		value := values[i+1]
		if before, ok := learnt[name[0]]; known[value] || ok && before != value {
			return false
		}
		learnt[name[0]] = value
	}
	for name, value := range learnt {
		b[name] = value
	}
	return true
}

func TestCanon(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, a, b string
		equal      bool
	}{
		{"blanks", `{"a": [1, 2]}`, `{"a":[1,2]}`, true},
		{"keyOrder", `{"a":1,"b":2}`, `{"b":2,"a":1}`, false},
		{"repeatedKey", `{"a":1,"a":2}`, `{"a":2}`, false},
		{"numberSpelling", `[1.0,1e3,12345678901234567890]`, `[1,1000,12345678901234567000]`, true},
		{"numbers", `[1]`, `[2]`, false},
		{"numberAndText", `[1]`, `["1"]`, false},
		{"escapes", `"\u00e9\/\u000a\ud83d\ude00"`, "\"é/\\n😀\"", true},
		{"loneSurrogates", `"\ud83d"`, `"\ud83e"`, false},
		{"loneSurrogateAndReplacement", `"\ud83d"`, `"\ufffd"`, false},
		{"loneSurrogateCase", `"\uD83D"`, `"\ud83d"`, true},
		{"backslashes", `"\\ud83d"`, `"\ud83d"`, false},
		{"quotes", `"a\"b"`, `"a\\\"b"`, false},
		{"blankInText", `"a b"`, `"ab"`, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.equal, canon(test.a) == canon(test.b), "%s\n%s", canon(test.a), canon(test.b))
		})
	}
	messages, ok := unframe(`a["{\"a\":\"\\ud83d\"}","b"]`)
	require.True(t, ok)
	require.Equal(t, []string{`{"a":"\ud83d"}`, "b"}, messages)
}
