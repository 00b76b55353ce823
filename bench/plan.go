package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/gopushy/pushy/bench/internal/load"
)

// section is one part of the results. It takes less than five minutes, and is repeated alone with -only.
type section struct {
	name   string
	title  string // in RESULTS.md; "" for the sections of recovery
	about  string // what is measured, for RESULTS.md
	plan   func(quick bool) []batch
	checks func() []check // nil if nothing has a limit, and for the sections of recovery
}

var sections = []section{
	{
		name:   "bursts",
		title:  "Bursts and single events",
		about:  "1,000 subscribers of one channel, events of 200 bytes, in bursts of 8 and 64 and alone.",
		plan:   planBursts,
		checks: burstChecks,
	},
	{
		name:   "few",
		title:  "Few subscribers",
		about:  "100 subscribers, bursts of 8 events.",
		plan:   planFew,
		checks: fewChecks,
	},
	{
		name:  "memory",
		title: "Idle connections and many subscribers",
		about: "Resident memory of a subscribed connection, and then bursts of 8 events to all: 9,000 WebSockets, " +
			"and 4,000 with TLS in the process.",
		plan:   planIdle,
		checks: idleChecks,
	},
	{
		name:   "sizes",
		title:  "Small and large events",
		about:  "1,000 subscribers, events of 60 and 4,000 bytes, in bursts of 8 and alone.",
		plan:   planSizes,
		checks: sizeChecks,
	},
	{
		name:  "latency",
		title: "Latency at a steady rate",
		about: "1,000 subscribers, 50 and 300 events a second. Behind: the events themselves could not be published " +
			"at that rate.",
		plan:   planLatency,
		checks: latencyChecks,
	},
	{
		name:   "tls",
		title:  "TLS in the process",
		about:  "1,000 subscribers, in bursts of 8 events and alone.",
		plan:   planTLS,
		checks: tlsChecks,
	},
	{
		name:   "http",
		title:  "SockJS over HTTP",
		about:  "500 subscribers with xhr_streaming or xhr polling, in bursts of 8 events and alone.",
		plan:   planHTTP,
		checks: httpChecks,
	},
	{
		name:   "sse",
		title:  "Server-Sent Events",
		about:  "1,000 streams, in bursts of 8 events and alone.",
		plan:   planSSE,
		checks: sseChecks,
	},
	{
		name:  "commands",
		title: "Commands and triggers",
		about: "100 clients, each of which keeps 1 or 16 commands under way, that are answered with their 200 bytes, " +
			"as they are (echo) or decoded and encoded (typed); and signed requests that publish to an empty channel, " +
			"on one core, beside a handler of net/http that reads the body.",
		plan:   planCommands,
		checks: commandChecks,
	},
	{
		name:   "connects",
		title:  "Clients connect at once",
		about:  "5,000 clients connect and subscribe; then all lose their connections and come again, five times.",
		plan:   planConnects,
		checks: connectChecks,
	},
	{
		name:  "presence",
		title: "Presence",
		about: "500 clients join one channel with presence, one after another, and leave it. Centrifuge's clients ask " +
			"for the list, too, with `list`.",
		plan:   planPresence,
		checks: presenceChecks,
	},
	{
		name:   "members",
		title:  "Joining and leaving",
		about:  "Eight clients join and leave a channel without presence that has 10, 1,000 or 9,000 other subscribers.",
		plan:   planMembers,
		checks: memberChecks,
	},
	{
		name:  "nodes",
		title: "Two nodes with Redis",
		about: "1,000 subscribers, half of them on each of two nodes, bursts of 8 events and single ones; kept: the " +
			"channel keeps its last 100 events. The server's CPU time is that of both nodes.",
		plan:   planNodes,
		checks: nodeChecks,
	},
	{
		name:   "brokers",
		title:  "One node with a broker",
		about:  "1,000 subscribers on the node that publishes.",
		plan:   planBrokers,
		checks: brokerChecks,
	},
	{
		name:  "pusher",
		title: "The Pusher protocol",
		about: "1,000 clients, all or a tenth of them with the Pusher protocol, beside those of pushy and of " +
			"centrifuge, each with its own protocol.",
		plan:   planPusher,
		checks: pusherChecks,
	},
	{
		name:  "compression",
		title: "Compression",
		about: "1,000 clients, none, half or all of which have negotiated permessage-deflate, and events that are " +
			"lists of JSON objects.",
		plan:   planCompression,
		checks: compressionChecks,
	},
	{
		name:  "channels",
		title: "Many channels",
		about: "1,000 channels of 10 subscribers each, published to in turn. The CPU time includes the publishing, " +
			"of which there is one for 10 deliveries.",
		plan: planChannels,
	},
	{
		name:   "stuck",
		title:  "Beside a client that never reads",
		about:  "1,000 subscribers, 50 events a second, without and with one more client that reads nothing.",
		plan:   planStuck,
		checks: stuckChecks,
	},
	{name: "return", plan: planReturn},
	{name: "hold", plan: planHold},
	{name: "kept", plan: planKept},
	{name: "ring", plan: planMemory},
	{name: "publish", plan: planPublish},
	{name: "shakes", plan: planHandshakes},
	{name: "storm", plan: planStorm},
}

