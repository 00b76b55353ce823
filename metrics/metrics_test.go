package metrics_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/metrics"
	"github.com/gopushy/pushy/metrics/internal/table"
	"github.com/gopushy/pushy/pushytest"
)

func newServer(t *testing.T) *pushy.Server {
	t.Helper()
	srv, err := pushy.New(pushy.Options{SecretKey: "the secret key of a test"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	return srv
}

// The module metrics/prometheus parses the whole output.
func TestHandler(t *testing.T) {
	t.Parallel()
	h := metrics.Handler(newServer(t))
	for method, status := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/anything", nil))
		assert.Equal(t, status, w.Code)
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		assert.Equal(t, method == "GET", w.Body.Len() > 0)
		if status == 200 {
			assert.Equal(t, "text/plain; version=0.0.4; charset=utf-8", w.Header().Get("Content-Type"))
		}
		if method == "GET" {
			assert.Contains(t, w.Body.String(), "# HELP pushy_connections Open connections.\n"+
				"# TYPE pushy_connections gauge\npushy_connections 0\n")
			assert.Contains(t, w.Body.String(), `pushy_broker_call_duration_seconds_bucket{le="0.0025"} 0`)
		}
	}
}

func TestVar(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	c := pushytest.New(t, srv).Connect()
	c.Subscribe("news")
	var all map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(metrics.Var(srv).String()), &all))
	assert.Len(t, all, len(table.Metrics))
	assert.Equal(t, "1", string(all["pushy_connections"]))
	var joins map[string]int
	require.NoError(t, json.Unmarshal(all["pushy_joins_total"], &joins))
	assert.Equal(t, 1, joins["joined"])
	var commands map[string]struct {
		Count   int
		Sum     float64
		Buckets map[string]int
	}
	require.NoError(t, json.Unmarshal(all["pushy_command_duration_seconds"], &commands))
	assert.Equal(t, 1, commands["subscribe"].Count)
	assert.Equal(t, 1, commands["subscribe"].Buckets["+Inf"])
	assert.Positive(t, commands["subscribe"].Sum)
	assert.Panics(t, func() { metrics.Var(nil) })
}

// Names follow the conventions of Prometheus: a prefix, base units, and _total for counters.
func TestNames(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, m := range table.Metrics {
		assert.False(t, known[m.Name], m.Name)
		known[m.Name] = true
		assert.Regexp(t, "^pushy_[a-z]+(_[a-z]+)*$", m.Name)
		assert.Equal(t, m.Kind == table.Counter, strings.HasSuffix(m.Name, "_total"), m.Name)
		assert.Equal(t, m.Kind == table.Histogram, strings.HasSuffix(m.Name, "_seconds"), m.Name)
		assert.Equal(t, m.Unit == "By", strings.HasSuffix(strings.TrimSuffix(m.Name, "_total"), "_bytes"), m.Name)
		assert.True(t, strings.HasSuffix(m.Help, "."), m.Help)
	}
}
