package main

import (
	"fmt"
	"io"
	"strings"
)

// must has the limits of one issue.
type must struct {
	title  string
	checks []check
}

func musts() []must {
	return []must{
		{"What issue 4 must show", checks()},
		{"What issue 6 must show", brokerChecks()},
		{"What issue 13 must show", recoveryChecks()},
		{"What issue 16 must show: Pusher clients", pusherChecks()},
		{"What issue 17 must show: commands", commandChecks()},
		{"What issue 17 must show: compression", compressionChecks()},
	}
}

// check is one figure that has a limit.
type check struct {
	figure string
	limit  float64
	least  bool // the limit is a minimum
	unit   string
	value  func([]Record) (float64, bool)
	detail func([]Record) string // the figures behind a ratio, or nil
}

// passes reports whether a value is within the limit.
func (c check) passes(v float64) bool {
	if c.least {
		return v >= c.limit
	}
	return v <= c.limit
}

func at(kind, what string, clients int) query {
	return query{section: "table", kind: kind, what: what, clients: clients}
}

// compared is the ratio of pushy's value to that of another kind.
func compared(figure, value, what string, clients int, other string, limit float64, least bool) check {
	return ratio(figure, value, at("pushy", what, clients), at(other, what, clients), limit, least)
}

// ratio is the ratio of a's value to b's.
func ratio(figure, value string, a, b query, limit float64, least bool) check {
	return check{
		figure: figure, limit: limit, least: least, unit: " of " + name(b.kind),
		value: func(all []Record) (float64, bool) {
			return medianOf(ratios(a.rounds(all, value), b.rounds(all, value)))
		},
		detail: func(all []Record) string { return a.text(all, value) + " to " + b.text(all, value) },
	}
}

func name(kind string) string {
	if kind == "bare" {
		return "the bare loop"
	}
	return strings.Replace(kind, "centrifugetuned", "tuned", 1)
}

// single is a value of pushy alone.
func single(figure, value, what string, clients int, unit string, limit float64, least bool) check {
	return check{
		figure: figure, limit: limit, least: least, unit: unit,
		value: func(all []Record) (float64, bool) { return at("pushy", what, clients).median(all, value) },
	}
}

func checks() []check {
	const cpuFigure = "server CPU a delivery, %s subscribers, window %d"
	list := []check{}
	for _, c := range []struct {
		window, clients int
		other           string
		limit           float64
	}{
		{8, 1000, "centrifuge", .25}, {8, 1000, "centrifugetuned", .40}, {8, 1000, "bare", .45},
		{64, 1000, "centrifuge", .25}, {64, 1000, "centrifugetuned", .40},
		{1, 1000, "centrifuge", .60}, {1, 1000, "bare", 1.1},
		{8, 5000, "centrifuge", .30},
	} {
		list = append(list, compared(fmt.Sprintf(cpuFigure, thousands(c.clients), c.window), cpu, fmt.Sprintf("w%d", c.window), c.clients, c.other, c.limit, false))
	}
	const rateFigure = "deliveries a second, 1,000 subscribers, window 8"
	list = append(list,
		compared(rateFigure, rate, "w8", 1000, "centrifuge", 3, true),
		compared(rateFigure, rate, "w8", 1000, "centrifugetuned", 2, true),
		compared("p99 at 50 events a second to 1,000", p99, "r50", 1000, "bare", 1.15, false),
		compared("p99 at 300 events a second to 1,000", p99, "r300", 1000, "centrifugetuned", .75, false),
		check{
			figure: "rounds of those 300 a second that kept the rate, all delivered", limit: 1, least: true, unit: " of them",
			value: func(all []Record) (float64, bool) {
				values := at("pushy", "r300", 1000).rounds(all, kept)
				sum := 0.0
				for _, v := range values {
					sum += v
				}
				return sum / max(float64(len(values)), 1), len(values) > 0
			},
		},
		single("resident memory an idle subscribed connection, 9,000 of them", idleKiB, "idle", 9000, " KiB", 8, false),
		check{
			figure: "CPU a delivery at 9,000 subscribers against 100", limit: 1.2, unit: " of the bare loop's growth",
			value: func(all []Record) (float64, bool) {
				growth := func(kind string) map[int]float64 {
					return ratios(at(kind, "w8", 9000).rounds(all, cpu), at(kind, "w8", 100).rounds(all, cpu))
				}
				return medianOf(ratios(growth("pushy"), growth("bare")))
			},
		},
		single("trigger requests a second to an empty channel, keep-alive, one core", requests, "triggers", 16, " requests/s", 20_000, true),
		single("allocations a delivery", allocs, "w8", 1000, "", .05, false))
	for _, k := range clientTypes {
		without := query{section: "stuck", kind: k, what: "r50", clients: 1000}
		with := without
		with.stuck = 1
		c := ratio("p99 at 50 a second of 1,000 beside one that never reads, "+labelOf(k), p99, with, without, 1.15, false)
		c.unit = " of without it"
		list = append(list, c)
	}
	return list
}

