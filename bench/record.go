package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// shownValues are the figures of a line, in this order, and how they are written.
var shownValues = []struct{ name, format string }{
	{idleKiB, "%.2f KiB/conn"},
	{requests, "%.0f requests/s"},
	{reqCPU, "%.1f µs/request"},
	{cpu, "%.3f µs/delivery"},
	{rate, "%.0f/s"},
	{p50, "p50 %.2f ms"},
	{p99, "p99 %.2f ms"},
	{worst, "max %.2f ms"},
	{readBytes, "%.0f bytes"},
	{allocs, "%.4f allocs"},
	{loadCPU, "load %.3f µs"},
	{brokerCPU, "broker %.4f µs"},
	{connectCPU, "%.1f µs/client"},
	{connectSecs, "all after %.2f s"},
	{connectNews, "%.1f allocs"},
	{connectKiB, "%.1f KiB"},
	{joinCPU, "%.3f ms/join"},
	{joinKiB, "%.1f KiB/join"},
	{leaveCPU, "%.3f ms/leave"},
	{leaveKiB, "%.1f KiB/leave"},
	{pairCPU, "%.1f µs/join and leave"},
	{pairRate, "%.0f/s"},
	{clientCPU, "%.1f µs/client"},
	{overCPU, "%+.1f µs over plain"},
	{askCPU, "%.1f µs/subscription"},
	{overAsk, "%+.1f µs over plain"},
	{askBytes, "%.0f bytes allocated"},
	{allocated, "%.0f a client"},
	{collected, "%.0f GCs"},
	{dropCPU, "lost %.1f µs"},
	{lastMillis, "last %.0f ms"},
	{peakMiB, "peak %.0f MiB"},
	{replyBytes, "%.0f bytes"},
	{cutOff, "%.0f disconnected"},
	{lacking, "%.0f lack something"},
	{replayed, "%.0f replayed"},
	{disturbing, "%.0f messages to others"},
	{heapBytes, "%.0f bytes/event"},
	{heapFramed, "%.0f after a replay"},
	{publishes, "%.0f publishes/s"},
	{pubCPU, "%.2f µs/publish"},
	{pubBroker, "broker %.2f µs"},
	{pubAllocs, "%.1f allocs"},
	{pubBytes, "%.0f bytes"},
	{commandCPU, "%.2f µs/command"},
	{commandRate, "%.0f commands/s"},
	{commandAllocs, "%.1f allocs"},
	{p99Over, "%.2f of before"},
	{shakesAdmitted, "%.0f admitted/s"},
	{shakesClosed, "%.0f closed/s"},
	{shakesRefused, "%.0f refused/s"},
	{shakesFailed, "%.0f failed"},
	{stormPeak, "at most %.0f connects in 100 ms"},
	{stormMean, "mean of the window %.0f"},
	{stormRatio, "%.2f of it"},
	{stormLast, "last after %.1f s"},
	{stormFails, "%.0f attempts failed"},
	{stormTold, "%.0f were told"},
}

// String returns the line that is printed during a run.
func (r Record) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %-21s n=%-6d %-8s", r.Section, r.Kind, r.Clients, r.What)
	if r.Size != 0 {
		fmt.Fprintf(&b, " size=%-5d", r.Size)
	}
	if r.Channels > 1 {
		fmt.Fprintf(&b, " channels=%d", r.Channels)
	}
	if r.Stuck > 0 {
		fmt.Fprintf(&b, " stuck=%d", r.Stuck)
	}
	for _, f := range shownValues {
		if v, ok := r.Value[f.name]; ok {
			fmt.Fprintf(&b, "  "+f.format, v)
		}
	}
	if v, ok := r.Value[kept]; ok && v == 0 {
		b.WriteString("  BEHIND ITS RATE")
	}
	return b.String()
}

func readRecords(path string) ([]Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var records []Record
	dec := json.NewDecoder(bufio.NewReader(f))
	for {
		var r Record
		if err := dec.Decode(&r); err == io.EOF {
			return records, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		records = append(records, r)
	}
}

// query selects the Records of all rounds of one measurement. Fields that are zero select any
// value, except Size and Stuck.
type query struct {
	section, kind, what string
	clients, size       int
	channels, stuck     int
}

// rounds returns the value of each round.
func (q query) rounds(records []Record, value string) map[int]float64 {
	found := map[int]float64{}
	for _, r := range records {
		v, ok := r.Value[value]
		if ok && r.Section == q.section && r.Kind == q.kind && r.What == q.what && r.Clients == q.clients &&
			r.Stuck == q.stuck && r.Channels == max(q.channels, 1) && (q.size == 0 || r.Size == q.size) {
			found[r.Round] = v
		}
	}
	return found
}

func (q query) median(records []Record, value string) (float64, bool) {
	var all []float64
	for _, v := range q.rounds(records, value) {
		all = append(all, v)
	}
	return median(all)
}

// text returns the median for a table, or "–" if there is none. It adds "behind" if the server
// could not keep the rate: its latency is then that of a backlog.
func (q query) text(records []Record, value string) string {
	v, ok := q.median(records, value)
	if !ok {
		return "–"
	}
	if k, ok := q.median(records, kept); ok && k < 1 && (value == p50 || value == p99) {
		return number(v) + " (behind)"
	}
	return number(v)
}

// ratios returns the ratio of a to b in each round. Both were measured within seconds of each
// other, so these ratios are more exact than that of two medians.
func ratios(a, b map[int]float64) map[int]float64 {
	found := map[int]float64{}
	for round, v := range a {
		if w, ok := b[round]; ok && w != 0 {
			found[round] = v / w
		}
	}
	return found
}

func medianOf(values map[int]float64) (float64, bool) {
	var all []float64
	for _, v := range values {
		all = append(all, v)
	}
	return median(all)
}

func rangeOf(values map[int]float64) (low, high float64) {
	all := slices.Sorted(maps.Values(values))
	if len(all) == 0 {
		return 0, 0
	}
	return all[0], all[len(all)-1]
}

func median(all []float64) (float64, bool) {
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	if n := len(all); n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2, true
	}
	return all[len(all)/2], true
}

// printOne prints the medians of -one, and the ratios of the first kind to the others.
func printOne(w io.Writer, records []Record, names []string) {
	type key struct {
		what string
		size int
	}
	var loads []key
	for _, r := range records {
		if k := (key{r.What, r.Size}); !slices.Contains(loads, k) {
			loads = append(loads, k)
		}
	}
	for _, l := range loads {
		values := []string{cpu, rate, p50, p99, allocs, readBytes}
		if l.what == "idle" {
			values = []string{idleKiB}
		}
		for _, value := range values {
			fmt.Fprintf(w, "%-5s %-26s", l.what, value)
			var first map[int]float64
			for i, name := range names {
				q := query{section: "one", kind: name, what: l.what, size: l.size, clients: *clients, channels: *channels, stuck: *stuck}
				v := q.rounds(records, value)
				m, ok := medianOf(v)
				if !ok {
					continue
				}
				fmt.Fprintf(w, "  %s %.3f", name, m)
				if i == 0 {
					first = v
					continue
				}
				all := ratios(first, v)
				if ratio, ok := medianOf(all); ok {
					low, high := rangeOf(all)
					fmt.Fprintf(w, " (%.3f, %.3f–%.3f)", ratio, low, high)
				}
			}
			fmt.Fprintln(w)
		}
	}
	if len(names) > 1 {
		fmt.Fprintln(w, "In brackets: the first kind's value divided by this one's, the median of the rounds and their range.")
	}
}
