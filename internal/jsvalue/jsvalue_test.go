package jsvalue_test

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/jsvalue"
)

func TestCanonicalAndCompact(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, src, canonical, compact string }{
		{"blanks", " { \"a\" :\t[ 1 ,\r\n2 ] } ", `{"a":[1,2]}`, `{"a":[1,2]}`},
		{"empties", `[{}, [ ], { }, ""]`, `[{},[],{},""]`, `[{},[],{},""]`},
		{"repeatedName", `{"a":1,"b":2,"a":3}`, `{"a":3,"b":2}`, `{"a":1,"b":2,"a":3}`},
		{"repeatedEscapedName", `{"a":1,"\u0061":{"x":1}}`, `{"a":{"x":1}}`, `{"a":1,"\u0061":{"x":1}}`},
		{"indexesFirst", `{"b":1,"10":2,"9":3,"a":{"x":1,"0":2}}`, `{"9":3,"10":2,"b":1,"a":{"0":2,"x":1}}`, `{"b":1,"10":2,"9":3,"a":{"x":1,"0":2}}`},
		{"indexEdges", `{"4294967295":1,"01":2,"-0":3,"4294967294":4,"1e1":5}`, `{"4294967294":4,"4294967295":1,"01":2,"-0":3,"1e1":5}`,
			`{"4294967295":1,"01":2,"-0":3,"4294967294":4,"1e1":5}`},
		{"proto", `{"a":1,"__proto__":{"b":2}}`, `{"a":1,"__proto__":{"b":2}}`, `{"a":1,"__proto__":{"b":2}}`},
		{"numbers", `[1.0,-0,1e21,1e20,1E400,-1e400,1e-7,0.000001,1e-400]`, `[1,0,1e+21,100000000000000000000,null,null,1e-7,0.000001,0]`,
			`[1.0,-0,1e21,1e20,null,null,1e-7,0.000001,1e-400]`},
		{"bigInteger", `12345678901234567890`, `12345678901234567000`, `12345678901234567890`},
		{"escapes", `"\u0041\/\b\f\n\r\t\u0008\u001F\u007f\"\\\u0022"`, `"A/\b\f\n\r\t\b\u001f` + "\x7f" + `\"\\\""`, `"\u0041\/\b\f\n\r\t\u0008\u001F\u007f\"\\\u0022"`},
		{"loneSurrogates", `"\uD83D\ud83d\uDE00\uDE00"`, `"\ud83d` + "😀" + `\ude00"`, `"\uD83D\ud83d\uDE00\uDE00"`},
		{"loneSurrogatesAreDistinct", `{"\ud800":1,"\ud801":2,"\ufffd":3,"\uD800":4}`, `{"\ud800":4,"\ud801":2,"` + "\ufffd" + `":3}`, `{"\ud800":1,"\ud801":2,"\ufffd":3,"\uD800":4}`},
		{"lineSeparators", "\"\u2028\\u2029\"", "\"\u2028\u2029\"", "\"\u2028\\u2029\""},
		{"html", `"<b>&'\u003c"`, `"<b>&'<"`, `"<b>&'\u003c"`},
		{"brokenUTF8", "\"a\xffb\xe2\x82c\xed\xa0\x80\"", "\"a\ufffdb\ufffdc\ufffd\ufffd\ufffd\"", "\"a\ufffdb\ufffdc\ufffd\ufffd\ufffd\""},
		{"brokenUTF8InName", "{\"\xff\":1, \"\xfe\":2}", "{\"\ufffd\":2}", "{\"\ufffd\":1,\"\ufffd\":2}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := jsvalue.Canonical([]byte("x"), []byte(tt.src), jsvalue.TriggerLimits)
			require.NoError(t, err)
			assert.Equal(t, "x"+tt.canonical, string(got))
			got, err = jsvalue.Compact([]byte("x"), []byte(tt.src), jsvalue.TriggerLimits)
			require.NoError(t, err)
			assert.Equal(t, "x"+tt.compact, string(got))
		})
	}
}