// brokerChecks are the figures of the section "brokers": the cost of a broker for the node that
// publishes, compared with pushy without one and with centrifuge.
func brokerChecks() []check {
	of := func(kind, what string) query {
		return query{section: "brokers", kind: kind, what: what, clients: 1000}
	}
	loads := map[string]string{"w8": "window 8", "w1": "window 1", "r50": "50 events a second", "r300": "300 events a second"}
	var list []check
	for _, kind := range []string{"pushy/redis", "pushy/nats"} {
		for _, what := range []string{"w8", "r50"} {
			list = append(list, ratio("server CPU a delivery, "+loads[what]+", "+labelOf(kind), cpu, of(kind, what), of("pushy", what), 1.15, false))
		}
	}
	for _, other := range []string{"centrifuge/redis", "centrifugetuned/redis"} {
		for _, what := range []string{"w8", "w1"} {
			list = append(list, ratio("server CPU a delivery, "+loads[what]+", pushy over Redis", cpu, of("pushy/redis", what), of(other, what), .8, false))
		}
		for _, what := range []string{"r50", "r300"} {
			list = append(list, ratio("p99 at "+loads[what]+", pushy over Redis", p99, of("pushy/redis", what), of(other, what), .8, false))
		}
	}
	return list
}

// pusherChecks are the figures of the section "pusher": 1,000 clients, all or a tenth of them with the
// Pusher protocol, beside those of pushy and of centrifuge, each with its own protocol.
func pusherChecks() []check {
	of := func(kind, what string) query {
		return query{section: "pusher", kind: kind, what: what, clients: 1000}
	}
	var list []check
	for _, what := range []string{"w8", "w1"} {
		figure := "server CPU a delivery, 1,000 subscribers, window " + what[1:] + ", "
		list = append(list,
			ratio(figure+labelOf("pushy/mixed"), cpu, of("pushy/mixed", what), of("pushy", what), 1.1, false),
			ratio(figure+labelOf("pushy/pusher"), cpu, of("pushy/pusher", what), of("centrifuge", what), .6, false))
	}
	return list
}

// printChecks prints the figures that have limits: the figure, its value, the limit, and
// whether it is kept.
func printChecks(w io.Writer, records []Record) {
	for _, m := range musts() {
		for _, row := range m.rows(records) {
			fmt.Fprintf(w, "%-7s %-72s %s, %s  %s\n", row.verdict, row.figure, row.value, row.limit, row.detail)
		}
	}
}

type checkRow struct{ figure, value, limit, verdict, detail string }

// rows returns nil if none of the figures was measured.
func (m must) rows(records []Record) []checkRow {
	var rows []checkRow
	measured := false
	for _, c := range m.checks {
		bound := "at most "
		if c.least {
			bound = "at least "
		}
		row := checkRow{figure: c.figure, value: "–", limit: bound + number(c.limit) + c.unit, verdict: "–"}
		if v, ok := c.value(records); ok {
			measured = true
			row.value, row.verdict = number(v), "ok"
			if !c.passes(v) {
				row.verdict = "**no**"
			}
			if c.detail != nil {
				row.detail = c.detail(records)
			}
		}
		rows = append(rows, row)
	}
	if !measured {
		return nil
	}
	return rows
}
