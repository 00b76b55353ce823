package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/gopushy/pushy/bench/internal/load"
)

// The values of the Records of clients that connect, and of members.
const (
	connectCPU  = "CPU µs a client that connects"
	connectSecs = "s until all are subscribed"
	connectNews = "allocations a client that connects"
	connectKiB  = "KiB allocated a client that connects"
	joinCPU     = "CPU ms a join"
	leaveCPU    = "CPU ms a leave"
	joinKiB     = "KiB a join"
	leaveKiB    = "KiB a leave"
	pairCPU     = "CPU µs a join and leave"
	pairRate    = "joins and leaves a second"
)

const (
	connectClients = 5000
	// connectReturns is how often the clients come again. One return takes half a second of CPU time, in which
	// a server collects its garbage once or several times, and another program on the machine changes much.
	connectReturns = 5
)

func planConnects(quick bool) []batch {
	s := sitting{
		clients: connectClients,
		program: connectAll,
	}
	names := []string{"pushy", "pushy/bare", "centrifuge", "bare", "sockjsgo"}
	for _, k := range kinds {
		if k.otherBuild() && k.webSocket() {
			names = append(names, k.name)
		}
	}
	return []batch{{times(quick, 5), s.each(names...)}}
}

// connectAll measures clients that connect and subscribe, and their returns.
func connectAll(ctx context.Context, s *sitter) error {
	const atOnce = 200
	c := &connecting{
		sitter: s,
		cfg: load.Config{
			Addr:     s.server.addr,
			PID:      s.server.cmd.Process.Pid,
			Dialect:  s.server.kind.dialect,
			Clients:  s.clients,
			Channels: 1,
			AtOnce:   atOnce,
		},
	}
	defer c.close()
	if err := c.connect(ctx, "first", 1); err != nil {
		return err
	}
	return c.connect(ctx, "again", connectReturns)
}

// connecting has the clients of a sitting that connect and come again.
type connecting struct {
	*sitter
	cfg     load.Config
	clients *load.Clients // nil while none are connected
}

func (c *connecting) close() {
	if c.clients != nil {
		c.clients.Close()
		c.clients = nil
	}
}

// connect lets all clients connect, several times, and records the mean.
func (c *connecting) connect(ctx context.Context, what string, times int) error {
	start, err := c.server.ask(http.MethodGet, "/bench/counters", counterTimeout)
	if err != nil {
		return err
	}
	var used, took time.Duration
	for range times {
		before := load.CPU(c.cfg.PID)
		c.close() // the end of the old connections is part of a return
		began := time.Now()
		if c.clients, err = load.Connect(ctx, c.cfg); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		took += time.Since(began)
		used += c.rest() - before
	}
	end, err := c.server.ask(http.MethodGet, "/bench/counters", counterTimeout)
	if err != nil {
		return err
	}
	all := int64(c.cfg.Clients * times)
	c.record(what, 0, map[string]float64{
		connectCPU:  micros(used, all),
		connectSecs: took.Seconds() / float64(times),
		connectNews: float64(end["mallocs"]-start["mallocs"]) / float64(all),
		connectKiB:  float64(end["bytes"]-start["bytes"]) / 1024 / float64(all),
		collected:   float64(end["gcs"]-start["gcs"]) / float64(times),
	})
	return nil
}

func connectChecks() []check {
	of := func(kind, what string) query { return at("connects", kind, what, connectClients) }
	return []check{
		ratio("CPU a client that connects and subscribes", connectCPU, of("pushy", "first"), of("centrifuge", "first"), .6),
		ratio("CPU a client that connects and subscribes", connectCPU, of("pushy", "first"), of("bare", "first"), 1.4),
		ratio("CPU a client that comes again", connectCPU, of("pushy", "again"), of("centrifuge", "again"), .6),
	}
}

// presenceModes are the modes of presence that are compared.
var presenceModes = []string{"list", "diff"}

const presenceClients = 500

func planPresence(quick bool) []batch {
	s := sitting{
		clients:   presenceClients,
		unlimited: true,
		program:   joinAll,
	}
	return []batch{{times(quick, 5), s.each("pushy", "pushy/bare", "centrifuge")}}
}

// joinAll measures clients that become members of a channel with presence, and leave it, in each mode.
func joinAll(ctx context.Context, s *sitter) error {
	for _, mode := range presenceModes {
		joined, left, err := load.Join(ctx, load.Config{
			Addr:    s.server.addr,
			PID:     s.server.cmd.Process.Pid,
			Dialect: s.server.kind.dialect,
			Clients: s.clients,
		}, mode)
		if err != nil {
			return fmt.Errorf("mode %s: %w", mode, err)
		}
		each := float64(s.clients)
		s.record(mode, 0, map[string]float64{
			joinCPU:  millis(joined.CPU) / each,
			joinKiB:  float64(joined.Bytes) / 1024 / each,
			leaveCPU: millis(left.CPU) / each,
			leaveKiB: float64(left.Bytes) / 1024 / each,
		})
	}
	return nil
}

func presenceChecks() []check {
	of := func(kind, what string) query { return at("presence", kind, what, presenceClients) }
	return []check{
		ratio("CPU a join, mode list", joinCPU, of("pushy", "list"), of("centrifuge", "list"), .3),
		ratio("CPU a join, mode list, bare WebSocket", joinCPU, of("pushy/bare", "list"), of("centrifuge", "list"), .3),
		ratio("CPU a join, mode diff", joinCPU, of("pushy", "diff"), of("centrifuge", "list"), .25).than("centrifuge with its list"),
		ratio("bytes a join, mode diff", joinKiB, of("pushy", "diff"), of("centrifuge", "list"), .25).than("centrifuge with its list"),
	}
}

// memberCounts are the numbers of subscribers of the channel that others join and leave.
var memberCounts = []int{10, 1000, 9000}

// movers are the clients that join and leave.
const movers = 8

func planMembers(quick bool) []batch {
	b := batch{rounds: times(quick, 5)}
	for _, n := range memberCounts {
		b.sittings = append(b.sittings, sitting{
			clients:   n,
			unlimited: true,
			loads:     closed(quick, eventSize, 1),
			program:   joinAndLeave,
		}.each("pushy", "centrifuge")...)
	}
	return []batch{b}
}

func joinAndLeave(ctx context.Context, s *sitter) error {
	l := s.loads[0]
	p, err := load.Churn(ctx, load.Config{
		Addr:     s.server.addr,
		PID:      s.server.cmd.Process.Pid,
		Dialect:  s.server.kind.dialect,
		Clients:  s.clients,
		Channels: 1,
	}, movers, l.Warm, l.Time)
	if err != nil {
		return err
	}
	s.record("joins", 0, map[string]float64{
		pairCPU:  micros(p.CPU, p.Count),
		pairRate: float64(p.Count) / p.Elapsed.Seconds(),
	})
	return nil
}

func memberChecks() []check {
	var list []check
	for _, n := range memberCounts {
		list = append(list, ratio(fmt.Sprintf("CPU a join and leave, %s members", thousands(n)), pairCPU,
			at("members", "pushy", "joins", n), at("members", "centrifuge", "joins", n), .9))
	}
	return append(list, ratio("CPU a join and leave, 9,000 members", pairCPU,
		at("members", "pushy", "joins", 9000), at("members", "pushy", "joins", 10), 1.15).than("that with 10"))
}
