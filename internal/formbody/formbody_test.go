package formbody_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/formbody"
	"github.com/gopushy/pushy/internal/jsvalue"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, body, want string }{
		{"empty", "", `{}`},
		{"field", "a=1", `{"a":"1"}`},
		{"blanksOnly", "  ", `{"  ":""}`},
		{"indexesFirst", "b=1&10=2&9=3", `{"9":"3","10":"2","b":"1"}`},
		{"repeated", "a=1&a=2&a=3", `{"a":["1","2","3"]}`},
		{"equalsInValue", "a=b=c", `{"a":"b=c"}`},
		{"equalsInBrackets", "a[b=c]=d", `{"a":{"b=c":"d"}}`},
		{"openBracket", "a[b=c", `{"a[b":"c"}`},
		{"halfACharacter", "a[b]😀=1", `{"a":{"b]\ud83d":"1"}}`},
		{"listThenName", "a[]=1&a[k]=2&a[]=3", `{"a":{"0":"1","2":"3","k":"2"}}`},
		{"textThenName", "a=1&a[b]=2", `{"a":"1"}`},
		{"insideOfTextByCodeUnit", "a=😀&a[1][c]=2", `{"a":"😀"}`},
		{"nestedThenText", "a[b]=1&a=2", `{"a":[{"b":"1"},"2"]}`},
		{"overwritten", "a[b][c]=1&a[b]=2", `{"a":{"b":"2"}}`},
		{"emptyPush", "a[]=", `{"a":[]}`},
		{"leadingZero", "a[01]=1", `{"a":[]}`},
		{"leadingZeroInObject", "a[0]=x&a[01]=1&a[k]=2", `{"a":{"0":"x","01":"1","k":"2"}}`},
		{"largeIndexInObject", "a[k]=1&a[5000]=2", `{"a":{"5000":"2","k":"1"}}`},
		{"rawBrokenUTF8", "a=\xff\xe2\x82&\xc3=1", "{\"a\":\"\ufffd\ufffd\",\"\ufffd\":\"1\"}"},
		{"escapedBrokenUTF8", "a=%FF+%E2%82", `{"a":"%FF+%E2%82"}`},
		{"halfEscapedCharacter", "a=%C3\xa9", "{\"a\":\"%C3\ufffd\"}"},
		{"overlong", "a=%C0%AF&b=%ED%A0%80&c=%F4%90%80%80", `{"a":"%C0%AF","b":"%ED%A0%80","c":"%F4%90%80%80"}`},
		{"escapedReplacement", "a=%EF%BF%BD", "{\"a\":\"\ufffd\"}"},
		{"NUL", "a=%00", `{"a":"\u0000"}`},
		// D3: qs drops these names, or finds properties that JavaScript objects inherit.
		{"proto", "__proto__=1&__proto__[x]=2&a[__proto__]=3&a[__proto__]=4", `{"__proto__":"1","a":{"__proto__":["3","4"]}}`},
		{"inherited", "constructor=1&a[toString]=2&a[toString][b]=3", `{"constructor":"1","a":{"toString":"2"}}`},
		// The result is always an object. The result of qs is the string "1".
		{"bracketsFirst", "[]=1&[a]=2&[]=3", `{"[]":["1","3"],"[a]":"2"}`},
		{"bracketsFirstEscaped", "%5B%5D=1", `{"[]":"1"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := formbody.Parse([]byte(tt.body))
			require.NoError(t, err)
			assert.Equal(t, tt.want, string(got))
		})
	}
}

func TestParseLimits(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, body, err string }{
		{"fields", strings.Repeat("a=1&", 999) + "a=1", ""},
		{"tooManyFields", strings.Repeat("a=1&", 1000) + "a=1", "field 1001: more than 1000 fields"},
		{"tooManyEmptyFields", strings.Repeat("&", 1000), "field 1001: more than 1000 fields"},
		{"brackets", "a" + strings.Repeat("[b]", 32) + "=1", ""},
		{"tooManyBrackets", "x=1&a" + strings.Repeat("[b]", 33) + "=1", "field 2: more than 32 brackets"},
		{"tooManyBracketsThatDoNotCount", "a[[" + strings.Repeat("[b]", 31) + "=1", "field 1: more than 32 brackets"},
		{"index", "a[1000]=x", ""},
		{"indexTooLarge", "a[1001]=x", "field 1: index over 1000"},
		{"indexFarTooLarge", "a[99999999999999999999]=x", "field 1: index over 1000"},
		{"values", strings.Repeat("a[][1]=1&", 20) + "a[0]=1", ""},
		{"tooManyValues", lists(20), "field 20: more than 20000 values"},
		{"nestedIndexes", "a" + strings.Repeat("[1000]", 32) + "=1", "field 1: more than 20000 values"},
		{"insideOfText", "a=1&a[b][c]=2", "field 2: a name inside a string"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := formbody.Parse([]byte(tt.body))
			if tt.err == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, tt.err)
			assert.Nil(t, got)
			var limit *formbody.Error
			assert.ErrorAs(t, err, &limit)
		})
	}
}

// lists returns n fields, each of which is a list with 1000 gaps.
func lists(n int) string {
	var fields []string
	for i := range n {
		fields = append(fields, string(rune('a'+i))+"[1000]=x")
	}
	return strings.Join(fields, "&")
}

// TestParseAsQs parses generated bodies, with the recorded results of qs 0.5.1 on Node.js 20.20.
// The result is null if qs throws.
func TestParseAsQs(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/qs.json")
	require.NoError(t, err)
	var cases []struct {
		Body string
		Want *string
	}
	require.NoError(t, json.Unmarshal(b, &cases))
	require.Len(t, cases, 430)
	for _, c := range cases {
		got, err := formbody.Parse([]byte(c.Body))
		if c.Want == nil {
			assert.Error(t, err, "%q", c.Body)
			continue
		}
		if assert.NoError(t, err, "%q", c.Body) {
			assert.Equal(t, *c.Want, string(got), "%q", c.Body)
		}
	}
}

func TestParseGolden(t *testing.T) {
	t.Parallel()
	// D3: ordinary names. qs drops the first, and finds inherited functions for the others.
	d3 := map[string]string{
		"form-proto":          `{"__proto__":"1","a":"2"}`,
		"form-hasOwnProperty": `{"hasOwnProperty":"1","toString":"2","a":"3"}`,
	}
	b, err := os.ReadFile("../../testdata/golden/signatures.json")
	require.NoError(t, err)
	var vectors []struct {
		Kind, Name    string
		ContentType   string  `json:"content_type"`
		BodyRaw       *string `json:"body_raw"`
		CanonicalJSON *string `json:"canonical_json"`
	}
	require.NoError(t, json.Unmarshal(b, &vectors))
	ran := 0
	for _, v := range vectors {
		if v.Kind != "trigger" || !strings.HasPrefix(v.ContentType, "application/x-www-form-urlencoded") || v.BodyRaw == nil || v.CanonicalJSON == nil {
			continue
		}
		ran++
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			want := *v.CanonicalJSON
			if ours, ok := d3[v.Name]; ok {
				want = ours
			}
			got, err := formbody.Parse([]byte(*v.BodyRaw))
			require.NoError(t, err)
			assert.Equal(t, want, string(got))
		})
	}
	assert.Greater(t, ran, 40)
}

// TestParsePHP checks D16: the PHP SDK signs the json_encode of its data, and the form keeps only
// strings and lists that are not empty.
func TestParsePHP(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../testdata/golden/signatures.json")
	require.NoError(t, err)
	var vectors []struct {
		Name    string
		BodyRaw *string `json:"body_raw"`
		PHP     *string `json:"php_json_encode"`
	}
	require.NoError(t, json.Unmarshal(b, &vectors))
	escaped := 0
	for _, v := range vectors {
		if v.PHP == nil || v.BodyRaw == nil || !strings.Contains(*v.PHP, `\/`) && !strings.Contains(*v.PHP, `\u`) {
			continue
		}
		escaped++
		got, err := formbody.Parse([]byte(*v.BodyRaw))
		require.NoError(t, err)
		assert.Equal(t, *v.PHP, string(jsvalue.AppendPHP(nil, got)), v.Name)
	}
	assert.Positive(t, escaped)
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "&&a=1&", "a[b]=c&a[]=1", "a[0][x]=1&a[k]=2", "a=1&a[b][c]=2", "a[01]=1&a[1000]=x", "=x", "[]=1", "a[b]😀=%F0%9F%98%80", "a=%zz+y&b=\xff",
		"a[b=c", "]=1", "a[[b]]=1", "__proto__[x]=1", "4294967294=1&4294967295=2",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := formbody.Parse(body)
		if err != nil {
			require.Nil(t, got)
			return
		}
		require.Equal(t, byte('{'), got[0])
		canonical, err := jsvalue.Canonical(nil, got, jsvalue.TriggerLimits)
		require.NoError(t, err)
		require.Equal(t, string(got), string(canonical))
	})
}

func BenchmarkParse(b *testing.B) {
	for name, body := range map[string][]byte{
		"few":  []byte("user=alice&text=hello+world%21&tags[]=a&tags[]=b&meta[x]=1"),
		"many": []byte(strings.Repeat("a[0][name]=some+text+%C3%A9&", 999)),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				_, _ = formbody.Parse(body)
			}
		})
	}
}
