package fanout_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gopushy/pushy/internal/fanout"
)

// BenchmarkEncode encodes one message in one form, as is done once for all receivers.
func BenchmarkEncode(b *testing.B) {
	forms := []struct {
		name string
		form fanout.Form
	}{{"framed", fanout.Framed}, {"bare", fanout.Bare}}
	for _, size := range []int{60, 200, 4000} {
		text := []byte(`{"event":"m","channel":"room","data":{"text":"` + strings.Repeat("x", size) + `"}}`)
		for _, f := range forms {
			b.Run(fmt.Sprintf("%s/%d", f.name, size), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					fanout.NewFrame(text).Bytes(f.form)
				}
			})
		}
	}
}
