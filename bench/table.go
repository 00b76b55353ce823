package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/gopushy/pushy/bench/internal/load"
)

// check is one figure that has a limit.
type check struct {
	figure string
	limit  float64
	least  bool // the limit is a minimum
	worst  bool // the limit is one of each round, not of the median
	unit   string
	peer   string // the kind of another server, if the figure is a ratio to it
	rounds func([]Record) map[int]float64
	detail func([]Record) string // the figures behind a ratio, or nil
}

// passes reports whether a value is within the limit.
func (c check) passes(v float64) bool {
	if c.least {
		return v >= c.limit
	}
	return v <= c.limit
}

// value returns the median, or the worst value, of the rounds, and their range.
func (c check) value(records []Record) (v, low, high float64, ok bool) {
	rounds := c.rounds(records)
	v, ok = medianOf(rounds)
	low, high = rangeOf(rounds)
	if c.worst {
		v = high
		if c.least {
			v = low
		}
	}
	return v, low, high, ok
}

// ratio is the ratio of a's value to b's.
func ratio(figure, value string, a, b query, limit float64) check {
	c := check{
		figure: figure,
		limit:  limit,
		unit:   " of " + name(b.kind),
		rounds: func(all []Record) map[int]float64 { return ratios(a.rounds(all, value), b.rounds(all, value)) },
		detail: func(all []Record) string { return a.text(all, value) + " to " + b.text(all, value) },
	}
	if k, _ := find(b.kind); k.server == "go" || k.server == "node" {
		c.peer = b.kind
	}
	return c
}

// atLeast makes the limit a minimum.
func (c check) atLeast() check {
	c.least = true
	return c
}

// than replaces the name of what a figure is compared with.
func (c check) than(what string) check {
	c.unit = " of " + what
	return c
}

func name(kind string) string {
	if kind == "bare" {
		return "the bare loop"
	}
	return labelOf(kind)
}

// single is a value of one kind alone.
func single(figure, value string, q query, unit string, limit float64) check {
	return check{
		figure: figure,
		limit:  limit,
		unit:   unit,
		rounds: func(all []Record) map[int]float64 { return q.rounds(all, value) },
	}
}

// at selects the Records of a load in one section.
func at(section, kind, what string, clients int) query {
	return query{
		section: section,
		kind:    kind,
		what:    what,
		clients: clients,
	}
}

const (
	cpuFigure    = "server CPU a delivery, "
	burstsOf8    = "bursts of 8 events"
	burstsOf64   = "bursts of 64 events"
	singleEvents = "single events"
	eventsOf50   = "50 events a second"
)

var loadNames = map[string]string{"w8": burstsOf8, "w64": burstsOf64, "w1": singleEvents, "r50": eventsOf50, "r300": "300 events a second"}

func burstChecks() []check {
	of := func(kind, what string) query { return at("bursts", kind, what, 1000) }
	var list []check
	for _, c := range []struct {
		what, other string
		limit       float64
	}{
		{"w8", "centrifuge", .25}, {"w8", "centrifugetuned", .40}, {"w8", "bare", .45},
		{"w64", "centrifuge", .25}, {"w64", "centrifugetuned", .40},
		{"w1", "centrifuge", .60}, {"w1", "bare", 1.1},
	} {
		list = append(list, ratio(cpuFigure+loadNames[c.what], cpu, of("pushy", c.what), of(c.other, c.what), c.limit))
	}
	return append(list,
		ratio("deliveries a second, "+burstsOf8, rate, of("pushy", "w8"), of("centrifuge", "w8"), 3).atLeast(),
		ratio("deliveries a second, "+burstsOf8, rate, of("pushy", "w8"), of("centrifugetuned", "w8"), 2).atLeast(),
		single("allocations a delivery, "+burstsOf8, allocs, of("pushy", "w8"), "", .05))
}

func fewChecks() []check {
	pushy, centrifuge := at("few", "pushy", "w8", 100), at("few", "centrifuge", "w8", 100)
	return []check{
		ratio("median latency, "+burstsOf8+", 100 subscribers", p50, pushy, centrifuge, 1.5),
		ratio("99th percentile of latency, "+burstsOf8+", 100 subscribers", p99, pushy, centrifuge, 1.2),
		ratio(cpuFigure+burstsOf8+", 100 subscribers", cpu, pushy, centrifuge, .6),
	}
}

