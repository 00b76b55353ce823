package redis

import (
	"context"
	"log/slog"
	"net"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/ratelog"
)

// Plain uses a Cluster as one of version 6 is used.
func (o Options) Plain() Options {
	o.testing.plain = true
	return o
}

// Via changes where connections go.
func (o Options) Via(via func(address string) string) Options {
	o.testing.via = via
	return o
}

// MaxIDs changes how many ids are remembered.
func (o Options) MaxIDs(n int) Options {
	o.testing.maxIDs = n
	return o
}

// Tag is what a channel's keys begin with.
func (b *Broker) Tag(channel string) string { return b.lane(channel).tag }

// Tidy does at once what is done each hour.
func (b *Broker) Tidy(channel string) error {
	l := b.lane(channel)
	k := b.link.Load()
	return l.tidy(b.ctx, k, k)
}

// ParseState and ParseKept read what is in Redis's keys.
var (
	ParseState = parseState
	ParseKept  = parseKept
)

// CompareSettings returns how many options another node's settings differ in.
func CompareSettings(own map[string]string, theirs string) int {
	b := New(Options{})
	b.log = slog.New(slog.DiscardHandler)
	b.settings = own
	return b.compareSettings(map[string]string{"other": theirs})
}

// Replies is a connection whose replies are looked at.
func Replies(conn net.Conn) net.Conn { return &replies{Conn: conn} }

// MessageOf is a message on a channel, as Redis gets it.
func MessageOf(e broker.Entry) string { return "e" + string(broker.AppendEntry(nil, e)) }

// Feed lets a node without a connection, which follows a channel, take messages.
func Feed(sink broker.Sink, channel string, texts ...string) error {
	b := New(Options{})
	b.sink = sink
	b.log = slog.New(slog.DiscardHandler)
	b.notices = ratelog.New(b.log)
	l := newLane(b, "{pushy}")
	f := &follow{lane: l, channel: channel, turn: make(chan struct{}, 1), listening: true}
	f.rev = broker.Position{Epoch: "e", Offset: 1}
	f.at = f.rev
	l.follows[channel] = f
	for _, text := range texts {
		err := b.guarded("message", func() error {
			l.message(l.name(channel), text)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return context.Cause(b.ctx)
}
