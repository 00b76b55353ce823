// Package metrics exports the figures of a pushy.Server: Handler writes the text format of
// Prometheus, and Var is a variable for package expvar. It needs only the standard library. Programs
// that have a registry of client_golang use package metrics/prometheus, and those with OpenTelemetry
// use metrics/otel, which are separate modules. All of them have the same metrics, which
// docs/operations in the repository describes, with alert rules and a dashboard.
//
// The packages only read pushy.Server.Stats and Ready. No label has a value that comes from a
// client: there is none for channels, users or paths, commands that are not registered count as
// "unknown", and close codes of applications as "other".
package metrics

import (
	"bytes"
	"encoding/json"
	"expvar"
	"net/http"
	"strconv"
	"strings"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/metrics/internal/table"
)

// Handler returns a handler that writes the metrics of srv in the text format of Prometheus, to GET
// and HEAD requests of any path. It does not check who asks: mount it where only the monitoring can
// reach it. It panics if srv is nil.
func Handler(srv *pushy.Server) http.Handler {
	mustHave(srv)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			head.Set("Allow", "GET, HEAD")
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		head.Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		if r.Method == http.MethodGet {
			_, _ = w.Write(text(table.Read(srv)))
		}
	})
}

// Var returns the metrics of srv as a variable for expvar.Publish. Its value is an object: a metric
// without labels is a number, and one with labels is an object by the values of the labels, which are
// separated by a comma. A histogram has the fields count, sum (in seconds) and buckets, which is an
// object by the upper bound, with the number of all durations up to it. Var panics if srv is nil.
func Var(srv *pushy.Server) expvar.Var {
	mustHave(srv)
	return variable{srv}
}

func mustHave(srv *pushy.Server) {
	if srv == nil {
		panic("metrics: nil Server")
	}
}

// text writes all metrics in the text format of Prometheus.
func text(s *table.Snapshot) []byte {
	var b bytes.Buffer
	for i := range table.Metrics {
		m := &table.Metrics[i]
		values := m.Values(s)
		if len(values) == 0 {
			continue
		}
		b.WriteString("# HELP " + m.Name + " " + helpEscaper.Replace(m.Help) + "\n")
		b.WriteString("# TYPE " + m.Name + " " + m.Kind.String() + "\n")
		for _, v := range values {
			if m.Kind != table.Histogram {
				line(&b, m.Name, m.Labels, v.Labels, formatFloat(v.Number))
				continue
			}
			names := append(append([]string{}, m.Labels...), "le")
			for _, bucket := range buckets(v.Histogram) {
				line(&b, m.Name+"_bucket", names, append(append([]string{}, v.Labels...), bucket.le), formatCount(bucket.count))
			}
			line(&b, m.Name+"_sum", m.Labels, v.Labels, formatFloat(v.Histogram.Sum.Seconds()))
			line(&b, m.Name+"_count", m.Labels, v.Labels, formatCount(v.Histogram.Count()))
		}
	}
	return b.Bytes()
}

var (
	helpEscaper  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func line(b *bytes.Buffer, name string, labels, values []string, number string) {
	b.WriteString(name)
	for i, label := range labels {
		if i == 0 {
			b.WriteByte('{')
		} else {
			b.WriteByte(',')
		}
		b.WriteString(label + `="` + labelEscaper.Replace(strings.ToValidUTF8(values[i], "\uFFFD")) + `"`)
	}
	if len(labels) > 0 {
		b.WriteByte('}')
	}
	b.WriteString(" " + number + "\n")
}

// bucket is a bucket with those before it.
type bucket struct {
	le    string
	count uint64
}

func buckets(h pushy.Histogram) []bucket {
	all := make([]bucket, 0, len(h.Counts))
	var sum uint64
	for i, bound := range pushy.HistogramBounds() {
		sum += h.Counts[i]
		all = append(all, bucket{formatFloat(bound.Seconds()), sum})
	}
	return append(all, bucket{"+Inf", h.Count()})
}

func formatFloat(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }

func formatCount(n uint64) string { return strconv.FormatUint(n, 10) }

type variable struct{ srv *pushy.Server }

// String implements expvar.Var.
func (v variable) String() string {
	s := table.Read(v.srv)
	all := map[string]any{}
	for i := range table.Metrics {
		m := &table.Metrics[i]
		values := m.Values(s)
		if len(m.Labels) == 0 {
			all[m.Name] = value(m, values[0])
			continue
		}
		byLabels := map[string]any{}
		for _, v := range values {
			byLabels[strings.Join(v.Labels, ",")] = value(m, v)
		}
		all[m.Name] = byLabels
	}
	encoded, _ := json.Marshal(all) // maps of numbers cannot fail
	return string(encoded)
}

func value(m *table.Metric, v table.Value) any {
	if m.Kind != table.Histogram {
		return v.Number
	}
	byBound := map[string]uint64{}
	for _, b := range buckets(v.Histogram) {
		byBound[b.le] = b.count
	}
	return map[string]any{
		"count":   v.Histogram.Count(),
		"sum":     v.Histogram.Sum.Seconds(),
		"buckets": byBound,
	}
}
