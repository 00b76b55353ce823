package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopushy/pushy/bench/internal/chart"
)

// figure is a chart of the curves, and its table.
type figure struct {
	file  string
	title string
	axis  string
	what  string // the load of the Records
	value string
	logY  bool
	kinds []string
}

// The kinds of each chart: few enough to distinguish their lines.
var (
	webSockets = []string{"pushy", "pushy/bare", "bare", "gorilla", "sockjsgo", "centrifuge", "centrifugetuned", "melody", "node:sockjs", "node:socketio", "node:ws"}
	otherways  = []string{"pushy/streaming", "sockjsgo/streaming", "pushy/tls", "bare/tls", "pushy"}
)

func figures() []figure {
	var all []figure
	for _, f := range []figure{
		{"cpu", "Server CPU a delivery", "µs; 200-byte events, window 8", "w8", cpu, true, nil},
		{"rate", "Deliveries a second", "200-byte events, window 8", "w8", rate, true, nil},
		{"p50", "Median latency", "ms; 10 events a second", "r10", p50, true, nil},
		{"p99", "99th percentile of latency", "ms; 10 events a second", "r10", p99, true, nil},
		{"memory", "Resident memory an idle subscribed connection", "KiB", "idle", idleKiB, true, nil},
	} {
		ws, rest := f, f
		ws.kinds, rest.kinds = webSockets, otherways
		rest.file += "-streaming-tls"
		rest.title += ", streaming and TLS"
		all = append(all, ws, rest)
	}
	return all
}

// report writes RESULTS.md and its charts.
func report(folder string, records []Record) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Results\n\nMade by `make bench` on %s: %s.\n", time.Now().UTC().Format("2 January 2006"), machine())
	b.WriteString("The server and the load generator share the cores, so compare these figures only with each other, not with those of other machines. README.md explains what is measured and how.\n")
	for _, m := range musts() {
		rows := m.rows(records)
		if rows == nil {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\nMedians of rounds in which all contenders took turns; ratios are taken round by round.\n\n| figure | measured | limit | | behind it |\n|---|---|---|---|---|\n", m.title)
		for _, row := range rows {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", row.figure, row.value, row.limit, row.verdict, row.detail)
		}
	}
	b.WriteString("\n## By number of subscribers\n")
	for _, f := range figures() {
		text, svg := f.draw(records)
		if svg == "" {
			continue
		}
		file := f.file + ".svg"
		if err := os.WriteFile(filepath.Join(folder, file), []byte(svg), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&b, "\n### %s\n\n![%s](%s)\n\n%s", f.title, f.title, file, text)
	}
	b.WriteString(grid(records, "sizes", "By size of event and window", "1,000 subscribers.", []int{1000}))
	b.WriteString(grid(records, "channels", "Many channels", "Channels of 10 subscribers each, published to in turn; CPU includes the publishing, of which there is one for 10 deliveries.", []int{10_000, 1000}))
	b.WriteString(commandTable(records))
	b.WriteString(shared(records, "brokers", "With a broker", "1,000 subscribers, 200-byte events, published on the subscribers' node. Behind: the events themselves could not be published at that rate."))
	b.WriteString(shared(records, "apart", "With a broker, two nodes", "The same with all subscribers on one node, whose CPU this is, and events published on the other."))
	return os.WriteFile(filepath.Join(folder, "RESULTS.md"), []byte(b.String()), 0o644)
}

// draw returns a figure's table and chart.
func (f figure) draw(records []Record) (table, svg string) {
	var counts []int
	for _, r := range records {
		if r.Section == "curves" && !slices.Contains(counts, r.Clients) {
			counts = append(counts, r.Clients)
		}
	}
	slices.Sort(counts)
	var b strings.Builder
	b.WriteString("| subscribers |")
	for _, n := range counts {
		fmt.Fprintf(&b, " %s |", thousands(n))
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(counts)) + "\n")
	c := chart.Chart{Title: f.title, X: "subscribers", Y: f.axis, LogY: f.logY}
	for _, k := range f.kinds {
		line := chart.Line{Name: labelOf(k), Strong: strings.HasPrefix(k, "pushy")}
		fmt.Fprintf(&b, "| %s |", labelOf(k))
		for _, n := range counts {
			v, ok := query{section: "curves", kind: k, what: f.what, clients: n}.median(records, f.value)
			if !ok {
				b.WriteString(" – |")
				continue
			}
			fmt.Fprintf(&b, " %s |", number(v))
			line.Points = append(line.Points, chart.Point{X: float64(n), Y: v})
		}
		b.WriteString("\n")
		c.Lines = append(c.Lines, line)
	}
	return b.String(), c.SVG()
}

// grid returns the table of a section whose sittings differ in size and window.
func grid(records []Record, section, title, note string, clients []int) string {
	var b strings.Builder
	for _, size := range sizes {
		for _, window := range []string{"w1", "w8", "w64"} {
			for _, n := range clients {
				for _, k := range contenders {
					q := query{section: section, kind: k, what: window, size: size, clients: n}
					if section == "channels" {
						q.channels = n / 10
					}
					c, ok := q.median(records, cpu)
					if !ok {
						continue
					}
					d, _ := q.median(records, rate)
					mid, _ := q.median(records, p50)
					high, _ := q.median(records, p99)
					fmt.Fprintf(&b, "| %d | %s | %s | %s | %s | %s | %s |\n", size, window[1:], labelOf(k), number(c), number(d), number(mid), number(high))
				}
			}
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("\n## %s\n\n%s\n\n| bytes | window | | CPU µs a delivery | deliveries a second | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|\n%s", title, note, b.String())
}

// shared returns the table of the kinds that have a broker, and of pushy without one.
func shared(records []Record, section, title, note string) string {
	var b strings.Builder
	for _, what := range []string{"w1", "w8", "r50", "r300"} {
		for _, k := range sharers {
			q := query{section: section, kind: k, what: what, clients: 1000}
			if _, ok := q.median(records, cpu); !ok {
				continue
			}
			fmt.Fprintf(&b, "| %s | %s |", what, labelOf(k))
			for _, value := range []string{cpu, brokerCPU, rate, p50, p99} {
				fmt.Fprintf(&b, " %s |", q.text(records, value))
			}
			b.WriteString("\n")
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("\n## %s\n\n%s\n\n| load | | server's CPU µs a delivery | broker's | deliveries a second | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|\n%s", title, note, b.String())
}

func machine() string {
	var u unix.Utsname
	kernel := runtime.GOOS
	if unix.Uname(&u) == nil {
		kernel += " " + unix.ByteSliceToString(u.Release[:])
	}
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s, %s", runtime.NumCPU(), model, kernel, runtime.Version())
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
