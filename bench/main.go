// Command bench compares pushy with its peers, other servers, under the same load, on the
// same machine and in one run. See README.md.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gopushy/pushy/bench/internal/load"
)

var (
	only = flag.String("only", "", "sections to run, separated by commas: "+strings.Join(sectionNames(false), ", ")+
		"; with -recovery: "+strings.Join(sectionNames(true), ", "))
	peers    = flag.String("peers", "", "kinds to run, separated by commas (default all)")
	goOn     = flag.Bool("continue", false, "leave out the sections that -keep has of this commit")
	recovers = flag.Bool("recovery", false, "other sections instead: clients that return, kept events, very many "+
		"handshakes, and storms; prints the table and writes nothing")
	quick = flag.Bool("quick", false, "one round of short measurements: a check that everything works, not a result")
	out   = flag.String("out", ".", "directory for RESULTS.md and its chart; README.md is written if it is the default")
	keep  = flag.String("keep", binDir+"/results.jsonl", "file for the single measurements, one JSON object "+
		"a line; a section that is measured again is replaced")
	render = flag.String("render", "", "measure nothing; write RESULTS.md, its chart and README.md "+
		"from a file that -keep has written")
	profiles = flag.String("profile", "", "directory for CPU profiles of the Go servers, one for each start of a server")
	shaken   = flag.String("shake", "", "ADDRESS: make handshakes there; the section shakes runs this in another process")
	sim      = flag.Int("sim", 0, "connections in memory, in this process, such as 1000000: print what they "+
		"cost in the core; nothing else is measured")
	also = flag.String("also", "", "NAME=BINARY of another build of ./server, which becomes a kind of that name; "+
		"several are separated by commas")

	one      = flag.String("one", "", "kinds to compare under one load, separated by commas, instead of the sections")
	clients  = flag.Int("n", 1000, "with -one: clients")
	channels = flag.Int("channels", 1, "with -one: channels")
	windows  = flag.String("window", "8", "with -one: windows, separated by commas")
	rates    = flag.String("rate", "", "with -one: events a second, separated by commas, instead of windows")
	size     = flag.Int("size", 200, "with -one: bytes of an event's data")
	asJSON   = flag.Bool("json", false, "with -one: an event's data is a list of objects, and not one letter repeated")
	stuck    = flag.Int("stuck", 0, "with -one: clients that never read")
	rounds   = flag.Int("rounds", 0, "rounds (default 3 with -one, otherwise those of each section)")
	period   = flag.Duration("time", 2*time.Second, "with -one: how long a load is measured")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	if *shaken != "" {
		return shake(*shaken, *period)
	}
	if *sim > 0 {
		return simulate(ctx, *sim, os.Stdout)
	}
	for build := range strings.SplitSeq(*also, ",") {
		if build == "" {
			continue
		}
		name, binary, ok := strings.Cut(build, "=")
		if !ok {
			return fmt.Errorf("-also takes NAME=BINARY, not %q", build)
		}
		addBuild(name, binary)
	}
	if *quick {
		settle = 200 * time.Millisecond
	}
	if *render != "" {
		if _, err := os.Stat(*render); err != nil {
			return err
		}
		records, err := savedRecords(*render)
		if err != nil {
			return err
		}
		return writeAll(records)
	}
	if err := build(); err != nil {
		return err
	}
	without := missing()
	for _, program := range without {
		fmt.Printf("%s is not installed: the kinds that need it are not measured\n", program)
	}
	if !slices.Contains(without, "node") && !*recovers {
		if err := installPeers(); err != nil {
			return err
		}
	}
	names := sectionNames(*recovers)
	if *only != "" {
		names = strings.Split(*only, ",")
	}
	plan, err := planOf(names, *quick)
	if *one != "" {
		plan, err = onePlan()
	}
	if err != nil {
		return err
	}
	var wanted []string
	if *peers != "" {
		wanted = strings.Split(*peers, ",")
	}
	for _, p := range plan {
		for i := range p.batches {
			b := &p.batches[i]
			b.rounds = cmp.Or(*rounds, b.rounds)
			b.sittings = slices.DeleteFunc(b.sittings, func(s sitting) bool {
				k, known := find(s.kind)
				return known && slices.Contains(without, k.needs()) || wanted != nil && !slices.Contains(wanted, s.kind)
			})
		}
	}
	if *one != "" || *recovers {
		var all []Record
		for _, p := range plan {
			records, err := p.measure(ctx)
			if err != nil {
				return err
			}
			all = append(all, records...)
		}
		if *one != "" {
			printOne(os.Stdout, all, strings.Split(*one, ","))
		} else {
			printRecovery(os.Stdout, all)
		}
		return nil
	}
	return measureSections(ctx, plan)
}