func idleChecks() []check {
	of := func(kind, what string) query { return at("memory", kind, what, idleClients) }
	growth := func(kind string, all []Record) map[int]float64 {
		return ratios(of(kind, "w8").rounds(all, cpu), at("few", kind, "w8", 100).rounds(all, cpu))
	}
	return []check{
		single("resident memory of an idle connection", idleKiB, of("pushy", "idle"), " KiB", 5.5),
		single("resident memory of an idle connection, TLS", idleKiB,
			at("memory", "pushy/tls", "idle", idleTLSClients), " KiB", 16),
		ratio(cpuFigure+burstsOf8+", 9,000 subscribers", cpu, of("pushy", "w8"), of("centrifuge", "w8"), .3),
		{
			figure: cpuFigure + burstsOf8 + ", 9,000 subscribers against 100",
			limit:  1.2,
			unit:   " of the bare loop's growth",
			rounds: func(all []Record) map[int]float64 { return ratios(growth("pushy", all), growth("bare", all)) },
		},
	}
}

func sizeChecks() []check {
	var list []check
	for _, size := range sizes {
		of := func(kind, what string) query {
			q := at("sizes", kind, what, 1000)
			q.size = size
			return q
		}
		bytes := fmt.Sprintf(", %s bytes", thousands(size))
		list = append(list,
			ratio(cpuFigure+burstsOf8+bytes, cpu, of("pushy", "w8"), of("centrifuge", "w8"), .25),
			ratio(cpuFigure+singleEvents+bytes, cpu, of("pushy", "w1"), of("bare", "w1"), 1.1))
	}
	return list
}

func latencyChecks() []check {
	of := func(kind, what string) query { return at("latency", kind, what, 1000) }
	keeps := single("each round kept its rate of 300 events a second, 1 is yes", kept, of("pushy", "r300"), "", 1).atLeast()
	keeps.worst = true
	return []check{
		ratio("99th percentile of latency, "+loadNames["r50"], p99, of("pushy", "r50"), of("bare", "r50"), 1.15),
		ratio("99th percentile of latency, "+loadNames["r300"], p99, of("pushy", "r300"), of("centrifugetuned", "r300"), .75),
		keeps,
	}
}

func tlsChecks() []check {
	of := func(kind, what string) query { return at("tls", kind, what, 1000) }
	return []check{
		ratio(cpuFigure+burstsOf8, cpu, of("pushy/tls", "w8"), of("bare/tls", "w8"), .25),
		ratio(cpuFigure+burstsOf8, cpu, of("pushy/tls", "w8"), of("centrifuge/tls", "w8"), .18),
		ratio(cpuFigure+burstsOf8, cpu, of("pushy/tls", "w8"), of("pushy", "w8"), 1.8).than("pushy without TLS"),
		ratio(cpuFigure+singleEvents, cpu, of("pushy/tls", "w1"), of("bare/tls", "w1"), 1.05),
		ratio(cpuFigure+singleEvents, cpu, of("pushy/tls", "w1"), of("centrifuge/tls", "w1"), .65),
	}
}

func httpChecks() []check {
	of := func(kind, what string) query { return at("http", kind, what, httpClients) }
	return []check{
		ratio(cpuFigure+burstsOf8, cpu, of("pushy/streaming", "w8"), of("sockjsgo/streaming", "w8"), .3),
		ratio("99th percentile of latency, "+burstsOf8, p99, of("pushy/streaming", "w8"), of("sockjsgo/streaming", "w8"), 1),
		ratio(cpuFigure+singleEvents, cpu, of("pushy/streaming", "w1"), of("sockjsgo/streaming", "w1"), .9),
		ratio(cpuFigure+burstsOf8, cpu, of("pushy/polling", "w8"), of("sockjsgo/polling", "w8"), .6),
	}
}

func sseChecks() []check {
	of := func(kind, what string) query { return at("sse", kind, what, 1000) }
	var list []check
	for _, what := range []string{"w8", "w1"} {
		figure := cpuFigure + loadNames[what]
		list = append(list,
			ratio(figure, cpu, of("pushy/sse", what), of("r3labs", what), 1),
			ratio(figure, cpu, of("pushy/sse", what), of("pushy/bare", what), 1.1),
			ratio(figure+", three channels", cpu, of("pushy/sse3", what), of("pushy/bare", what), 1.3))
	}
	return list
}

