package strictjson_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/strictjson"
)

// BenchmarkDecode decodes the data of a small typed command, and of one with lists.
func BenchmarkDecode(b *testing.B) {
	type message struct {
		T   string `json:"t"`
		Pad string `json:"pad"`
	}
	type moves struct {
		Game  string         `json:"game"`
		Moves []point        `json:"moves"`
		Flags map[string]int `json:"flags"`
		Note  *string        `json:"note"`
	}
	b.Run("small", func(b *testing.B) {
		benchmarkDecode[message](b, `{"t":"@@T0000000000000000001","pad":"`+strings.Repeat("x", 168)+`"}`)
	})
	b.Run("lists", func(b *testing.B) {
		benchmarkDecode[moves](b, `{"game":"chess","moves":[{"x":1,"y":2.5},{"x":-3,"y":4}],"flags":{"a":1,"b":2},"note":"a \"note\""}`)
	})
}

func benchmarkDecode[T any](b *testing.B, text string) {
	d, err := strictjson.New[T]()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.DecodeValid([]byte(text)); err != nil {
			b.Fatal(err)
		}
	}
}
