package wire_test

import (
	"strings"
	"testing"

	"github.com/gopushy/pushy/internal/wire"
)

// BenchmarkEvent is the text of one channel event.
func BenchmarkEvent(b *testing.B) {
	data := []byte(`{"text":"` + strings.Repeat("x", 189) + `"}`)
	b.ReportAllocs()
	for b.Loop() {
		wire.Event("told", "room", data)
	}
}
