package pushyjson_test

import (
	"strings"
	"testing"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// BenchmarkEvent renders one channel event.
func BenchmarkEvent(b *testing.B) {
	p := &pushyjson.Protocol{}
	e := hub.Event{
		Kind:    hub.Published,
		Channel: "room",
		Name:    "told",
		Data:    []byte(`{"text":"` + strings.Repeat("x", 189) + `"}`),
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Append(nil, e)
	}
}
