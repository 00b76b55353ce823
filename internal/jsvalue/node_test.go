package jsvalue_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// askNode evaluates expr, a JavaScript expression with the Buffer b, for each input, in one
// Node.js process. The result is nil if it throws.
func askNode(t *testing.T, expr string, inputs [][]byte) [][]byte {
	t.Helper()
	node, err := exec.LookPath("node")
	require.NoError(t, err, "these tests compare with node itself: install node 20.20 or later")
	var in []byte
	for _, b := range inputs {
		in = append(base64.StdEncoding.AppendEncode(in, b), '\n')
	}
	cmd := exec.Command(node, "-e", `
		const lines = require('fs').readFileSync(0, 'latin1').split('\n'); lines.pop();
		const f = b => `+expr+`;
		process.stdout.write(lines.map(l => {
			try { return Buffer.from(f(Buffer.from(l, 'base64')), 'utf8').toString('base64') } catch { return '!' }
		}).join('\n'));`)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())

	lines := strings.Split(string(out), "\n")
	require.Len(t, lines, len(inputs))
	answers := make([][]byte, len(lines))
	for i, line := range lines {
		if line == "!" {
			continue
		}
		answers[i], err = base64.StdEncoding.DecodeString(line)
		require.NoError(t, err)
		if answers[i] == nil {
			answers[i] = []byte{}
		}
	}
	return answers
}

// many returns the number of random inputs of a test: n in `make soak`, else a fifth of n, or a tenth
// with -short.
func many(n int) int {
	switch {
	case os.Getenv("PUSHY_SOAK") != "":
		return n
	case testing.Short():
		return n / 10
	}
	return n / 5
}

func TestCanonicalAsNode(t *testing.T) {
	t.Parallel()
	count := many(100_000)
	g := generator{rand.New(rand.NewPCG(20, 25))}
	texts := make([][]byte, count)
	for i := range texts {
		texts[i] = g.text()
	}
	answers := askNode(t, `JSON.stringify(JSON.parse(b.toString('utf8')))`, texts)
	refused := 0
	var dst, compact []byte
	for i, src := range texts {
		var err, compactErr error
		dst, err = jsvalue.Canonical(dst[:0], src, jsvalue.Limits{})
		compact, compactErr = jsvalue.Compact(compact[:0], src, jsvalue.Limits{})
		if answers[i] == nil {
			refused++
			if err == nil || compactErr == nil {
				t.Fatalf("text %d: node refuses %q, got %v and %v", i, src, err, compactErr)
			}
			continue
		}
		if err != nil || compactErr != nil {
			t.Fatalf("text %d: node accepts %q, got %v and %v", i, src, err, compactErr)
		}
		if !bytes.Equal(dst, answers[i]) {
			t.Fatalf("text %d: %q\n got %s\nwant %s", i, src, dst, answers[i])
		}
		if dst, _ = jsvalue.Canonical(dst[:0], compact, jsvalue.Limits{}); !bytes.Equal(dst, answers[i]) {
			t.Fatalf("text %d compacted: %q\n got %s\nwant %s", i, compact, dst, answers[i])
		}
	}
	assert.InDelta(t, count/3, refused, float64(count/5), "the generator should make both kinds")
}

func TestLowerAsNode(t *testing.T) {
	t.Parallel()
	requireUnicode(t)
	// Each code point alone, and, for the planes with letters or marks, at every place that the
	// condition for the final sigma depends on.
	var texts [][]byte
	const perText = 1024
	for r := rune(0); r <= 0x10FFFF; r += perText {
		var b []byte
		for c := r; c < r+perText; c++ {
			switch {
			case c >= 0xD800 && c <= 0xDFFF:
			case c < 0x20000 || c >= 0xE0000 && c < 0xE1000:
				b = fmt.Appendf(b, "%c|%[1]cΣ|A%[1]cΣ|AΣ%[1]c|AΣ%[1]cA\n", c)
			default:
				b = append(utf8.AppendRune(b, c), '\n')
			}
		}
		texts = append(texts, b)
	}
	compareLower(t, texts)
}

