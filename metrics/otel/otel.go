// Package otel exports the figures of a pushy.Server to OpenTelemetry:
//
//	registration, err := otel.Register(srv, provider.Meter("github.com/gopushy/pushy"))
//
// The instruments have the names of the metrics of package metrics, by the conventions of Prometheus,
// and keep them behind OpenTelemetry's exporter for Prometheus, so that the dashboard and the alert rules
// work there, too. OpenTelemetry has no histogram that is observed; instead, there are the series that
// Prometheus makes of one: name_bucket with the attribute le, name_sum and name_count. They are up-down
// counters, which only grow, because the exporter would append _total to the names of counters.
package otel

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/metrics/internal/table"
)

// Register makes meter observe the metrics of srv until the Registration is ended. The error is that
// of the meter.
func Register(srv *pushy.Server, meter metric.Meter) (metric.Registration, error) {
	if srv == nil || meter == nil {
		return nil, errors.New("otel: Register needs a Server and a Meter")
	}
	var all []observer
	var instruments []metric.Observable
	for i := range table.Metrics {
		m := &table.Metrics[i]
		o, err := newObserver(meter, m)
		if err != nil {
			return nil, fmt.Errorf("otel: metric %s: %w", m.Name, err)
		}
		all = append(all, o)
		for _, instrument := range []metric.Float64Observable{o.number, o.sum, o.count} {
			if instrument != nil {
				instruments = append(instruments, instrument)
			}
		}
	}
	return meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		s := table.Read(srv)
		for _, o := range all {
			o.observe(to, s)
		}
		return nil
	}, instruments...)
}

// observer has the instruments of one metric. Those that the metric does not need are nil.
type observer struct {
	metric *table.Metric
	number metric.Float64Observable // of a histogram: its buckets
	sum    metric.Float64Observable
	count  metric.Float64Observable
}

func newObserver(meter metric.Meter, m *table.Metric) (observer, error) {
	o := observer{metric: m}
	help := metric.WithDescription(m.Help)
	var err error
	switch m.Kind {
	case table.Gauge:
		o.number, err = meter.Float64ObservableGauge(m.Name, help, metric.WithUnit(m.Unit))
	case table.Counter:
		o.number, err = meter.Float64ObservableCounter(m.Name, help, metric.WithUnit(m.Unit))
	case table.Histogram:
		var errs [3]error
		o.number, errs[0] = meter.Float64ObservableUpDownCounter(m.Name+"_bucket", help)
		o.sum, errs[1] = meter.Float64ObservableUpDownCounter(m.Name+"_sum", help, metric.WithUnit(m.Unit))
		o.count, errs[2] = meter.Float64ObservableUpDownCounter(m.Name+"_count", help)
		err = errors.Join(errs[:]...)
	}
	return o, err
}

func (o *observer) observe(to metric.Observer, s *table.Snapshot) {
	for _, v := range o.metric.Values(s) {
		var labels []attribute.KeyValue
		for i, name := range o.metric.Labels {
			labels = append(labels, attribute.String(name, v.Labels[i]))
		}
		if o.metric.Kind != table.Histogram {
			to.ObserveFloat64(o.number, v.Number, metric.WithAttributes(labels...))
			continue
		}
		to.ObserveFloat64(o.sum, v.Histogram.Sum.Seconds(), metric.WithAttributes(labels...))
		to.ObserveFloat64(o.count, float64(v.Histogram.Count()), metric.WithAttributes(labels...))
		var sum uint64
		for i, n := range v.Histogram.Counts {
			sum += n
			le := "+Inf"
			if bounds := pushy.HistogramBounds(); i < len(bounds) {
				le = strconv.FormatFloat(bounds[i].Seconds(), 'g', -1, 64)
			}
			with := append(labels[:len(labels):len(labels)], attribute.String("le", le))
			to.ObserveFloat64(o.number, float64(sum), metric.WithAttributes(with...))
		}
	}
}
