// Package table is the list of pushy's metrics: their names, units, labels and sources. All packages
// that export metrics use it.
package table

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"github.com/gopushy/pushy"
)

// Kind is the kind of a Metric.
type Kind uint8

// The kinds of metrics.
const (
	Gauge Kind = iota + 1
	Counter
	Histogram
)

// String returns the name of the kind in the text format of Prometheus.
func (k Kind) String() string {
	return [...]string{Gauge: "gauge", Counter: "counter", Histogram: "histogram"}[k]
}

// Metric is one metric. Its values come from a Snapshot.
type Metric struct {
	Name   string // by the conventions of Prometheus
	Help   string
	Kind   Kind
	Unit   string   // as OpenTelemetry writes it (UCUM); "" if it has none: "1" is a ratio
	Labels []string // sorted
	read   func(s *Snapshot, emit func(Value))
}

// Value is a value of a Metric.
type Value struct {
	Labels    []string // the values of Metric.Labels
	Number    float64  // of a Gauge and a Counter
	Histogram pushy.Histogram
}

// Snapshot has the figures of a Server at one moment.
type Snapshot struct {
	Stats pushy.Stats
	Ready error // the result of Server.Ready
}

// Read returns the figures of a Server.
func Read(srv *pushy.Server) *Snapshot {
	return &Snapshot{
		Stats: srv.Stats(),
		Ready: srv.Ready(),
	}
}

// Values returns the values of a metric, sorted by their labels.
func (m *Metric) Values(s *Snapshot) (values []Value) {
	m.read(s, func(v Value) { values = append(values, v) })
	slices.SortFunc(values, func(a, b Value) int { return slices.Compare(a.Labels, b.Labels) })
	return values
}

// Metrics are all metrics, sorted by name.
var Metrics = sorted([]Metric{
	gauge("pushy_connections", "{connection}", "Open connections.",
		func(s *pushy.Stats) float64 { return float64(s.Connections) }),
	gauge("pushy_channels", "{channel}", "Channels with subscribers on this node.",
		func(s *pushy.Stats) float64 { return float64(s.Channels) }),
	gauge("pushy_listeners", "{listener}", "Listeners of Go code (Server.Listen).",
		func(s *pushy.Stats) float64 { return float64(s.Listeners) }),
	gauge("pushy_queued_bytes", "By", "Bytes queued for clients.",
		func(s *pushy.Stats) float64 { return float64(s.Buffered) }),
	{
		Name:   "pushy_memory_bytes",
		Help:   "Memory used for clients, by part, as Limits.Memory counts it.",
		Kind:   Gauge,
		Unit:   "By",
		Labels: []string{"part"},
		read: func(s *Snapshot, emit func(Value)) {
			m := &s.Stats.Memory
			for part, bytes := range map[string]int64{
				"outboxes":  m.Outboxes,
				"reading":   m.Reading,
				"members":   m.Members,
				"kept":      m.Kept,
				"queued":    m.Queued,
				"listeners": m.Listeners,
			} {
				emit(number(float64(bytes), part))
			}
		},
	},
	gauge("pushy_memory_limit_bytes", "By", "Limits.Memory, or 0 if it is off.",
		func(s *pushy.Stats) float64 { return float64(s.Memory.Limit) }),
	gauge("pushy_broker_up", "", "1 if the Broker can be reached, else 0.",
		func(s *pushy.Stats) float64 { return truth(s.Away == nil) }),
	{
		Name: "pushy_ready",
		Help: "1 if Server.Ready returns nil, else 0.",
		Kind: Gauge,
		read: func(s *Snapshot, emit func(Value)) { emit(number(truth(s.Ready == nil))) },
	},
	counter("pushy_connections_opened_total", "{connection}", "Connections that were accepted.",
		func(s *pushy.Stats) uint64 { return s.Opened }),
	counts("pushy_connections_refused_total", "{connection}", "reason", "Connections and SockJS bodies that were refused, by reason.",
		func(s *pushy.Stats) map[string]uint64 { return s.Refused }),
	{
		Name:   "pushy_connections_closed_total",
		Help:   `Connections that have ended, by close code; "other" has those of applications.`,
		Kind:   Counter,
		Unit:   "{connection}",
		Labels: []string{"code"},
		read: func(s *Snapshot, emit func(Value)) {
			for code, n := range s.Stats.Closed {
				name := "other"
				if code != 0 {
					name = strconv.Itoa(code)
				}
				emit(number(float64(n), name))
			}
		},
	},
	counter("pushy_slow_consumers_total", "{connection}", "Connections that were disconnected because they read too slowly.",
		func(s *pushy.Stats) uint64 { return s.Slow }),
	counter("pushy_received_messages_total", "{message}", "Messages of clients.",
		func(s *pushy.Stats) uint64 { return s.MessagesIn }),
	counter("pushy_received_bytes_total", "By", "Bytes of the messages of clients.",
		func(s *pushy.Stats) uint64 { return s.BytesIn }),
	counter("pushy_sent_messages_total", "{message}", "Messages passed to the transports of clients.",
		func(s *pushy.Stats) uint64 { return s.MessagesOut }),
	counter("pushy_sent_bytes_total", "By", "Bytes passed to the transports of clients.",
		func(s *pushy.Stats) uint64 { return s.BytesOut }),
	counter("pushy_compressed_events_total", "{event}", "Events that were compressed, once for all receivers.",
		func(s *pushy.Stats) uint64 { return s.Compressed.Events }),
	counter("pushy_compressed_before_bytes_total", "By", "Bytes of the events that were compressed, before.",
		func(s *pushy.Stats) uint64 { return s.Compressed.Before }),
	counter("pushy_compressed_after_bytes_total", "By", "Bytes of the events that were compressed, after.",
		func(s *pushy.Stats) uint64 { return s.Compressed.After }),
	counter("pushy_published_events_total", "{event}", "Events published on this node that the Broker accepted.",
		func(s *pushy.Stats) uint64 { return s.Published }),
	counter("pushy_deliveries_total", "{event}", "Events and changes of members queued for a subscriber.",
		func(s *pushy.Stats) uint64 { return s.Deliveries }),
	counter("pushy_dropped_events_total", "{event}", "Events that were not sent to a slow client (Latest and Droppable).",
		func(s *pushy.Stats) uint64 { return s.Dropped }),
	counts("pushy_joins_total", "{subscription}", "outcome", "Subscriptions, by outcome.",
		func(s *pushy.Stats) map[string]uint64 { return s.Joins }),
	counts("pushy_resumes_total", "{subscription}", "reason",
		"Subscriptions of clients that know a position, by the reason why they do not receive all events since then, or recovered.",
		func(s *pushy.Stats) map[string]uint64 { return s.Resumes }),
	{
		Name:   "pushy_credentials_total",
		Help:   "Triggers, signed requests and tokens that were valid, by version and id of the secret key.",
		Kind:   Counter,
		Unit:   "{credential}",
		Labels: []string{"key", "version"},
		read: func(s *Snapshot, emit func(Value)) {
			for _, use := range s.Stats.Keys {
				emit(number(float64(use.Uses), use.KeyID, strconv.Itoa(use.Version)))
			}
		},
	},
	counts("pushy_broker_errors_total", "{error}", "call", "Failed calls of the Broker, by method.",
		func(s *pushy.Stats) map[string]uint64 { return s.BrokerErrors }),
	{
		Name:   "pushy_command_duration_seconds",
		Help:   `Time that commands of clients took, by command; "unknown" has those that are not registered.`,
		Kind:   Histogram,
		Unit:   "s",
		Labels: []string{"command"},
		read: func(s *Snapshot, emit func(Value)) {
			for name, took := range s.Stats.Commands {
				emit(Value{
					Labels:    []string{name},
					Histogram: took,
				})
			}
		},
	},
	histogram("pushy_broker_call_duration_seconds", "Time that calls of the Broker took.",
		func(s *pushy.Stats) pushy.Histogram { return s.BrokerTime }),
	histogram("pushy_publish_delay_seconds", "Time from an event on this node until it was written to a client's socket, sampled.",
		func(s *pushy.Stats) pushy.Histogram { return s.PublishTime }),
})

