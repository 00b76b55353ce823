package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// report writes RESULTS.md and the chart from the records of all sections.
func report(folder string, records []Record) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if svg := chartOf(records).SVG(); svg != "" {
		if err := os.WriteFile(filepath.Join(folder, chartFile), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(folder, "RESULTS.md"), resultsPage(records), 0o644)
}

const chartFile = "chart.svg"

func resultsPage(records []Record) []byte {
	var b bytes.Buffer
	b.WriteString("# Results\n\nMade by `make bench`. The server and the load generator share the cores, so compare these figures only " +
		"with each other, not with those of other machines. [README.md](README.md) explains what is measured and how.\n")
	var first *Run
	for _, s := range sections {
		if run, ok := runOf(records, s.name); ok && s.title != "" && (first == nil || run.Time.Before(first.Time)) {
			first = &run
		}
	}
	if first != nil {
		b.WriteString("\n" + first.text() + "\n\nVersions: " + strings.Join(first.Versions, ", ") + ".\n")
		if first.Quick {
			b.WriteString(quickWarning)
		}
	}
	summary(&b, records)
	for _, s := range sections {
		run, ok := runOf(records, s.name)
		if !ok || s.title == "" {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s `make bench ARGS='-only %s'` repeats this.\n", s.title, s.about, s.name)
		fmt.Fprintf(&b, "Rounds: %d, in %.0f s.\n", roundsOf(records, s.name), run.Seconds)
		if !run.same(*first) {
			fmt.Fprintf(&b, "\nThis section: %s\n", run.text())
			if run.Quick && !first.Quick {
				b.WriteString(quickWarning)
			}
		}
		if s.checks != nil {
			aims(&b, rowsOf(s.checks(), records))
		}
		figures(&b, s.name, records)
	}
	return b.Bytes()
}

const quickWarning = "\n**Measured with `-quick`, which only shows that everything works: these figures mean nothing.** " +
	"`make bench` replaces them.\n"

// roundsOf returns the largest number of rounds of a section.
func roundsOf(records []Record, section string) int {
	rounds := 0
	for _, r := range records {
		if r.Section == section && r.What != begun {
			rounds = max(rounds, r.Round+1)
		}
	}
	return rounds
}

func (r Run) text() string {
	return fmt.Sprintf("Measured on %s UTC at commit %s, on %s.", r.Time.Format("2 January 2006, 15:04"), r.Commit, r.Machine)
}

// summary has what a reader looks for first: where other servers are ahead, and the limits that are missed.
func summary(b *bytes.Buffer, records []Record) {
	checks := allChecks()
	rows := rowsOf(checks, records)
	if len(rows) == 0 {
		return
	}
	missed := slices.DeleteFunc(slices.Clone(rows), func(row checkRow) bool { return row.verdict == met })
	fmt.Fprintf(b, "\n%d of %d limits are met.", len(rows)-len(missed), len(rows))
	if len(missed) > 0 {
		b.WriteString(" Not met:\n")
		for _, row := range missed {
			fmt.Fprintf(b, "\n- %s: %s, %s", row.figure, row.measured, row.limit)
		}
	}
	b.WriteString("\n")
	if list := behind(checks, records); len(list) > 0 {
		fmt.Fprintf(b, "\nWhere another server is ahead of pushy: %s.\n", strings.Join(list, "; "))
	}
}

func aims(b *bytes.Buffer, rows []checkRow) {
	if len(rows) == 0 {
		return
	}
	b.WriteString("\n| figure | measured | lowest and highest round | limit | | behind it |\n|---|---|---|---|---|---|\n")
	for _, row := range rows {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", row.figure, row.measured, row.spread, row.limit, row.verdict, row.detail)
	}
}

// columns are the values of tables, in their order. Those that a section does not have are left out.
var columns = []string{
	cpu, wholeCPU, brokerCPU, rate, p50, p99, readBytes, commandCPU, commandRate, commandAllocs, connectCPU, connectSecs,
	connectNews, connectKiB, collected,
	joinCPU, joinKiB, leaveCPU, leaveKiB, pairCPU, pairRate, reqCPU, requests, idleKiB,
}

// figures has the medians of all kinds of a section.
func figures(b *bytes.Buffer, section string, records []Record) {
	type load struct {
		what          string
		size, clients int
	}
	var loads []load
	var names []string
	has := map[string]bool{}
	for _, r := range records {
		if r.Section != section || r.What == begun || r.What == "idle" && section != "memory" {
			continue
		}
		if l := (load{r.What, r.Size, r.Clients}); !slices.Contains(loads, l) {
			loads = append(loads, l)
		}
		if !slices.Contains(names, r.Kind) {
			names = append(names, r.Kind)
		}
		for value := range r.Value {
			has[value] = true
		}
	}
	has[readBytes] = has[readBytes] && section == "compression"
	shown := slices.DeleteFunc(slices.Clone(columns), func(value string) bool { return !has[value] })
	if len(loads) == 0 || len(shown) == 0 {
		return
	}
	b.WriteString("\n| load | |")
	for _, value := range shown {
		fmt.Fprintf(b, " %s |", value)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(shown)) + "\n")
	for _, l := range loads {
		what := cmp.Or(loadNames[l.what], l.what)
		for _, other := range loads {
			if l.size != 0 && other.what == l.what && other.size != l.size && other.size != 0 {
				what += fmt.Sprintf(", %s bytes", thousands(l.size))
				break
			}
		}
		for _, other := range loads {
			if other.clients != l.clients {
				what += fmt.Sprintf(", %s clients", thousands(l.clients))
				break
			}
		}
		for _, kind := range names {
			for stuck := range 2 {
				row(b, what, records, query{
					section: section,
					kind:    kind,
					what:    l.what,
					clients: l.clients,
					size:    l.size,
					stuck:   stuck,
				}, shown)
			}
		}
	}
}

// row writes the medians of one kind, if it was measured.
func row(b *bytes.Buffer, what string, records []Record, q query, shown []string) {
	q.channels = channelsOf(records, q)
	measured := false
	label := labelOf(q.kind)
	if q.stuck > 0 {
		label += ", beside it"
	}
	line := fmt.Sprintf("| %s | %s |", what, label)
	for _, value := range shown {
		text := q.text(records, value)
		measured = measured || text != "–"
		line += " " + text + " |"
	}
	if measured {
		b.WriteString(line + "\n")
	}
}

// channelsOf returns the number of channels of a section, which is the same for all its sittings.
func channelsOf(records []Record, q query) int {
	for _, r := range records {
		if r.Section == q.section && r.What != begun {
			return r.Channels
		}
	}
	return 1
}

func labelOf(name string) string {
	if k, ok := find(name); ok {
		return k.label
	}
	return name
}

// number formats a figure with three digits.
func number(v float64) string {
	switch {
	case v < 0:
		return "-" + number(-v)
	case v >= 1000:
		return thousands(int(v + .5))
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= .1 || v == 0:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.4f", v)
	}
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
