package redis

import "github.com/gopushy/pushy"

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
