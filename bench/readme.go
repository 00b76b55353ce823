package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/gopushy/pushy/bench/internal/chart"
)

// chartGroup is one figure of the chart of README.md.
type chartGroup struct {
	title   string
	unit    string
	value   string
	section string
	what    string
	clients int
	kinds   []string
}

const cpuUnit = "µs of CPU a delivery"

// chartGroups are the figures of the chart. The clients of pushy use SockJS over WebSocket, unless the
// name of the kind says something else.
var chartGroups = []chartGroup{
	{
		title:   "Bursts: 8 events at once to 1,000",
		unit:    cpuUnit,
		value:   cpu,
		section: "bursts",
		what:    "w8",
		clients: 1000,
		kinds:   []string{"pushy", "bare", "centrifuge", "sockjsgo", "node:socketio"},
	},
	{
		title:   "Single events to 1,000",
		unit:    cpuUnit,
		value:   cpu,
		section: "bursts",
		what:    "w1",
		clients: 1000,
		kinds:   []string{"pushy", "bare", "centrifuge", "sockjsgo", "node:socketio"},
	},
	{
		title:   "Few subscribers: bursts to 100",
		unit:    "ms, median latency",
		value:   p50,
		section: "few",
		what:    "w8",
		clients: 100,
		kinds:   []string{"pushy", "bare", "centrifuge"},
	},
	{
		title:   "TLS in the process: bursts to 1,000",
		unit:    cpuUnit,
		value:   cpu,
		section: "tls",
		what:    "w8",
		clients: 1000,
		kinds:   []string{"pushy/tls", "bare/tls", "centrifuge/tls"},
	},
	{
		title:   "Typed commands, one after another",
		unit:    "µs of CPU a command",
		value:   commandCPU,
		section: "commands",
		what:    "typed 1",
		clients: commandClients,
		kinds:   []string{"pushy/bare", "pushy", "centrifuge"},
	},
	{
		title:   "5,000 clients connect and subscribe",
		unit:    "µs of CPU a client",
		value:   connectCPU,
		section: "connects",
		what:    "first",
		clients: connectClients,
		kinds:   []string{"pushy", "bare", "centrifuge"},
	},
	{
		title:   "Memory of an idle connection",
		unit:    "KiB",
		value:   idleKiB,
		section: "memory",
		what:    "idle",
		clients: idleClients,
		kinds:   []string{"pushy", "bare", "centrifuge"},
	},
	{
		title:   "Memory of an idle connection, TLS",
		unit:    "KiB",
		value:   idleKiB,
		section: "memory",
		what:    "idle",
		clients: idleTLSClients,
		kinds:   []string{"pushy/tls", "bare/tls", "centrifuge/tls"},
	},
}

// chartOf returns the chart of README.md.
func chartOf(records []Record) chart.Chart {
	c := chart.Chart{Title: "pushy beside other servers; shorter is better"}
	for _, g := range chartGroups {
		group := chart.Group{
			Title: g.title,
			Unit:  g.unit,
		}
		for _, k := range g.kinds {
			if v, ok := at(g.section, k, g.what, g.clients).median(records, g.value); ok {
				group.Bars = append(group.Bars, chart.Bar{
					Name:   chartName(k),
					Value:  v,
					Text:   number(v),
					Strong: strings.HasPrefix(k, "pushy"),
				})
			}
		}
		c.Groups = append(c.Groups, group)
	}
	return c
}

// chartName is a short label.
func chartName(kind string) string {
	if kind == "pushy/bare" {
		return "pushy, bare"
	}
	return strings.TrimPrefix(strings.TrimSuffix(labelOf(kind), ", TLS"), "Node ")
}

// The part of README.md that the benchmark writes is between these lines.
const (
	readmeBegin = "<!-- `make bench` writes from here -->\n"
	readmeEnd   = "<!-- to here -->\n"
)

// writeReadme replaces the part of README.md about the chart: where other servers are ahead, and where
// and when the figures were measured.
func writeReadme(path string, records []Record) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(page), readmeBegin)
	_, after, ended := strings.Cut(rest, readmeEnd)
	if !ok || !ended {
		return fmt.Errorf("%s has no part between %q and %q", path, strings.TrimSpace(readmeBegin), strings.TrimSpace(readmeEnd))
	}
	return os.WriteFile(path, []byte(before+readmeBegin+readmePart(records)+readmeEnd+after), 0o644)
}

func readmePart(records []Record) string {
	text := "![Server CPU, latency and memory of pushy and other servers](bench/" + chartFile + ")\n\n"
	if list := behind(allChecks(), records); len(list) > 0 {
		text += "pushy is not ahead everywhere. Another server is ahead in: " + strings.Join(list, "; ") + ".\n"
	}
	if run, ok := runOf(records, sections[0].name); ok {
		text += run.text() + " The load generator shares these cores.\n"
	}
	return text
}
