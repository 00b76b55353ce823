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
	only     = flag.String("only", "", "sections to run, separated by commas (default all): "+strings.Join(sectionNames(), ", "))
	peers    = flag.String("peers", "", "kinds to run, separated by commas (default all)")
	table    = flag.Bool("table", false, "only the figures that have limits; prints the table and writes nothing")
	recovers = flag.Bool("recovery", false, "only the sections of issue 13: clients that return, kept events, very many handshakes, and storms; prints the table and writes nothing")
	quick    = flag.Bool("quick", false, "one round of short measurements: a check that everything works, not a result")
	out      = flag.String("out", ".", "directory for RESULTS.md and its charts")
	keep     = flag.String("keep", binDir+"/results.jsonl", "file for the single measurements, one JSON object a line")
	render   = flag.String("render", "", "measure nothing; write RESULTS.md from a file that -keep has written")
	profiles = flag.String("profile", "", "directory for CPU profiles of the Go servers, one for each start of a server")
	shaken   = flag.String("shake", "", "ADDRESS: make handshakes there; the section shakes runs this in another process")
	sim      = flag.Int("sim", 0, "connections in memory, in this process: print what they cost in the core, such as 1000000; nothing else is measured")
	also     = flag.String("also", "", "NAME=BINARY of another build of ./server, which becomes a kind of that name; several are separated by commas")

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
		records, err := readRecords(*render)
		if err != nil {
			return err
		}
		return report(*out, records)
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
	var plan []batch
	var err error
	if *one != "" {
		if plan, err = onePlan(); err != nil {
			return err
		}
	} else {
		names := sectionNames()
		if *table {
			names = []string{"table"}
		} else if *recovers && *only == "" {
			names = recovery
		} else if *only != "" {
			names = strings.Split(*only, ",")
		}
		if plan, err = fullPlan(names, *quick); err != nil {
			return err
		}
	}
	var wanted []string
	if *peers != "" {
		wanted = strings.Split(*peers, ",")
	}
	for i := range plan {
		plan[i].rounds = cmp.Or(*rounds, plan[i].rounds)
		plan[i].sittings = slices.DeleteFunc(plan[i].sittings, func(s sitting) bool {
			k, known := find(s.kind)
			return known && slices.Contains(without, k.needs()) || wanted != nil && !slices.Contains(wanted, s.kind)
		})
	}
	records, err := measure(ctx, plan)
	if err != nil {
		return err
	}
	switch {
	case *one != "":
		printOne(os.Stdout, records, strings.Split(*one, ","))
		return nil
	case *table:
		printChecks(os.Stdout, records)
		return nil
	case *recovers:
		printRecovery(os.Stdout, records)
		return nil
	}
	if err := report(*out, records); err != nil {
		return err
	}
	printChecks(os.Stdout, records)
	return nil
}

// batch has the sittings that are compared with each other. Each round runs all of them, one
// after another, so that a machine that becomes slower affects all.
type batch struct {
	rounds   int
	sittings []sitting
}

// measure runs all batches. A sitting that fails is reported, and its figures are missing in
// the results.
func measure(ctx context.Context, plan []batch) ([]Record, error) {
	k, err := newKeeper(*keep)
	if err != nil {
		return nil, err
	}
	defer k.close()
	if *profiles != "" {
		if err := os.MkdirAll(*profiles, 0o755); err != nil {
			return nil, err
		}
	}
	var all []Record
	for _, b := range plan {
		for round := range b.rounds {
			for _, s := range b.sittings {
				records, err := s.run(ctx, round, *profiles)
				if ctx.Err() != nil {
					return all, ctx.Err()
				}
				for _, r := range records {
					fmt.Println(r)
					if err := k.keep(r); err != nil {
						return all, err
					}
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
func onePlan() ([]batch, error) {
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
	return []batch{b}, nil
}
