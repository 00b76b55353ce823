package main

import (
	"strings"

	"github.com/gopushy/pushy/bench/internal/load"
)

// kind is a server together with the way its clients and publishers speak.
type kind struct {
	name       string
	label      string
	server     string // "pushy", "node", "go", or the path of another build of pushy
	arg        string // which of the peers
	dialect    load.Dialect
	tls        bool
	publishing load.Publishing
	broker     string // what its nodes share: one of brokerCommands, or ""
}

// kinds are all there is to measure, in the order of charts and tables.
var kinds = []kind{
	{"pushy", "pushy", "pushy", "", load.Framed, false, load.Trigger, ""},
	{"pushy/bare", "pushy, bare WebSocket", "pushy", "", load.Bare, false, load.Trigger, ""},
	{"pushy/streaming", "pushy, xhr_streaming", "pushy", "", load.Streaming, false, load.Trigger, ""},
	{"pushy/tls", "pushy, TLS", "pushy", "", load.Framed, true, load.Trigger, ""},
	{"pushy/redis", "pushy over Redis", "pushy", "", load.Framed, false, load.Trigger, "redis"},
	{"pushy/nats", "pushy over NATS", "pushy", "", load.Framed, false, load.Trigger, "nats"},
	{"bare", "bare loop", "go", "bare", load.Plain, false, load.Post, ""},
	{"bare/tls", "bare loop, TLS", "go", "bare", load.Plain, true, load.Post, ""},
	{"gorilla", "gorilla, queue and writer", "go", "gorilla", load.Plain, false, load.Post, ""},
	{"sockjsgo", "sockjs-go", "go", "sockjsgo", load.Framed, false, load.Post, ""},
	{"sockjsgo/streaming", "sockjs-go, xhr_streaming", "go", "sockjsgo", load.Streaming, false, load.Post, ""},
	{"centrifuge", "centrifuge", "go", "centrifuge", load.Centrifuge, false, load.Post, ""},
	{"centrifugetuned", "centrifuge, tuned", "go", "centrifugetuned", load.Centrifuge, false, load.Post, ""},
	{"centrifuge/redis", "centrifuge over Redis", "go", "centrifuge", load.Centrifuge, false, load.Post, "redis"},
	{"centrifugetuned/redis", "centrifuge, tuned, over Redis", "go", "centrifugetuned", load.Centrifuge, false, load.Post, "redis"},
	{"melody", "melody", "go", "melody", load.Plain, false, load.Post, ""},
	{"node:sockjs", "Node sockjs", "node", "sockjs", load.Framed, false, load.Post, ""},
	{"node:socketio", "Node socket.io", "node", "socketio", load.SocketIO, false, load.Post, ""},
	{"node:ws", "Node ws", "node", "ws", load.Plain, false, load.Post, ""},
}

// needs is the program that a kind cannot be measured without, beside Go, or "".
func (k kind) needs() string {
	switch {
	case k.broker != "":
		return k.broker + "-server" // Debian's packages have these names too
	case k.server == "node":
		return "node"
	}
	return ""
}

func find(name string) (kind, bool) {
	for _, k := range kinds {
		if k.name == name {
			return k, true
		}
	}
	return kind{}, false
}

// addBuild makes another build of the pushy server known: NAME=BINARY. All of
// its dialects come along, so that two engines can be compared in one run.
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
