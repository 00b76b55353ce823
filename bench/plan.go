package main

import (
	"fmt"
	"time"

	"github.com/gopushy/pushy/bench/internal/load"
)

// section is one part of the results.
type section struct {
	name string
	plan func(quick bool) []batch
}

var sections = []section{
	{"table", planTable},
	{"curves", planCurves},
	{"sizes", planSizes},
	{"channels", planChannels},
	{"commands", planCommands},
	{"brokers", planBrokers},
	{"pusher", planPusher},
	{"compression", planCompression},
	{"return", planReturn},
	{"hold", planHold},
	{"kept", planKept},
	{"memory", planMemory},
	{"publish", planPublish},
	{"shakes", planHandshakes},
	{"storm", planStorm},
}

// recovery are the sections of issue 13, and of clients that return at once, which -recovery runs.
var recovery = []string{"return", "hold", "kept", "memory", "publish", "shakes", "storm"}

func sectionNames() []string {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}

func fullPlan(names []string, quick bool) ([]batch, error) {
	var plan []batch
	for _, name := range names {
		found := false
		for _, s := range sections {
			if s.name == name {
				plan, found = append(plan, s.plan(quick)...), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no section %q", name)
		}
	}
	return plan, nil
}

const (
	warm = 400 * time.Millisecond
	span = 2 * time.Second // how long a closed loop is measured
	// An open loop is measured for longer: at 50 events a second its p99 depends on the
	// slowest one or two.
	openSpan = 4 * time.Second
	// A client that does not read is disconnected after 10 s; a streaming client, whose
	// response is complete, after 5.
	stuckSpan = 3 * time.Second
	eventSize = 200
)

func closed(quick bool, size int, windows ...int) []load.Load {
	var loads []load.Load
	for _, w := range windows {
		l := load.Load{Size: size, Window: w, Warm: warm, Time: span}
		if quick {
			l.Time = 400 * time.Millisecond
		}
		loads = append(loads, l)
	}
	return loads
}

func opened(quick bool, rate float64, span time.Duration) []load.Load {
	l := load.Load{Size: eventSize, Rate: rate, Warm: warm, Time: span}
	if quick {
		l.Time = 800 * time.Millisecond
	}
	return []load.Load{l}
}

// each returns one sitting for each of the kinds.
func (s sitting) each(kinds ...string) []sitting {
	var all []sitting
	for _, k := range kinds {
		s.kind = k
		all = append(all, s)
	}
	return all
}

func times(quick bool, rounds int) int {
	if quick {
		return 1
	}
	return rounds
}

// clientTypes are the kinds with which a client that does not read is tested.
var clientTypes = []string{"pushy", "pushy/tls", "pushy/streaming"}

// planTable measures the figures that have limits in issue 4.
func planTable(quick bool) []batch {
	const section = "table"
	r5, r7 := times(quick, 5), times(quick, 7)
	plan := []batch{
		{r5, sitting{section: section, clients: 1000, loads: closed(quick, eventSize, 8, 64, 1)}.each("pushy", "bare", "centrifuge", "centrifugetuned")},
		{r7, sitting{section: section, clients: 1000, loads: opened(quick, 50, openSpan)}.each("pushy", "bare")},
		{r5, sitting{section: section, clients: 1000, loads: opened(quick, 300, 3*time.Second)}.each("pushy", "centrifugetuned")},
		{r5, sitting{section: section, clients: 5000, loads: closed(quick, eventSize, 8)}.each("pushy", "centrifuge")},
	}
	growth := batch{rounds: r5}
	for _, n := range []int{9000, 100} {
		growth.sittings = append(growth.sittings, sitting{section: section, clients: n, loads: closed(quick, eventSize, 8)}.each("pushy", "bare")...)
	}
	plan = append(plan, growth,
		batch{times(quick, 3), sitting{section: section, clients: 9000}.each("centrifugetuned")},
		batch{r5, sitting{
			section: section, clients: 16, triggers: true,
			loads: []load.Load{{Size: eventSize, Warm: warm, Time: span}},
		}.each("pushy")})
	for _, k := range clientTypes {
		var pair []sitting
		for stuck := range 2 {
			pair = append(pair, sitting{section: "stuck", clients: 1000, stuck: stuck, prefill: true, loads: opened(quick, 50, stuckSpan)}.each(k)...)
		}
		plan = append(plan, batch{r5, pair})
	}
	return plan
}

// curveClients returns the numbers of subscribers at which curves have points.
func curveClients(quick bool) []int {
	if quick {
		return []int{100, 300}
	}
	return []int{100, 1000, 3000, 6000, 12000}
}

// planCurves measures all kinds by number of subscribers.
func planCurves(quick bool) []batch {
	var names []string
	for _, k := range kinds {
		if k.broker == "" { // one node needs none
			names = append(names, k.name)
		}
	}
	var plan []batch
	for _, n := range curveClients(quick) {
		// The slowest server can just deliver ten events a second to 12,000 clients.
		loads := append(closed(quick, eventSize, 8), opened(quick, 10, 2*time.Second)...)
		plan = append(plan, batch{times(quick, 2), sitting{section: "curves", clients: n, loads: loads}.each(names...)})
	}
	return plan
}

var sizes = []int{60, 200, 4000}

// contenders are the kinds that are compared in detail.
var contenders = []string{"pushy", "bare", "centrifuge", "centrifugetuned"}

func planSizes(quick bool) []batch {
	b := batch{rounds: times(quick, 3)}
	for _, size := range sizes {
		b.sittings = append(b.sittings, sitting{section: "sizes", clients: 1000, loads: closed(quick, size, 1, 8, 64)}.each(contenders...)...)
	}
	return []batch{b}
}

// planChannels measures 1,000 channels of 10 subscribers each.
func planChannels(quick bool) []batch {
	n := 10_000
	if quick {
		n = 1000
	}
	return []batch{{times(quick, 3), sitting{
		section: "channels", clients: n, channels: n / 10, loads: closed(quick, eventSize, 8, 64),
	}.each(contenders...)}}
}

// sharers are pushy without a broker, and pushy and centrifuge with one.
var sharers = []string{"pushy", "pushy/redis", "pushy/nats", "centrifuge/redis", "centrifugetuned/redis"}

// planBrokers measures what a broker costs the node that publishes, and then another node.
// The highest rate is last, because a server that cannot keep it still has work afterwards.
func planBrokers(quick bool) []batch {
	even := append(opened(quick, 50, openSpan), opened(quick, 300, 3*time.Second)...)
	same := sitting{section: "brokers", clients: 1000, loads: append(closed(quick, eventSize, 8, 1), even...)}
	apart := sitting{section: "apart", clients: 1000, apart: true, loads: append(closed(quick, eventSize, 8), even...)}
	return []batch{{times(quick, 5), same.each(sharers...)}, {times(quick, 3), apart.each(sharers[1:]...)}}
}

func planPusher(quick bool) []batch {
	return []batch{{times(quick, 7), sitting{
		section: "pusher", clients: 1000, loads: closed(quick, eventSize, 8, 1),
	}.each("pushy", "pushy/mixed", "pushy/pusher", "centrifuge")}}
}

// crowd is the number of clients that lose their connections at once.
func crowd(quick bool) int {
	if quick {
		return 1000
	}
	return 10_000
}

func planReturn(quick bool) []batch {
	return []batch{{times(quick, 7), sitting{section: "return", clients: crowd(quick), program: returnAll}.each("pushy/kept")}}
}

func planHold(quick bool) []batch {
	return []batch{{times(quick, 5), sitting{section: "hold", clients: crowd(quick), program: holdAll}.each("pushy")}}
}

// planKept measures what Keep adds to a delivery.
func planKept(quick bool) []batch {
	return []batch{{times(quick, 7), sitting{
		section: "kept", clients: 1000, loads: closed(quick, eventSize, 8, 1),
	}.each("pushy/kept", "pushy")}}
}

// memoryChannels is the number of channels whose kept events are measured.
const memoryChannels = 250

func planMemory(quick bool) []batch {
	return []batch{{times(quick, 3), sitting{
		section: "memory", channels: memoryChannels, program: memoryOf,
	}.each("pushy/kept", "pushy/redis/kept")}}
}

func planPublish(quick bool) []batch {
	return []batch{{times(quick, 3), sitting{
		section: "publish", clients: 1, loads: closed(quick, eventSize, 1), program: publishRates,
	}.each("pushy", "pushy/kept", "pushy/redis", "pushy/redis/kept", "pushy/nats", "pushy/nats/kept")}}
}
