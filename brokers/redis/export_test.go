package redis

import (
	"context"
	"log/slog"
	"net"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/ratelog"
)

// Plain has a Cluster used as one of version 6 is.
func (o Options) Plain() Options {
	o.plain = true
	return o
}

// Kill ends b as a killed process does: without a word to the others.
func (b *Broker) Kill() {
	b.closing.Do(func() {
		b.alone.Lock()
		b.closed = true
		b.alone.Unlock()
		b.cancel()
		b.tasks.Wait()
		b.link.Load().close()
	})
}

// Tag is what a channel's keys begin with.
func (b *Broker) Tag(channel string) string { return b.lane(channel).tag }

// Sharded reports whether events go by Redis 7's sharded Pub/Sub.
func (b *Broker) Sharded() bool { return b.link.Load().sharded }

// Encode, Decode, ParseChange and ParseFields are what goes over the wire, and how it
// is read.
func Encode(m pushy.Message) string             { return encode(m) }
func Decode(text string) (pushy.Message, error) { return decode(text) }
func ParseChange(text string) (pushy.Change, error) {
	c, err := parseChange(text)
	return c.Change, err
}

func ParseFields(fields map[string]string) pushy.Snapshot {
	snap, _ := snapshot(fields)
	return snap
}

// Replies is a connection whose replies are looked at.
func Replies(conn net.Conn) net.Conn { return &replies{Conn: conn} }

// Feed has a node without a connection take a message, with what it delivers and the
// changes of a watch checked by the funcs.
func Feed(channel, text string, deliver func(pushy.Message), apply func(pushy.Change)) error {
	o, err := Options{Logger: slog.New(slog.DiscardHandler)}.withDefaults()
	if err != nil {
		return err
	}
	b := &Broker{opts: o, log: o.Logger, notices: ratelog.New(o.Logger), node: "node", ctx: context.Background()}
	b.receiver = func(_ string, m pushy.Message) { deliver(m) }
	l := newLane(b, "{pushy}")
	b.lanes = []*lane{l}
	l.subs[l.name("private-x")] = &sub{channel: "private-x", events: true, watched: true}
	r := b.use("private-x")
	r.watch = &watch{ctx: b.ctx, apply: apply, ready: true, empty: true}
	return b.guarded("message", func() error {
		l.message(rueidis.PubSubMessage{Channel: channel, Message: text})
		return nil
	})
}
