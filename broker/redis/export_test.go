package redis

import (
	"context"
	"log/slog"
	"net"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/ratelog"
)

// Plain disables sharded Pub/Sub, as with a Cluster of Redis 6.
func (o Options) Plain() Options {
	o.testing.plain = true
	return o
}

// Via replaces the addresses of connections.
func (o Options) Via(via func(address string) string) Options {
	o.testing.via = via
	return o
}

// MaxIDs changes the maximum number of IDs.
func (o Options) MaxIDs(n int) Options {
	o.testing.maxIDs = n
	return o
}

// Tag returns the prefix of a channel's keys.
func (b *Broker) Tag(channel string) string { return b.shard(channel).tag }

// Tidy runs the hourly removal of old logs now.
func (b *Broker) Tidy(channel string) error {
	sh := b.shard(channel)
	k := b.link.Load()
	return sh.tidy(b.ctx, k, k)
}

// ParseState and ParseKept decode values of Redis's keys.
var (
	ParseState = parseState
	ParseKept  = parseKept
)

// CompareSettings returns the number of settings that differ on another node.
func CompareSettings(own map[string]string, theirs string) int {
	b := New(Options{})
	b.log = slog.New(slog.DiscardHandler)
	b.settings = own
	return b.compareSettings(map[string]string{"other": theirs})
}

// Replies returns a connection whose error replies are filtered.
func Replies(conn net.Conn) net.Conn { return &replies{Conn: conn} }

// MessageOf returns the message that Redis receives for an event that is not kept.
func MessageOf(e broker.Entry) string { return "e" + string(broker.AppendEntry(nil, e)) }

// Feed delivers messages to a node without a connection, which follows a channel.
func Feed(sink broker.Sink, channel string, texts ...string) error {
	b := New(Options{})
	b.sink = sink
	b.log = slog.New(slog.DiscardHandler)
	b.notices = ratelog.New(b.log)
	sh := newShard(b, "{pushy}")
	f := &follow{
		shard:     sh,
		channel:   channel,
		turn:      make(chan struct{}, 1),
		listening: true,
	}
	f.rev = broker.Position{Epoch: "e", Offset: 1}
	f.at = f.rev
	sh.follows[channel] = f
	for _, text := range texts {
		err := b.guarded("message", func() error {
			sh.message(sh.name(channel), text)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return context.Cause(b.ctx)
}
