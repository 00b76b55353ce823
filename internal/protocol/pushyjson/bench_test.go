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

// BenchmarkParseSubscription parses what a client sends that subscribes for the first time, and
// one that returns.
func BenchmarkParseSubscription(b *testing.B) {
	for name, data := range map[string]string{
		"new":   `{"channel":"news"}`,
		"since": `{"channel":"news","since":{"epoch":"k3Xa9Q","offset":1030},"was":["0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8"]}`,
		"member": `{"channel":"private-a","auth":"34311d31fe60b85062bef2ae0ffe409dbadd2beb6c8c52539dd04f04154a7bcf","hold":true,` +
			`"member":{"id":"0f3c1b7a5d2e4c6f8a9b0c1d2e3f4a5b","key":"t9GvYb1cH5pUeQ2xWnLk0A"},"presence":{"mode":"diff","since":"k3Xa9Q.16"}}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := pushyjson.ParseSubscription([]byte(data)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
