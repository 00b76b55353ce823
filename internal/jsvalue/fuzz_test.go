package jsvalue_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/jsvalue"
)

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{
		`{"b":1,"1":{"x":[1.0,1E400,-0]},"b":"\ud83d\u00e9\/"}`, "\"\xff\xe2\x82\"", `{"a":1,}`, "\ufeff[]", ` [ ] `, `1e-7`,
		`{"\ud800":1,"\udfff":2,"\ufffd":3}`, `"\u2028\u0000"`, `{"4294967294":0,"4294967295":1,"__proto__":2}`, `[[[[{}]]]]`, `nul`, `0e1`,
	} {
		f.Add([]byte(seed))
	}
	g := generator{rand.New(rand.NewPCG(5, 8))}
	for range 50 {
		f.Add(g.text())
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		canonical, err := jsvalue.Canonical(nil, src, jsvalue.TriggerLimits)
		compact, compactErr := jsvalue.Compact(nil, src, jsvalue.TriggerLimits)
		require.Equal(t, err, compactErr)
		if _, ok := err.(*jsvalue.LimitError); !ok {
			// encoding/json has the same grammar, and accepts invalid UTF-8, too.
			require.Equal(t, json.Valid(src), err == nil)
		}
		object := false
		fieldsErr := jsvalue.Fields(src, func(_, _ []byte) { object = true })
		if err != nil {
			return
		}
		require.True(t, json.Valid(canonical) && json.Valid(compact))
		require.Equal(t, jsvalue.Kind(canonical) == '{', fieldsErr == nil)
		require.Equal(t, fieldsErr == nil && string(canonical) != "{}", object)

		again, err := jsvalue.Canonical(nil, canonical, jsvalue.TriggerLimits)
		require.NoError(t, err)
		require.Equal(t, string(canonical), string(again))
		again, err = jsvalue.Canonical(nil, compact, jsvalue.TriggerLimits)
		require.NoError(t, err)
		require.Equal(t, string(canonical), string(again))
		again, err = jsvalue.Compact(nil, compact, jsvalue.TriggerLimits)
		require.NoError(t, err)
		require.Equal(t, string(compact), string(again))
		again, err = jsvalue.Canonical(nil, jsvalue.AppendPHP(nil, canonical), jsvalue.TriggerLimits)
		require.NoError(t, err)
		require.Equal(t, string(canonical), string(again))
		if text, ok := jsvalue.Text(canonical); ok && !bytes.Contains(canonical, []byte(`\ud`)) {
			require.Equal(t, string(canonical), string(jsvalue.AppendQuote(nil, text)))
		}
	})
}

func FuzzLower(f *testing.F) {
	for _, seed := range []string{"", "PRİVATE-x", "ΟΔΟΣ", "AΣ'\u0345B", "\xff\xc3A", "\U00010d50ẞ", "Σ\u00ad"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lower := jsvalue.Lower(s)
		require.Equal(t, lower, jsvalue.Lower(lower))
	})
}