func TestLowerRandomAsNode(t *testing.T) {
	t.Parallel()
	requireUnicode(t)
	rnd := rand.New(rand.NewPCG(3, 14))
	alphabet := []rune("aAzZ09-_.:'İıßẞſKÅΣσςΩΑΆǅǈᾳᾼⅧⒶ\u0307\u0345\u00ad\u200d\u2019ʰʕ\U0001171eᎠꭰ𐐀𐐨\U00010d50\U00016ea0\ufffd 日")
	texts := make([][]byte, many(50_000))
	for i := range texts {
		var b []rune
		for range rnd.IntN(12) {
			r := alphabet[rnd.IntN(len(alphabet))]
			switch rnd.IntN(4) {
			case 0:
				r = 'Σ'
			case 1:
				r = rune(rnd.IntN(0x20000))
			}
			b = append(b, r)
		}
		texts[i] = []byte(string(b))
	}
	compareLower(t, texts)
}

func compareLower(t *testing.T, texts [][]byte) {
	t.Helper()
	for i, want := range askNode(t, `b.toString('utf8').toLowerCase()`, texts) {
		got := jsvalue.Lower(string(texts[i]))
		if got == string(want) {
			continue
		}
		in, gots, wants := strings.Split(string(texts[i]), "\n"), strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for k := range in {
			require.Equal(t, wants[k], gots[k], "Lower(%+q)", in[k])
		}
	}
}

// requireUnicode fails if Node.js implements another version of Unicode than Lower, because the
// test would then report the differences of the versions.
func requireUnicode(t *testing.T) {
	t.Helper()
	got := askNode(t, `process.versions.unicode`, [][]byte{nil})
	require.Equal(t, "17.0", string(got[0]), "Unicode of this node; use node 20.20, or bring the tables of lower.go to its version")
}

func TestBrokenUTF8AsNode(t *testing.T) {
	t.Parallel()
	// Every pair of bytes, and triples and quadruples at the edges of UTF-8.
	edges := []byte{0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF}
	var texts [][]byte
	for a := range 256 {
		for b := range 256 {
			texts = append(texts, []byte{byte(a), byte(b)})
		}
	}
	for _, a := range edges {
		for _, b := range edges {
			for _, c := range edges {
				texts = append(texts, []byte{a, b, c})
				if a >= 0xE0 {
					for _, d := range edges {
						texts = append(texts, []byte{a, b, c, d}, []byte{a, b, c, d, 0x80})
					}
				}
			}
		}
	}
	for i, want := range askNode(t, `JSON.stringify(b.toString('utf8'))`, texts) {
		if got := jsvalue.AppendQuote(nil, texts[i]); !bytes.Equal(got, want) {
			require.Equal(t, string(want), string(got), "AppendQuote(% x)", texts[i])
		}
		if got := jsvalue.AppendQuote(nil, string(texts[i])); !bytes.Equal(got, want) {
			require.Equal(t, string(want), string(got), "AppendQuote of the string % x", texts[i])
		}
	}
}

// generator makes unusual JSON texts: most are valid, and some are not.
type generator struct{ *rand.Rand }

func (g generator) text() []byte {
	b := g.value(nil, 1+g.IntN(5))
	if g.IntN(12) == 0 {
		b = g.blank(b)
	}
	if g.IntN(4) > 0 {
		return b
	}
	for range 1 + g.IntN(3) {
		b = g.damage(b)
	}
	return b
}