func sorted(metrics []Metric) []Metric {
	slices.SortFunc(metrics, func(a, b Metric) int { return cmp.Compare(a.Name, b.Name) })
	return metrics
}

func number(n float64, labels ...string) Value {
	return Value{
		Labels: labels,
		Number: n,
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func gauge(name, unit, help string, read func(s *pushy.Stats) float64) Metric {
	return Metric{
		Name: name,
		Help: help,
		Kind: Gauge,
		Unit: unit,
		read: func(s *Snapshot, emit func(Value)) { emit(number(read(&s.Stats))) },
	}
}

func counter(name, unit, help string, read func(s *pushy.Stats) uint64) Metric {
	return Metric{
		Name: name,
		Help: help,
		Kind: Counter,
		Unit: unit,
		read: func(s *Snapshot, emit func(Value)) { emit(number(float64(read(&s.Stats)))) },
	}
}

// counts is a counter with one label.
func counts(name, unit, label, help string, read func(s *pushy.Stats) map[string]uint64) Metric {
	return Metric{
		Name:   name,
		Help:   help,
		Kind:   Counter,
		Unit:   unit,
		Labels: []string{label},
		read: func(s *Snapshot, emit func(Value)) {
			all := read(&s.Stats)
			for _, key := range slices.Sorted(maps.Keys(all)) {
				emit(number(float64(all[key]), key))
			}
		},
	}
}

func histogram(name, help string, read func(s *pushy.Stats) pushy.Histogram) Metric {
	return Metric{
		Name: name,
		Help: help,
		Kind: Histogram,
		Unit: "s",
		read: func(s *Snapshot, emit func(Value)) { emit(Value{Histogram: read(&s.Stats)}) },
	}
}