// sectionNames returns the names of the sections of RESULTS.md, or of those that -recovery runs.
func sectionNames(recovery bool) []string {
	var names []string
	for _, s := range sections {
		if (s.title == "") == recovery {
			names = append(names, s.name)
		}
	}
	return names
}

// part is what is measured of one section.
type part struct {
	section string
	batches []batch
}

func planOf(names []string, quick bool) ([]part, error) {
	var parts []part
	for _, name := range names {
		i := slices.IndexFunc(sections, func(s section) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no section %q", name)
		}
		p := part{section: name, batches: sections[i].plan(quick)}
		for _, b := range p.batches {
			for j := range b.sittings {
				b.sittings[j].section = name
			}
		}
		parts = append(parts, p)
	}
	return parts, nil
}

const (
	warm = 400 * time.Millisecond
	span = 1500 * time.Millisecond // how long a closed loop is measured
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

// contenders are the kinds that are compared in detail.
var contenders = []string{"pushy", "bare", "centrifuge", "centrifugetuned"}

func planBursts(quick bool) []batch {
	detailed := sitting{clients: 1000, loads: closed(quick, eventSize, 8, 64, 1)}
	others := sitting{clients: 1000, loads: closed(quick, eventSize, 8, 1)}
	return []batch{
		{times(quick, 3), detailed.each(contenders...)},
		{times(quick, 2), others.each("pushy/bare", "gorilla", "sockjsgo", "melody", "node:sockjs", "node:socketio", "node:ws")},
	}
}

func planFew(quick bool) []batch {
	return []batch{{times(quick, 5), sitting{
		clients: 100, loads: closed(quick, eventSize, 8),
	}.each("pushy", "centrifuge", "bare")}}
}

const (
	idleClients    = 9000
	idleTLSClients = 4000
)

func planIdle(quick bool) []batch {
	plain := sitting{clients: idleClients, loads: closed(quick, eventSize, 8)}
	secret := sitting{clients: idleTLSClients, loads: closed(quick, eventSize, 8)}
	return []batch{
		{times(quick, 3), plain.each("pushy", "bare", "centrifuge")},
		{times(quick, 3), secret.each("pushy/tls", "bare/tls", "centrifuge/tls")},
	}
}

var sizes = []int{60, 4000}

func planSizes(quick bool) []batch {
	b := batch{rounds: times(quick, 3)}
	for _, size := range sizes {
		s := sitting{clients: 1000, loads: closed(quick, size, 8, 1)}
		b.sittings = append(b.sittings, s.each("pushy", "bare", "centrifuge")...)
	}
	return []batch{b}
}

// The highest rate is last, because a server that cannot keep it still has work afterwards.
func planLatency(quick bool) []batch {
	return []batch{{times(quick, 5), sitting{
		clients: 1000, loads: append(opened(quick, 50, openSpan), opened(quick, 300, 3*time.Second)...),
	}.each("pushy", "bare", "centrifugetuned")}}
}

func planTLS(quick bool) []batch {
	return []batch{{times(quick, 3), sitting{
		clients: 1000, loads: closed(quick, eventSize, 8, 1),
	}.each("pushy/tls", "bare/tls", "centrifuge/tls", "pushy")}}
}

const httpClients = 500

func planHTTP(quick bool) []batch {
	return []batch{{times(quick, 3), sitting{
		clients: httpClients, loads: closed(quick, eventSize, 8, 1),
	}.each("pushy/streaming", "sockjsgo/streaming", "pushy/polling", "sockjsgo/polling")}}
}

func planSSE(quick bool) []batch {
	return []batch{{times(quick, 3), sitting{
		clients: 1000, loads: closed(quick, eventSize, 8, 1),
	}.each("pushy/sse", "pushy/sse3", "r3labs", "pushy/bare")}}
}

// planChannels measures 1,000 channels of 10 subscribers each.
func planChannels(quick bool) []batch {
	n := 10_000
	if quick {
		n = 1000
	}
	return []batch{{times(quick, 3), sitting{
		clients: n, channels: n / 10, loads: closed(quick, eventSize, 8),
	}.each("pushy", "bare", "centrifuge")}}
}

// planBrokers measures what a broker costs the node that publishes.
func planBrokers(quick bool) []batch {
	return []batch{{times(quick, 3), sitting{
		clients: 1000, loads: append(closed(quick, eventSize, 8, 1), opened(quick, 50, openSpan)...),
	}.each("pushy", "pushy/redis", "pushy/nats", "centrifuge/redis")}}
}

// nodesKeep is the number of events that the channels of two nodes keep.
const nodesKeep = 100

// planNodes measures two nodes, each with half of the clients.
func planNodes(quick bool) []batch {
	return []batch{{times(quick, 3), sitting{
		clients: 1000, both: true, keep: nodesKeep, loads: closed(quick, eventSize, 8, 1),
	}.each("pushy/redis", "centrifuge/redis", "pushy/redis/kept", "centrifuge/redis/kept")}}
}

func planPusher(quick bool) []batch {
	return []batch{{times(quick, 3), sitting{
		clients: 1000, loads: closed(quick, eventSize, 8, 1),
	}.each("pushy", "pushy/mixed", "pushy/pusher", "centrifuge")}}
}

// stuckTypes are the kinds with which a client that does not read is tested.
var stuckTypes = []string{"pushy", "pushy/tls", "pushy/streaming"}

func planStuck(quick bool) []batch {
	b := batch{rounds: times(quick, 3)}
	for _, k := range stuckTypes {
		for stuck := range 2 {
			b.sittings = append(b.sittings, sitting{
				clients: 1000, stuck: stuck, prefill: true, loads: opened(quick, 50, stuckSpan),
			}.each(k)...)
		}
	}
	return []batch{b}
}

// crowd is the number of clients that lose their connections at once.
func crowd(quick bool) int {
	if quick {
		return 1000
	}
	return 10_000
}

func planReturn(quick bool) []batch {
	return []batch{{times(quick, 7), sitting{clients: crowd(quick), program: returnAll}.each("pushy/kept")}}
}

func planHold(quick bool) []batch {
	return []batch{{times(quick, 5), sitting{clients: crowd(quick), program: holdAll}.each("pushy")}}
}

// planKept measures what Keep adds to a delivery.
func planKept(quick bool) []batch {
	return []batch{{times(quick, 7), sitting{
		clients: 1000, loads: closed(quick, eventSize, 8, 1),
	}.each("pushy/kept", "pushy")}}
}

// memoryChannels is the number of channels whose kept events are measured.
const memoryChannels = 250

func planMemory(quick bool) []batch {
	return []batch{{times(quick, 3), sitting{
		channels: memoryChannels, program: memoryOf,
	}.each("pushy/kept", "pushy/redis/kept")}}
}

func planPublish(quick bool) []batch {
	return []batch{{times(quick, 3), sitting{
		clients: 1, loads: closed(quick, eventSize, 1), program: publishRates,
	}.each("pushy", "pushy/kept", "pushy/redis", "pushy/redis/kept", "pushy/nats", "pushy/nats/kept")}}
}