func TestCompactInfinite(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("0", 400)
	tests := []struct {
		name, src string
		infinite  bool
	}{
		{"largestDouble", "1.7976931348623157e308", false},
		{"roundsDown", "1.7976931348623158e308", false},
		{"roundsUp", "-1.7976931348623159e308", true},
		{"exponent309", "1e309", true},
		{"capitalE", "1E+400", true},
		{"pointMovesDown", "0.1e309", false},
		{"pointMovesUp", "12.5e308", true},
		{"longFraction", "0." + zeros + "1e401", false},
		{"longFractionInfinite", "0." + zeros + "1e800", true},
		{"longInteger", "1" + zeros, true},
		{"longIntegerFinite", "1" + zeros + "e-400", false},
		{"308Digits", strings.Repeat("9", 308), false},
		{"309Digits", strings.Repeat("9", 309), true},
		{"309DigitsFinite", "1" + strings.Repeat("0", 308), false},
		{"manyDigitsAfterPoint", "1." + zeros, false},
		{"zero", "0e99999999999999999999", false},
		{"exponentOverInt", "1e99999999999999999999", true},
		{"exponentUnderInt", "1e-99999999999999999999", false},
		{"exponentMaxInt", "123e9223372036854775807", true},
		{"exponentMinInt", "0.001e-9223372036854775808", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := "[" + tt.src + ",1]"
			if tt.infinite {
				want = "[null,1]"
			}
			got, err := jsvalue.Compact(nil, []byte("["+tt.src+", 1]"), jsvalue.Limits{})
			require.NoError(t, err)
			assert.Equal(t, want, string(got))
		})
	}
}

func TestCanonicalManyMembers(t *testing.T) {
	t.Parallel()
	var src, want strings.Builder
	for i := range 100 {
		fmt.Fprintf(&src, `"k%d":%d,`, i%50, i)
	}
	for i := range 50 {
		fmt.Fprintf(&want, `,"k%d":%d`, i, i+50)
	}
	got, err := jsvalue.Canonical(nil, []byte("{"+src.String()+`"1":1}`), jsvalue.Limits{})
	require.NoError(t, err)
	assert.Equal(t, `{"1":1`+want.String()+"}", string(got))
}

func TestSyntaxErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, src string
		offset    int
		msg       string
	}{
		{"empty", ``, 0, "byte 0: unexpected end, expected a value"},
		{"blanksOnly", " \n", 2, "byte 2: unexpected end, expected a value"},
		{"byteOrderMark", "\ufeff{}", 0, "byte 0: unexpected byte 0xef, expected a value"},
		{"noBreakSpace", "\u00a0{}", 0, "byte 0: unexpected byte 0xc2, expected a value"},
		{"verticalTab", "\v{}", 0, "byte 0: unexpected byte 0x0b, expected a value"},
		{"nan", `{"a":NaN}`, 5, "byte 5: unexpected 'N', expected a value"},
		{"cutLiteral", `[tru]`, 4, "byte 4: unexpected ']', expected true"},
		{"trailingData", `{}{}`, 2, "byte 2: unexpected '{', expected the end"},
		{"trailingComma", `[1,]`, 3, "byte 3: unexpected ']', expected a value"},
		{"trailingCommaInObject", `{"a":1,}`, 7, "byte 7: unexpected '}', expected a string"},
		{"noColon", `{"a" 1}`, 5, "byte 5: unexpected '1', expected ':'"},
		{"noComma", `{"a":1 "b":2}`, 7, "byte 7: unexpected '\"', expected ',' or '}'"},
		{"noCommaInArray", `[1 2]`, 3, "byte 3: unexpected '2', expected ',' or ']'"},
		{"singleQuotes", `{'a':1}`, 1, "byte 1: unexpected '\\'', expected a string"},
		{"openString", `"abc`, 4, "byte 4: unexpected end, expected '\"'"},
		{"rawNewline", "\"a\n\"", 2, "byte 2: unexpected byte 0x0a, expected an escape for it"},
		{"rawNUL", "\"\x00\"", 1, "byte 1: unexpected byte 0x00, expected an escape for it"},
		{"NUL", "\x00", 0, "byte 0: unexpected byte 0x00, expected a value"},
		{"badEscape", `"\x"`, 2, "byte 2: unexpected 'x', expected an escape"},
		{"shortUnicode", `"\u12"`, 5, "byte 5: unexpected '\"', expected four hex digits"},
		{"cutUnicode", `"\ud8`, 5, "byte 5: unexpected end, expected four hex digits"},
		{"leadingZero", `01`, 1, "byte 1: unexpected '1', expected the end"},
		{"plus", `+1`, 0, "byte 0: unexpected '+', expected a value"},
		{"minus", `-`, 1, "byte 1: unexpected end, expected a digit"},
		{"noInteger", `.5`, 0, "byte 0: unexpected '.', expected a value"},
		{"noFraction", `1.`, 2, "byte 2: unexpected end, expected a digit"},
		{"noExponent", `1e+`, 3, "byte 3: unexpected end, expected a digit"},
		{"brokenUTF8Outside", "[\xff]", 1, "byte 1: unexpected byte 0xff, expected a value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for name, f := range map[string]func(dst, src []byte, lim jsvalue.Limits) ([]byte, error){
				"Canonical": jsvalue.Canonical, "Compact": jsvalue.Compact,
			} {
				got, err := f([]byte("x"), []byte(tt.src), jsvalue.Limits{})
				assert.Equal(t, "x", string(got), name)
				var syntax *jsvalue.SyntaxError
				if assert.ErrorAs(t, err, &syntax, name) {
					assert.Equal(t, tt.offset, syntax.Offset, name)
					assert.EqualError(t, err, tt.msg, name)
				}
			}
		})
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	objects := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	values := func(n int) string { return "[" + strings.Repeat("1,", n-2) + "1]" }
	tests := []struct {
		name, src string
		lim       jsvalue.Limits
		err       string
	}{
		{"depth", nested(256), jsvalue.TriggerLimits, ""},
		{"tooDeep", nested(257), jsvalue.TriggerLimits, "byte 256: over the limit of depth (256)"},
		{"objects", objects(256), jsvalue.TriggerLimits, ""},
		{"objectsTooDeep", objects(257), jsvalue.TriggerLimits, "byte 1280: over the limit of depth (256)"},
		{"values", values(20_000), jsvalue.TriggerLimits, ""},
		{"tooManyValues", values(20_001), jsvalue.TriggerLimits, "byte 39999: over the limit of values (20000)"},
		{"repeatedNamesCount", `{"a":1,"a":2}`, jsvalue.Limits{Values: 2}, "byte 11: over the limit of values (2)"},
		{"zeroIsUnlimitedValues", values(100_000), jsvalue.Limits{}, ""},
		{"zeroIsSafeDepth", nested(10_000), jsvalue.Limits{}, ""},
		{"unboundedDepth", nested(1_000_000), jsvalue.Limits{}, "byte 10000: over the limit of depth (10000)"},
		{"unboundedOpenings", strings.Repeat(`[{"a":`, 1_000_000), jsvalue.Limits{Depth: math.MaxInt}, "byte 30000: over the limit of depth (10000)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, canonicalErr := jsvalue.Canonical(nil, []byte(tt.src), tt.lim)
			_, compactErr := jsvalue.Compact(nil, []byte(tt.src), tt.lim)
			if tt.err == "" {
				require.NoError(t, canonicalErr)
				require.NoError(t, compactErr)
				return
			}
			require.EqualError(t, canonicalErr, tt.err)
			require.EqualError(t, compactErr, tt.err)
			var limit *jsvalue.LimitError
			require.True(t, errors.As(compactErr, &limit))
		})
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, src string
		want      []string
	}{
		{"empty", ` { } `, nil},
		{"plain", `{"command":"SUBSCRIBE", "data" : {"channel": "x"} , "id":1}`, []string{"command", `"SUBSCRIBE"`, "data", `{"channel": "x"}`, "id", "1"}},
		{"caseCounts", `{"Command":1}`, []string{"Command", "1"}},
		{"escapedName", `{"\u0063ommand":null}`, []string{"command", "null"}},
		{"repeatedName", `{"a":1,"a":2}`, []string{"a", "1", "a", "2"}},
		{"loneSurrogateName", `{"\ud800":1}`, []string{"\ufffd", "1"}},
		{"brokenName", "{\"\xe2\x82\":\"\xff\"}", []string{"\ufffd", "\"\xff\""}},
		{"longEscapedName", `{"\u0041` + strings.Repeat("x", 200) + `":1}`, []string{"A" + strings.Repeat("x", 200), "1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			err := jsvalue.Fields([]byte(tt.src), func(name, value []byte) {
				got = append(got, string(name), string(value))
			})
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
	for _, src := range []string{``, `[]`, `"x"`, `null`, `{`, `{"a"}`, `{"a":}`, `{"a":1`, `{"a":1}x`, `{"a":[1,}`, "\ufeff{}", `{"a":` + strings.Repeat("[", 1_000_000)} {
		t.Run("refused/"+src[:min(len(src), 10)], func(t *testing.T) {
			t.Parallel()
			assert.Error(t, jsvalue.Fields([]byte(src), func(_, _ []byte) {}))
		})
	}
}

