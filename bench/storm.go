package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gopushy/pushy/bench/internal/load"
)

// The values of the Records of storms.
const (
	stormPeak  = "connects in the busiest 100 ms"
	stormMean  = "mean of the window"
	stormRatio = "the busiest 100 ms over the mean of the window"
	stormLast  = "s until the last client is connected"
	stormFails = "attempts that failed"
	stormTold  = "clients that were told when to return"
)

const (
	// bin is the width of a column of the histogram.
	bin = 100 * time.Millisecond
	// returnRate is the default of Options.ReturnRate.
	returnRate = 2000
	// stormRest is the time after the last client has connected, before the server ends: the
	// server spreads pushy:return over 5 s, and f76b4aa's client counts failures anew after 5 s.
	stormRest = 7 * time.Second
)

// before is the commit with which storms are compared, the first release candidate.
const before = "f76b4aa"

// stormKinds are pushy-server of this tree and of before. They are apart from kinds, because only
// storms are measured with them.
var stormKinds = []kind{
	{
		name:   "pushy-server",
		label:  "pushy-server",
		server: "pushy-server",
	},
	{
		name:   "pushy-server/" + before,
		label:  "pushy-server of " + before,
		server: "pushy-server",
		arg:    before,
	},
}

// endings are the ways in which the server of a storm ends.
var endings = []struct {
	what   string
	signal syscall.Signal
}{
	{"kill -9", syscall.SIGKILL},
	{"Shutdown", syscall.SIGTERM},
}

// planStorm measures acceptance test 7 of operations: 10,000 clients lose their server and
// connect to another one, as the browser client of the server's time does.
func planStorm(quick bool) []batch {
	b := batch{rounds: times(quick, 3)}
	for _, e := range endings {
		s := sitting{
			clients: crowd(quick),
			program: func(ctx context.Context, s *sitter) error { return stormAfter(ctx, s, e.what, e.signal) },
		}
		for _, k := range stormKinds {
			b.sittings = append(b.sittings, s.each(k.name)...)
		}
	}
	return []batch{b}
}

// stormAfter connects the clients to the server of the sitting, starts another one, and ends the
// first one with a signal.
func stormAfter(ctx context.Context, s *sitter, what string, signal syscall.Signal) error {
	rule := load.Told
	if s.server.kind.arg == before {
		rule = load.Untold
	}
	other, err := startServer(s.server.kind)
	if err != nil {
		return err
	}
	defer other.stop()
	storm, err := load.NewStorm(rule, s.clients)
	if err != nil {
		return err
	}
	defer storm.Close()
	if err := storm.Connect(ctx, s.server.addr); err != nil {
		return err
	}
	if err := storm.Listen(ctx, stormRest); err != nil {
		return err
	}
	r, err := storm.Return(ctx, other.addr, func() error { return s.server.cmd.Process.Signal(signal) })
	if err != nil {
		return err
	}
	fmt.Printf("%s, %s: the connections ended with %v\n", s.kind, what, r.Codes)
	bins := histogram(r.Attempts)
	mean := windowMean(s.clients)
	s.record(what, 0, map[string]float64{
		stormPeak:  float64(slices.Max(bins)),
		stormMean:  mean,
		stormRatio: float64(slices.Max(bins)) / mean,
		stormLast:  r.Last.Seconds(),
		stormFails: float64(r.Failed),
		stormTold:  float64(r.Told),
	}, bins...)
	return nil
}

// windowMean returns the number of connects in 100 ms if the clients are spread evenly over the
// time that they need at returnRate, at least 1 s.
func windowMean(clients int) float64 {
	window := max(time.Second, time.Duration(clients)*time.Second/returnRate)
	return float64(clients) * float64(bin) / float64(window)
}

// histogram counts the attempts of each 100 ms.
func histogram(attempts []time.Duration) []int {
	bins := []int{0}
	for _, at := range attempts {
		for len(bins) <= int(at/bin) {
			bins = append(bins, 0)
		}
		bins[at/bin]++
	}
	return bins
}

// stormChecks are the figures of acceptance test 7 of operations.
func stormChecks() []check {
	var list []check
	for _, e := range endings {
		q := query{
			section: "storm",
			kind:    "pushy-server",
			what:    e.what,
			clients: crowd(false),
		}
		old := q
		old.kind += "/" + before
		list = append(list, check{
			figure: "connects in the busiest 100 ms after " + e.what + ", over the mean of the window",
			limit:  2,
			worst:  true,
			rounds: func(all []Record) map[int]float64 { return q.rounds(all, stormRatio) },
			detail: func(all []Record) string {
				return fmt.Sprintf("the worst round; the median is %s connects, and %s with %s",
					q.text(all, stormPeak), old.text(all, stormPeak), before)
			},
		})
	}
	return list
}

// printStorms prints the histogram of the first round of each storm. A column is 100 ms, and the
// height of a line is the mean of the window, so that all have the same scale.
func printStorms(w io.Writer, records []Record) {
	for _, r := range records {
		if len(r.Bins) == 0 || r.Round > 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s, %s: connects of %d clients in each 100 ms; the window's mean is %.0f\n",
			r.Kind, r.What, r.Clients, r.Value[stormMean])
		printBars(w, r.Bins, r.Value[stormMean])
	}
}

// barLines is the largest height of a bar.
const barLines = 14

func printBars(w io.Writer, bins []int, mean float64) {
	steps := []rune(" ▁▂▃▄▅▆▇█")
	filled := func(n int) int { return int(float64(n)/mean*8 + 0.5) }
	top := min(barLines, (filled(slices.Max(bins))+7)/8)
	for line := top; line > 0; line-- {
		var b strings.Builder
		for _, n := range bins {
			b.WriteRune(steps[min(8, max(0, filled(n)-(line-1)*8))])
		}
		fmt.Fprintf(w, "%6.0f %s\n", mean*float64(line), strings.TrimRight(b.String(), " "))
	}
	var scale strings.Builder
	for second := 0; second*10 <= len(bins); second++ {
		fmt.Fprintf(&scale, "%-10s", fmt.Sprintf("%d s", second))
	}
	fmt.Fprintf(w, "%6s %s\n", "", strings.TrimSpace(scale.String()))
}
