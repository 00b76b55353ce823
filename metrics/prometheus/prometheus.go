// Package prometheus exports the figures of a pushy.Server to a registry of client_golang:
//
//	registry.MustRegister(prometheus.NewCollector(srv))
//
// The metrics are those of package metrics, which needs no registry and no third-party module.
package prometheus

import (
	client "github.com/prometheus/client_golang/prometheus"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/metrics/internal/table"
)

// NewCollector returns a Collector of the metrics of srv. To register the Collectors of several
// Servers, give each a label of its own with client_golang's WrapRegistererWith. NewCollector panics
// if srv is nil.
func NewCollector(srv *pushy.Server) client.Collector {
	if srv == nil {
		panic("prometheus: nil Server")
	}
	c := &collector{srv: srv}
	for i := range table.Metrics {
		m := &table.Metrics[i]
		c.descs = append(c.descs, client.NewDesc(m.Name, m.Help, m.Labels, nil))
	}
	return c
}

// collector has a Desc for each of table.Metrics.
type collector struct {
	srv   *pushy.Server
	descs []*client.Desc
}

// Describe implements client.Collector.
func (c *collector) Describe(to chan<- *client.Desc) {
	for _, desc := range c.descs {
		to <- desc
	}
}

// Collect implements client.Collector.
func (c *collector) Collect(to chan<- client.Metric) {
	s := table.Read(c.srv)
	for i := range table.Metrics {
		m := &table.Metrics[i]
		for _, v := range m.Values(s) {
			to <- metric(c.descs[i], m.Kind, v)
		}
	}
}

func metric(desc *client.Desc, kind table.Kind, v table.Value) client.Metric {
	switch kind {
	case table.Counter:
		return client.MustNewConstMetric(desc, client.CounterValue, v.Number, v.Labels...)
	case table.Gauge:
		return client.MustNewConstMetric(desc, client.GaugeValue, v.Number, v.Labels...)
	}
	buckets := map[float64]uint64{}
	var sum uint64
	for i, bound := range pushy.HistogramBounds() {
		sum += v.Histogram.Counts[i]
		buckets[bound.Seconds()] = sum
	}
	return client.MustNewConstHistogram(desc, v.Histogram.Count(), v.Histogram.Sum.Seconds(), buckets, v.Labels...)
}
