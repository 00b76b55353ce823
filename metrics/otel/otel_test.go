package otel_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/metrics/internal/table"
	"github.com/gopushy/pushy/metrics/otel"
	"github.com/gopushy/pushy/pushytest"
)

// collected returns the values by name and attributes.
func collected(t *testing.T, reader metric.Reader) (values map[string]float64, units map[string]string) {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	values, units = map[string]float64{}, map[string]string{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			units[m.Name] = m.Unit
			var points []metricdata.DataPoint[float64]
			switch data := m.Data.(type) {
			case metricdata.Sum[float64]:
				assert.Equal(t, strings.HasSuffix(m.Name, "_total"), data.IsMonotonic, m.Name)
				points = data.DataPoints
			case metricdata.Gauge[float64]:
				points = data.DataPoints
			default:
				require.Fail(t, "another kind of data", "%s %T", m.Name, data)
			}
			for _, p := range points {
				var attributes []string
				for _, a := range p.Attributes.ToSlice() {
					attributes = append(attributes, string(a.Key)+"="+a.Value.AsString())
				}
				values[m.Name+"{"+strings.Join(attributes, ",")+"}"] = p.Value
			}
		}
	}
	return values, units
}

// An exporter for Prometheus leaves the names as they are, so that docs/operations is true of them.
func TestNamesBehindPrometheus(t *testing.T) {
	t.Parallel()
	srv, err := pushy.New(pushy.Options{SecretKey: "the secret key of a test"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	registry := client.NewRegistry()
	exporter, err := prometheus.New(prometheus.WithRegisterer(registry), prometheus.WithoutTargetInfo())
	require.NoError(t, err)
	_, err = otel.Register(srv, metric.NewMeterProvider(metric.WithReader(exporter)).Meter("test"))
	require.NoError(t, err)
	families, err := registry.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	var want []string
	for i := range table.Metrics {
		m := &table.Metrics[i]
		switch {
		case m.Kind == table.Histogram:
			want = append(want, m.Name+"_bucket", m.Name+"_sum", m.Name+"_count")
		default:
			want = append(want, m.Name)
		}
	}
	assert.ElementsMatch(t, want, names)
}

func TestRegister(t *testing.T) {
	t.Parallel()
	srv, err := pushy.New(pushy.Options{SecretKey: "the secret key of a test"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	reader := metric.NewManualReader()
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	registration, err := otel.Register(srv, provider.Meter("test"))
	require.NoError(t, err)
	c := pushytest.New(t, srv).Connect()
	c.Subscribe("news")
	require.NoError(t, srv.Publish(t.Context(), "news", "e", 1))
	c.ExpectEvent("news", "e", nil)

	values, units := collected(t, reader)
	var want []string
	for i := range table.Metrics {
		m := &table.Metrics[i]
		switch {
		case m.Kind == table.Histogram:
			want = append(want, m.Name+"_bucket", m.Name+"_sum", m.Name+"_count")
			assert.Equal(t, "s", units[m.Name+"_sum"])
		default:
			want = append(want, m.Name)
			assert.Equal(t, m.Unit, units[m.Name])
		}
	}
	assert.ElementsMatch(t, want, slices.Collect(maps.Keys(units)))
	for name, n := range map[string]float64{
		"pushy_connections{}":                                              1,
		"pushy_connections_opened_total{}":                                 1,
		"pushy_deliveries_total{}":                                         1,
		"pushy_joins_total{outcome=joined}":                                1,
		"pushy_joins_total{outcome=denied}":                                0,
		"pushy_published_events_total{}":                                   1,
		"pushy_command_duration_seconds_count{command=subscribe}":          1,
		"pushy_command_duration_seconds_bucket{command=subscribe,le=+Inf}": 1,
		"pushy_command_duration_seconds_bucket{command=unknown,le=0.0001}": 0,
	} {
		got, has := values[name]
		assert.True(t, has, name)
		assert.Equal(t, n, got, name)
	}
	require.NoError(t, registration.Unregister())
	values, _ = collected(t, reader)
	assert.Empty(t, values)
	_, err = otel.Register(nil, provider.Meter("test"))
	assert.ErrorContains(t, err, "needs a Server")
	_, err = otel.Register(srv, nil)
	assert.ErrorContains(t, err, "needs a Server")
}
