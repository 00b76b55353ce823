package metrics_test

import (
	"net/http/httptest"
	"testing"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/metrics"
)

// BenchmarkHandler is one scrape of a Server without connections.
func BenchmarkHandler(b *testing.B) {
	srv, err := pushy.New(pushy.Options{SecretKey: "the key of a benchmark, which nobody else has"})
	if err != nil {
		b.Fatal(err)
	}
	defer srv.Close()
	h := metrics.Handler(srv)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
	}
}
