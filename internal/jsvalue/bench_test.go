package jsvalue_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gopushy/pushy/internal/jsvalue"
)

var (
	benchMessage = []byte(`{"command":"SUBSCRIBE","data":{"channel":"private-room","auth":"` + strings.Repeat("0123456789abcdef", 4) + `","data":"{\"name\":\"x\"}"}}`)
	benchCompact = []byte(`{"user":"alice","text":"` + strings.Repeat("the quick brown fox ", 20) + `","n":[1,2.5,3e10],"nested":{"a":true,"b":null}}`)
	benchSpaced  = []byte(strings.NewReplacer(",", ", ", ":", ": ").Replace(string(benchCompact)))
	benchLarge   = func() []byte {
		var b strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&b, `,{"id":%d,"name":"item %d","tags":["a","b"],"score":%d.5}`, i, i, i)
		}
		return []byte("[" + b.String()[1:] + "]")
	}()
)

func BenchmarkCompact(b *testing.B) {
	for name, src := range map[string][]byte{"compact": benchCompact, "spaced": benchSpaced, "large": benchLarge} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(src)))
			dst := make([]byte, 0, len(src))
			for b.Loop() {
				dst, _ = jsvalue.Compact(dst[:0], src, jsvalue.TriggerLimits)
			}
		})
	}
}

func BenchmarkCanonical(b *testing.B) {
	for name, src := range map[string][]byte{
		"compact": benchCompact, "large": benchLarge, "reordered": []byte(`{"b":1,"a":2,"10":3,"9":4,"b":5}`), "escaped": []byte(`{"a":"\u00e9\ud83d\ude00\/x"}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(src)))
			dst := make([]byte, 0, len(src))
			for b.Loop() {
				dst, _ = jsvalue.Canonical(dst[:0], src, jsvalue.Limits{})
			}
		})
	}
}

func BenchmarkFields(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(benchMessage)))
	for b.Loop() {
		_ = jsvalue.Fields(benchMessage, func(_, _ []byte) {})
	}
}

func BenchmarkLower(b *testing.B) {
	for name, s := range map[string]string{"ascii": "private-room-1234567890", "upper": "Private-Room-1234567890", "cyrillic": "комната-123", "sigma": "ΟΔΟΣ-ΟΔΟΣ"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				jsvalue.Lower(s)
			}
		})
	}
}