func (g generator) damage(b []byte) []byte {
	at := g.IntN(len(b) + 1)
	switch g.IntN(4) {
	case 0:
		return b[:at]
	case 1:
		piece := g.pick(`"`, `\`, `{`, `}`, `[`, `]`, `,`, `:`, `0`, `-`, `e`, `.`, `1`, `\u`, `\ud800`, "\xff", "\x00", "\x1f", "\t",
			"\ufeff", "\u00a0", "\u2028", "\v", `NaN`, `'`, `//`, `null`, "\xf0\x9f", "\xed\xa0\x80")
		return append(append(append([]byte{}, b[:at]...), piece...), b[at:]...)
	case 2:
		if at < len(b) {
			b[at] = byte(g.IntN(256))
		}
		return b
	default:
		if at < len(b) {
			b = append(b[:at], b[at+1:]...)
		}
		return b
	}
}

func (g generator) value(b []byte, depth int) []byte {
	kind := g.IntN(9)
	if depth == 0 {
		kind %= 5
	}
	switch kind {
	case 0:
		return append(b, g.pick("true", "false", "null")...)
	case 1, 2:
		return g.number(b)
	case 3, 4:
		return g.str(b, 8)
	case 5:
		b = g.blank(append(b, '['))
		for i, n := 0, g.IntN(5); i < n; i++ {
			if i > 0 {
				b = g.blank(append(b, ','))
			}
			b = g.blank(g.value(b, depth-1))
		}
		return append(b, ']')
	default:
		b = g.blank(append(b, '{'))
		n := g.IntN(6)
		if g.IntN(20) == 0 {
			n = 14 + g.IntN(20)
		}
		for i := range n {
			if i > 0 {
				b = g.blank(append(b, ','))
			}
			b = g.blank(append(g.blank(g.name(b)), ':'))
			b = g.blank(g.value(b, depth-1))
		}
		return append(b, '}')
	}
}

func (g generator) blank(b []byte) []byte {
	for g.IntN(6) == 0 {
		b = append(b, g.pick(" ", "\t", "\n", "\r", "  ")...)
	}
	return b
}

func (g generator) name(b []byte) []byte {
	if g.IntN(3) == 0 {
		return g.str(b, 4)
	}
	return append(append(append(b, '"'), g.pick(`a`, `b`, `\u0061`, `0`, `1`, `10`, `2`, `\u0031`, `00`, `01`, `-0`, `-1`, `1.5`, ``, `é`, `\u00e9`, `\u00E9`,
		`4294967293`, `4294967294`, `4294967295`, `4294967296`, `99999999999`, `9007199254740993`, `__proto__`, `constructor`, `length`, `toJSON`,
		`\ud800`, `\ud801`, `\udc00`, `\ud83d\ude00`, `😀`, `\ufffd`, "\ufffd", "\xff", "\xff\xff", "\xf0\x9f\x98", `/`, `\/`)...), '"')
}

func (g generator) str(b []byte, pieces int) []byte {
	b = append(b, '"')
	for range g.IntN(pieces) {
		switch g.IntN(4) {
		case 0:
			b = append(b, g.pick(`\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`)...)
		case 1:
			unit := g.IntN(0x10000)
			if g.IntN(3) == 0 {
				unit = 0xD800 + g.IntN(0x800)
			} else if g.IntN(3) == 0 {
				unit = g.IntN(0x80)
			}
			b = fmt.Appendf(b, g.pick(`\u%04x`, `\u%04X`), unit)
		case 2:
			b = append(b, g.pick("\u2028", "é", "日本", "😀", "\x7f", "\u0080", "\ufeff", "\uffff", "<&>", "\xff", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\xaf", "\xf0\x9f\x98")...)
		default:
			b = append(b, g.pick("a", "xyz", " ", "hello world", "0123456789")...)
		}
	}
	return append(b, '"')
}

var oddNumbers = []string{
	"0", "-0", "-0.0", "0e5", "1.0", "1e21", "1E21", "1e20", "123456789012345678901", "1e-6", "1e-7", "-1.5e-7", "1E400", "-1E400", "1e-400",
	"9007199254740993", "12345678901234567890", "5e-324", "2.5e-324", "1.7976931348623157e308", "1.7976931348623159e308", "17976931348623158079e289",
	"0.1e309", "0.00001e313", "1e99999999999999999999", "0e99999999999999999999", "-1e-99999999999999999999", "1e+0", "100e-2", "4.35", "0.1", "999999999999999", "9999999999999999",
	"01", "1.", ".5", "+1", "1e", "1e+", "-", "0x10", "1_0", "-01",
	strings.Repeat("9", 308), strings.Repeat("9", 309), "-1" + strings.Repeat("0", 308), "1" + strings.Repeat("0", 309), "0." + strings.Repeat("0", 400) + "1e401",
}

func (g generator) number(b []byte) []byte {
	if g.IntN(4) == 0 {
		return append(b, g.pick(oddNumbers...)...)
	}
	if g.IntN(2) == 0 {
		b = append(b, '-')
	}
	if g.IntN(6) == 0 {
		b = append(b, '0')
	} else {
		b = g.digits(append(b, byte('1'+g.IntN(9))), 0)
	}
	if g.IntN(2) == 0 {
		b = g.digits(append(b, '.'), 1)
	}
	if g.IntN(3) == 0 {
		b = append(b, g.pick("e", "E")...)
		b = append(b, g.pick("", "+", "-")...)
		b = fmt.Append(b, g.IntN(g.pickInt(5, 30, 340)))
	}
	return b
}

func (g generator) digits(b []byte, least int) []byte {
	for range least + g.IntN(g.pickInt(1, 4, 12, 25)) {
		b = append(b, byte('0'+g.IntN(10)))
	}
	return b
}

func (g generator) pick(of ...string) string { return of[g.IntN(len(of))] }
func (g generator) pickInt(of ...int) int    { return of[g.IntN(len(of))] }
