package main

import (
	"context"
	"fmt"

	"github.com/gopushy/pushy/bench/internal/load"
)

// The values of the Records of commands.
const (
	commandCPU    = "CPU µs a command"
	commandRate   = "commands a second"
	commandAllocs = "allocations a command"
)

const commandClients = 100

// commandNames are the commands: untyped and typed.
var commandNames = []string{"echo", "typed"}

// underWay are the numbers of commands of each client that have no answer yet.
var underWay = []int{1, 16}

// planCommands measures commands and their answers, and requests that publish beside a handler of
// net/http.
func planCommands(quick bool) []batch {
	rounds := times(quick, 3)
	s := sitting{
		clients:   commandClients,
		loads:     closed(quick, eventSize, 1),
		unlimited: true,
		program:   runCommands,
	}
	triggers := sitting{
		clients:  16,
		triggers: true,
		loads:    []load.Load{{Size: eventSize, Warm: warm, Time: span}},
	}
	return []batch{{rounds, s.each(commandKinds()...)}, {rounds, triggers.each("pushy", "http")}}
}

// commandKinds are centrifuge, and pushy and its other builds over WebSockets.
func commandKinds() []string {
	var names []string
	for _, k := range kinds {
		if k.name == "centrifuge" || k.webSocket() {
			names = append(names, k.name)
		}
	}
	return names
}

func runCommands(ctx context.Context, s *sitter) error {
	l := s.loads[0]
	for _, name := range commandNames {
		for _, n := range underWay {
			commands := load.Commands{
				Name:     name,
				Size:     l.Size,
				UnderWay: n,
				Warm:     l.Warm,
				Time:     l.Time,
			}
			a, err := commands.Run(ctx, load.Config{
				Addr:    s.server.addr,
				PID:     s.server.cmd.Process.Pid,
				Dialect: s.server.kind.dialect,
				Clients: s.clients,
				Count:   func() (int64, error) { return s.server.counter("mallocs") },
			})
			if err != nil {
				return fmt.Errorf("%s, %d under way: %w", name, n, err)
			}
			s.record(fmt.Sprintf("%s %d", name, n), l.Size, map[string]float64{
				commandCPU:    micros(a.CPU, a.Count),
				commandRate:   float64(a.Count) / a.Elapsed.Seconds(),
				commandAllocs: float64(a.Counted) / float64(max(a.Count, 1)),
				p50:           millis(a.P50),
				p99:           millis(a.P99),
				loadCPU:       micros(a.LoadCPU, a.Count),
			})
		}
	}
	return nil
}

func commandQuery(kind, name string, n int) query {
	return at("commands", kind, fmt.Sprintf("%s %d", name, n), commandClients)
}

// commandChecks are the limits for commands of issue 17.
func commandChecks() []check {
	var list []check
	for _, c := range []struct {
		kind, transport string
		name            string
		limits          [2]float64 // for underWay
	}{
		{"pushy/bare", "bare WebSocket", "typed", [2]float64{.9, .9}},
		{"pushy", "SockJS", "typed", [2]float64{1.3, 1.3}},
		{"pushy/bare", "bare WebSocket", "echo", [2]float64{.8, .75}},
		{"pushy", "SockJS", "echo", [2]float64{1.1, 1.1}},
	} {
		for i, n := range underWay {
			list = append(list, ratio(fmt.Sprintf("CPU a command, %s, %d under way, %s", c.name, n, c.transport),
				commandCPU, commandQuery(c.kind, c.name, n), commandQuery("centrifuge", c.name, n), c.limits[i]))
		}
	}
	requestsOf := func(kind string) query { return at("commands", kind, "triggers", 16) }
	return append(list,
		ratio("CPU a trigger request", reqCPU, requestsOf("pushy"), requestsOf("http"), 1.3).than("a handler that reads the body"),
		single("trigger requests a second on one core", requests, requestsOf("pushy"), "", 20_000).atLeast())
}