// Not parallel, because AllocsPerRun counts the allocations of all goroutines.
func TestFieldsDoesNotAllocate(t *testing.T) {
	src := []byte(`{"command":"SUBSCRIBE","data":{"channel":"private-room","auth":"x"},"id":17}`)
	var command, data []byte
	allocs := testing.AllocsPerRun(100, func() {
		_ = jsvalue.Fields(src, func(name, value []byte) {
			switch string(name) {
			case "command":
				command = value
			case "data":
				data = value
			}
		})
	})
	assert.Zero(t, allocs)
	assert.Equal(t, `"SUBSCRIBE"`, string(command))
	assert.Equal(t, `{"channel":"private-room","auth":"x"}`, string(data))
}

func TestSetFields(t *testing.T) {
	t.Parallel()
	three := []jsvalue.Field{
		{Name: "subscribed", Value: []byte("17")}, {Name: "memberId", Value: []byte(`"m"`)}, {Name: "idle", Value: []byte("false")},
	}
	tests := []struct {
		name, object string
		fields       []jsvalue.Field
		want         string
	}{
		{"empty", `{}`, three, `{"subscribed":17,"memberId":"m","idle":false}`},
		{"none", `{"a":1}`, nil, `{"a":1}`},
		{"noneInEmpty", `{}`, nil, `{}`},
		{"appended", `{"a":{"memberId":0}}`, three, `{"a":{"memberId":0},"subscribed":17,"memberId":"m","idle":false}`},
		// Recorded as presence-reserved-keys.
		{"replacedInPlace", `{"1":"x","memberId":"me","idle":"yes","z":1,"subscribed":0,"a":2}`, three, `{"1":"x","memberId":"m","idle":false,"z":1,"subscribed":17,"a":2}`},
		{"loneSurrogatesStay", `{"\ud800":1,"\ud801":2}`, three[2:], `{"\ud800":1,"\ud801":2,"idle":false}`},
		{"escapedNameMatches", `{"\u0069dle":1}`, three[2:], `{"\u0069dle":false}`},
		{"quotedName", `{"a":1}`, []jsvalue.Field{{Name: "\"\n", Value: []byte("2")}}, `{"a":1,"\"\n":2}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := jsvalue.SetFields([]byte("x"), []byte(tt.object), tt.fields...)
			require.NoError(t, err)
			assert.Equal(t, "x"+tt.want, string(got))
		})
	}
	got, err := jsvalue.SetFields([]byte("x"), []byte(`{"a":1,`), three...)
	require.Error(t, err)
	assert.Equal(t, "x", string(got))
}

func TestText(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, value, want string
		ok                bool
	}{
		{"plain", `"abc é"`, "abc é", true},
		{"empty", `""`, "", true},
		{"escapes", `"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"`, "\"\\/\b\f\n\r\té😀", true},
		{"loneSurrogates", `"\ud83dx\ude00\ud83d\u0041"`, "\ufffdx\ufffd\ufffdA", true},
		{"brokenUTF8", "\"\xf0\x9f\x98\xff\"", "\ufffd\ufffd", true},
		{"number", `1`, "", false},
		{"null", `null`, "", false},
		{"object", `{}`, "", false},
		{"nothing", ``, "", false},
		{"open", `"a`, "", false},
		{"trailing", `"a" `, "", false},
		{"badEscape", `"\x"`, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, ok := jsvalue.Text([]byte(tt.value))
			assert.Equal(t, tt.ok, ok)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestKind(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]byte{
		`{}`: '{', `[1]`: '[', `""`: '"', `true`: 't', `false`: 'f', `null`: 'n', `-1`: '0', `0`: '0', `9`: '0', ``: 0, ` 1`: 0, `x`: 0,
	} {
		t.Run(strconv.Quote(value), func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, want, jsvalue.Kind([]byte(value)))
		})
	}
}

func TestAppendPHP(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, canonical, want string }{
		{"slash", `{"a/b":"c/d"}`, `{"a\/b":"c\/d"}`},
		{"twoBytes", `"é"`, `"\u00e9"`},
		{"threeBytes", "\"日\u2028\"", `"\u65e5\u2028"`},
		{"fourBytes", `"😀"`, `"\ud83d\ude00"`},
		{"lastCodePoint", "\"\U0010FFFF\"", `"\udbff\udfff"`},
		{"deleteStays", "\"\x7f\u0080\"", "\"\x7f\\u0080\""},
		{"escapesStay", `"\"\\\n\u001f\ud800"`, `"\"\\\n\u001f\ud800"`},
		{"htmlStays", `"<>&'"`, `"<>&'"`},
		{"broken", "\"\xe2\x82\"", `"\ufffd"`},
		// Issue 11, number 27: as PHP 8.2 writes them.
		{"smallNumbers", `[0.00001,1e-7,1.5e-7,-0.000012]`, `[1.0e-5,1.0e-7,1.5e-7,-1.2e-5]`},
		{"largeNumbers", `[1e+21,1.5e+300,123456789012345680000]`, `[1.0e+21,1.5e+300,1.2345678901234568e+20]`},
		{"plainNumbers", `[0,-1,0.0001,123.25,9007199254740992,-0.5]`, `[0,-1,0.0001,123.25,9007199254740992,-0.5]`},
		{"largestInteger", `[9223372036854775000,-9223372036854775000]`, `[9223372036854775000,-9223372036854775000]`},
		{"overTheLargestInteger", `[9223372036854776000,-9223372036854776000]`, `[9.223372036854776e+18,-9.223372036854776e+18]`},
		{"textOfNumbers", `{"1e-7":"0.00001 \" 1e+21"}`, `{"1e-7":"0.00001 \" 1e+21"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, "x"+tt.want, string(jsvalue.AppendPHP([]byte("x"), []byte(tt.canonical))))
		})
	}
}

func TestLower(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"empty", "", ""},
		{"ascii", "Private-ROOM_[@`{", "private-room_[@`{"},
		{"dotted", "PRİVATE-x", "pri\u0307vate-x"},
		{"kelvin", "K", "k"},
		{"sharpS", "ẞß", "ßß"},
		{"titleCase", "ǅ", "ǆ"},
		{"finalSigma", "ΟΔΟΣ", "οδος"},
		{"sigmaAlone", "Σ", "σ"},
		{"sigmaInside", "ΟΣΟ ΣΟ", "οσο σο"},
		{"sigmaBeforeIgnorable", "ΟΣ'-ΟΣ'Ο", "ος'-οσ'ο"},
		{"unicode17", "\u1c89\ua7dc\U00010d50\U00016ea0", "\u1c8a\u019b\U00010d70\U00016ebb"},
		{"brokenPasses", "A\xff\xe2\x82É\xc3", "a\xff\xe2\x82é\xc3"},
		{"replacementPasses", "A\ufffd", "a\ufffd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tt.want, jsvalue.Lower(tt.in))
		})
	}
}

// Not parallel, for the same reason.
func TestLowerDoesNotAllocate(t *testing.T) {
	for _, s := range []string{"private-room", "комната-日本-ß\xff"} {
		assert.Zero(t, testing.AllocsPerRun(100, func() { jsvalue.Lower(s) }), s)
	}
}

// Compacted has the same result as Compact, and copies only if necessary.
func TestCompacted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, in, want string // want is "" for an error
	}{
		{"compact", `{"a":[1,"é",null,true]}`, `{"a":[1,"é",null,true]}`},
		{"blanks", " {\"a\" : 1 }\n", `{"a":1}`},
		{"leadingBlank", ` 1`, `1`},
		{"trailingBlank", `1 `, `1`},
		{"infinite", `[1e999]`, `[null]`},
		{"string", `"x"`, `"x"`},
		{"loneEscape", `"\ud800"`, `"\ud800"`},
		{"empty", ``, ``},
		{"blank", ` `, ``},
		{"two", `1 2`, ``},
		{"open", `{"a":1`, ``},
		{"rawControl", "\"\n\"", ``},
		{"invalidUTF8", "\"\xff\"", ``},
		{"surrogateUTF8", "\"\xed\xa0\x80\"", ``},
		{"nul", "\x00", ``},
		{"deep", strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001), ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			src := []byte(c.in)
			got, err := jsvalue.Compacted(src, jsvalue.Limits{})
			if c.want == "" {
				assert.Error(t, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, string(got))
			assert.Equal(t, c.in, string(src))
			if c.want == c.in {
				assert.Same(t, &src[0], &got[0])
			}
			whole, err := jsvalue.Compact(nil, src, jsvalue.Limits{})
			require.NoError(t, err)
			assert.Equal(t, string(whole), string(got))
		})
	}
}
