package main

import (
	"slices"
	"strings"

	"github.com/gopushy/pushy/bench/internal/load"
)

// kind is a server, with the protocols of its clients and publishers.
type kind struct {
	name       string
	label      string
	server     string // "pushy", "pushy-server", "node", "go", or the path of another build of pushy
	arg        string // the name of the peer, the commit of pushy-server, or a flag of pushy
	dialect    load.Dialect
	tls        bool
	publishing load.Publishing
	broker     string // the broker of its nodes: one of brokerCommands, or ""
}

// kinds has everything that can be measured, in the order of tables.
var kinds = []kind{
	{"pushy", "pushy", "pushy", "", load.Framed, false, load.Trigger, ""},
	{"pushy/bare", "pushy, bare WebSocket", "pushy", "", load.Bare, false, load.Trigger, ""},
	{"pushy/streaming", "pushy, xhr_streaming", "pushy", "", load.Streaming, false, load.Trigger, ""},
	{"pushy/polling", "pushy, xhr polling", "pushy", "", load.Polling, false, load.Trigger, ""},
	{"pushy/sse", "pushy, Server-Sent Events", "pushy", "", load.Events, false, load.Trigger, ""},
	{"pushy/sse3", "pushy, Server-Sent Events, three channels", "pushy", "", load.Events3, false, load.Trigger, ""},
	{"pushy/tls", "pushy, TLS", "pushy", "", load.Framed, true, load.Trigger, ""},
	{"pushy/pusher", "pushy, Pusher protocol", "pushy", pusherFlag, load.Pusher, false, load.Trigger, ""},
	{"pushy/redis", "pushy over Redis", "pushy", "", load.Framed, false, load.Trigger, "redis"},
	{"pushy/nats", "pushy over NATS", "pushy", "", load.Framed, false, load.Trigger, "nats"},
	{"bare", "bare loop", "go", "bare", load.Plain, false, load.Post, ""},
	{"bare/tls", "bare loop, TLS", "go", "bare", load.Plain, true, load.Post, ""},
	{"gorilla", "gorilla, queue and writer", "go", "gorilla", load.Plain, false, load.Post, ""},
	{"sockjsgo", "sockjs-go", "go", "sockjsgo", load.Framed, false, load.Post, ""},
	{"sockjsgo/streaming", "sockjs-go, xhr_streaming", "go", "sockjsgo", load.Streaming, false, load.Post, ""},
	{"sockjsgo/polling", "sockjs-go, xhr polling", "go", "sockjsgo", load.Polling, false, load.Post, ""},
	{"r3labs", "r3labs/sse", "go", "r3labs", load.R3labs, false, load.Post, ""},
	{"centrifuge", "centrifuge", "go", "centrifuge", load.Centrifuge, false, load.Post, ""},
	{"centrifugetuned", "centrifuge, tuned", "go", "centrifugetuned", load.Centrifuge, false, load.Post, ""},
	{"centrifuge/tls", "centrifuge, TLS", "go", "centrifuge", load.Centrifuge, true, load.Post, ""},
	{"centrifuge/redis", "centrifuge over Redis", "go", "centrifuge", load.Centrifuge, false, load.Post, "redis"},
	{"melody", "melody", "go", "melody", load.Plain, false, load.Post, ""},
	{"node:sockjs", "Node sockjs", "node", "sockjs", load.Framed, false, load.Post, ""},
	{"node:socketio", "Node socket.io", "node", "socketio", load.SocketIO, false, load.Post, ""},
	{"node:ws", "Node ws", "node", "ws", load.Plain, false, load.Post, ""},
	{"http", "a handler of net/http that reads the body", "go", "http", load.Plain, false, load.Post, ""},
	// These show what one feature costs, beside a kind that differs in nothing else: scraped, mixed and
	// those with deflate beside pushy, and latest beside posted.
	{"pushy/scraped", "pushy, scraped each second", "pushy", scraped, load.Framed, false, load.Trigger, ""},
	{"pushy/mixed", "pushy, a tenth with the Pusher protocol", "pushy", pusherFlag, load.Mixed, false, load.Trigger, ""},
	{"pushy/posted", "pushy, published by its own process", "pushy", "", load.Framed, false, load.Post, ""},
	{"pushy/deflate", "pushy, permessage-deflate", "pushy", compressed, load.Deflated, false, load.Trigger, ""},
	{"pushy/deflate-half", "pushy, half of the clients with permessage-deflate", "pushy", compressed, load.Halved, false, load.Trigger, ""},
	{"pushy/deflate-none", "pushy, no client with permessage-deflate", "pushy", compressed, load.Framed, false, load.Trigger, ""},
	{"pushy/latest", "pushy, published by its own process with Latest", "pushy", "latest", load.Framed, false, load.Post, ""},
}

// Flags of the server: /metrics is served, the Pusher protocol, and events are compressed.
const (
	compressed = "compress=512"
	scraped    = "metrics"
	pusherFlag = "pusher"
)

// needs returns the program, other than Go, that is needed to measure the kind, or "".
func (k kind) needs() string {
	switch {
	case k.broker != "":
		return k.broker + "-server" // also the name of the Debian package
	case k.server == "node":
		return "node"
	}
	return ""
}

// keptSuffix at the end of a kind's name means that the channels keep events.
const keptSuffix = "/kept"

// keeps reports whether the channels of a kind keep events.
func keeps(name string) bool { return strings.HasSuffix(name, keptSuffix) }

func find(name string) (kind, bool) {
	if keeps(name) {
		k, ok := find(strings.TrimSuffix(name, keptSuffix))
		k.name += keptSuffix
		k.label += ", kept events"
		return k, ok
	}
	for _, k := range slices.Concat(kinds, stormKinds) {
		if k.name == name {
			return k, true
		}
	}
	return kind{}, false
}

// otherBuild reports whether k is one of those that addBuild has added.
func (k kind) otherBuild() bool { return strings.Contains(k.server, "/") }

// addBuild adds another build of the pushy server, with all its dialects, so that two builds
// can be compared in one run.
func addBuild(name, binary string) {
	for _, k := range kinds {
		if k.server == "pushy" {
			k.name = name + strings.TrimPrefix(k.name, "pushy")
			k.label = name + strings.TrimPrefix(k.label, "pushy")
			k.server = binary
			kinds = append(kinds, k)
		}
	}
}