// measureSections measures sections, and writes the results after each of them, so that a run that is
// interrupted loses one section.
func measureSections(ctx context.Context, plan []part) error {
	all, err := savedRecords(*keep)
	if err != nil {
		return err
	}
	began := time.Now()
	for _, p := range plan {
		run := thisRun(*quick)
		if before, ok := runOf(all, p.section); ok && *goOn && before.same(run) {
			fmt.Printf("%s was measured at %s\n", p.section, before.Time.Format(time.TimeOnly))
			continue
		}
		records, err := p.measure(ctx)
		if err != nil {
			return err
		}
		run.Seconds = time.Since(run.Time).Seconds()
		fmt.Printf("%s took %.0f s, all sections so far %.0f s\n", p.section, run.Seconds, time.Since(began).Seconds())
		all = replaced(all, p.section, append(records, Record{
			Section: p.section,
			What:    begun,
			Run:     &run,
		}))
		if err := saveRecords(*keep, all); err != nil {
			return err
		}
		if err := writeAll(all); err != nil {
			return err
		}
	}
	printChecks(os.Stdout, allChecks(), all)
	return nil
}

// writeAll writes RESULTS.md and the chart, and README.md unless they are written elsewhere, or the
// sections of the chart are not all measured.
func writeAll(records []Record) error {
	if err := report(*out, records); err != nil {
		return err
	}
	for _, g := range chartGroups {
		if run, ok := runOf(records, g.section); !ok || run.Quick || *out != "." {
			return nil
		}
	}
	return writeReadme("../README.md", records)
}

// batch has the sittings that are compared with each other. Each round runs all of them, one
// after another, so that a machine that becomes slower affects all.
type batch struct {
	rounds   int
	sittings []sitting
}

// measure runs all batches. A sitting that fails is reported, and its figures are missing in
// the results.
func (p part) measure(ctx context.Context) ([]Record, error) {
	if *profiles != "" {
		if err := os.MkdirAll(*profiles, 0o755); err != nil {
			return nil, err
		}
	}
	var all []Record
	for _, b := range p.batches {
		for round := range b.rounds {
			sittings := slices.Clone(b.sittings)
			if round%2 == 1 {
				slices.Reverse(sittings) // the first kind tends to have the highest figures
			}
			for _, s := range sittings {
				records, err := s.run(ctx, round, *profiles)
				if ctx.Err() != nil {
					return all, ctx.Err()
				}
				for _, r := range records {
					fmt.Println(r)
				}
				if err != nil {
					fmt.Println("FAILED:", err)
				}
				all = append(all, records...)
			}
		}
	}
	return all, nil
}

// onePlan returns the plan for -one.
func onePlan() ([]part, error) {
	var loads []load.Load
	list, closed := *windows, true
	if *rates != "" {
		list, closed = *rates, false
	}
	for text := range strings.SplitSeq(list, ",") {
		l := load.Load{
			Size: *size,
			JSON: *asJSON,
			Warm: 400 * time.Millisecond,
			Time: *period,
		}
		var err error
		if closed {
			_, err = fmt.Sscan(text, &l.Window)
		} else {
			_, err = fmt.Sscan(text, &l.Rate)
		}
		if err != nil || l.Window <= 0 && l.Rate <= 0 {
			return nil, fmt.Errorf("%q is not a window and not a rate", text)
		}
		loads = append(loads, l)
	}
	b := batch{rounds: cmp.Or(*rounds, 3)}
	for name := range strings.SplitSeq(*one, ",") {
		b.sittings = append(b.sittings, sitting{
			section: "one", kind: name, clients: *clients, channels: *channels, stuck: *stuck, prefill: *stuck > 0, loads: loads,
		})
	}
	return []part{{section: "one", batches: []batch{b}}}, nil
}