// brokerChecks are the cost of a broker for the node that publishes, compared with pushy without one
// and with centrifuge.
func brokerChecks() []check {
	of := func(kind, what string) query { return at("brokers", kind, what, 1000) }
	var list []check
	for _, kind := range []string{"pushy/redis", "pushy/nats"} {
		for _, what := range []string{"w8", "r50"} {
			figure := cpuFigure + loadNames[what] + ", " + labelOf(kind)
			list = append(list, ratio(figure, cpu, of(kind, what), of("pushy", what), 1.15).than("pushy without a broker"))
		}
	}
	for _, what := range []string{"w8", "w1"} {
		list = append(list, ratio(cpuFigure+loadNames[what]+", Redis", cpu, of("pushy/redis", what), of("centrifuge/redis", what), .8))
	}
	return append(list, ratio("99th percentile of latency, "+eventsOf50+", Redis", p99, of("pushy/redis", "r50"), of("centrifuge/redis", "r50"), .8))
}

// nodeChecks are the CPU time of two nodes and Redis together, and that of Redis.
func nodeChecks() []check {
	of := func(kind string) query { return at("nodes", kind, "w8", 1000) }
	return []check{
		ratio("CPU of both nodes and Redis a delivery, "+burstsOf8, wholeCPU, of("pushy/redis"), of("centrifuge/redis"), .25),
		ratio("CPU of both nodes and Redis a delivery, "+burstsOf8+", kept", wholeCPU, of("pushy/redis/kept"), of("centrifuge/redis/kept"), .25).
			than("centrifuge with history"),
		single("CPU of Redis a delivery, "+burstsOf8+", kept", brokerCPU, of("pushy/redis/kept"), " µs", .15),
	}
}

func pusherChecks() []check {
	of := func(kind, what string) query { return at("pusher", kind, what, 1000) }
	var list []check
	for _, what := range []string{"w8", "w1"} {
		figure := cpuFigure + loadNames[what]
		list = append(list,
			ratio(figure+", a tenth of the clients", cpu, of("pushy/mixed", what), of("pushy", what), 1.1),
			ratio(figure+", all clients", cpu, of("pushy/pusher", what), of("centrifuge", what), .6))
	}
	return list
}

func stuckChecks() []check {
	var list []check
	for _, k := range stuckTypes {
		without := at("stuck", k, "r50", 1000)
		with := without
		with.stuck = 1
		list = append(list, ratio("99th percentile of latency, "+labelOf(k), p99, with, without, 1.15).than("without that client"))
	}
	return list
}

// checkRow is the line of a check.
type checkRow struct{ figure, measured, spread, limit, verdict, detail string }

const (
	met    = "met"
	notMet = "**no**"
)

// rowsOf returns the lines of the checks that were measured.
func rowsOf(checks []check, records []Record) []checkRow {
	var rows []checkRow
	for _, c := range checks {
		v, low, high, ok := c.value(records)
		if !ok {
			continue
		}
		bound := "at most "
		if c.least {
			bound = "at least "
		}
		row := checkRow{
			figure:   c.figure,
			measured: number(v) + c.unit,
			spread:   number(low) + "–" + number(high),
			limit:    bound + number(c.limit),
			verdict:  met,
		}
		if !c.passes(v) {
			row.verdict = notMet
		}
		if c.detail != nil {
			row.detail = c.detail(records)
		}
		rows = append(rows, row)
	}
	return rows
}

// printChecks prints the figures that have limits: the figure, its value, the limit, and
// whether it is kept.
func printChecks(w io.Writer, checks []check, records []Record) {
	for _, row := range rowsOf(checks, records) {
		fmt.Fprintf(w, "%-7s %-76s %s (%s), %s  %s\n",
			strings.Trim(row.verdict, "*"), row.figure, row.measured, row.spread, row.limit, row.detail)
	}
}

// allChecks returns the checks of RESULTS.md.
func allChecks() []check {
	var list []check
	for _, s := range sections {
		if s.checks != nil {
			list = append(list, s.checks()...)
		}
	}
	return list
}

// behind returns the figures in which another server is ahead of pushy, as words.
func behind(checks []check, records []Record) []string {
	var list []string
	for _, c := range checks {
		v, _, _, ok := c.value(records)
		if !ok || c.peer == "" || !c.least && v <= 1 || c.least && v >= 1 {
			continue
		}
		list = append(list, fmt.Sprintf("%s (%s%s)", c.figure, number(v), c.unit))
	}
	return list
}

// webSocket reports whether the kind is pushy over WebSockets without TLS and without a broker.
func (k kind) webSocket() bool {
	return (k.dialect == load.Bare || k.dialect == load.Framed) && !k.tls && k.broker == "" && k.arg == "" && k.publishing == load.Trigger
}
