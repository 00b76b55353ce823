package nats

import (
	"context"
	"slices"
	"time"

	"github.com/gopushy/pushy"
)

// LaneSize is how many messages may wait for a node.
const LaneSize = laneSize

// Kill ends a node's presence as a killed process does.
func (b *Broker) Kill() {
	b.presence.mu.Lock()
	b.presence.closing = true
	b.presence.mu.Unlock()
	b.presence.stop()
}

// Lease returns how long it may be silent.
func (b *Broker) Lease() time.Duration { return b.presence.o.Lease }

// ID returns the node's id in presence.
func (b *Broker) ID() string { return b.presence.id }

// Nodes returns the ids of all nodes of which the stream has anything.
func (b *Broker) Nodes(ctx context.Context) ([]string, error) {
	s := b.presence.stream
	ids, err := s.nodes(ctx)
	if err != nil {
		return nil, err
	}
	logs, err := s.fetch(ctx, s.base+".p.c.*")
	for _, entries := range logs {
		for _, e := range entries {
			ids = append(ids, e.node)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), err
}

// Entries returns how many entries of a channel's log are stored.
func (b *Broker) Entries(ctx context.Context, channel string) (int, error) {
	entries, _, err := b.presence.stream.read(ctx, b.presence.stream.channelSubject(channel))
	return len(entries), err
}

// Known returns how many other nodes this one knows.
func (b *Broker) Known() int {
	b.presence.nodes.mu.Lock()
	defer b.presence.nodes.mu.Unlock()
	return len(b.presence.nodes.known)
}

// The decoders of what NATS brings, and their inverses.
var (
	EncodeEvent = encodeEvent
	DecodeEvent = decodeEvent
	DecodeSign  = decodeSign
	ChannelOf   = channelOf
	Token       = token

	Consume = consume
)

// Replay returns what messages amount to that are stored one after the other: as they
// are read, as far as that can be, and as they arrive.
func Replay(messages ...[]byte) (snaps []pushy.Snapshot) {
	entries := map[uint64]*entry{}
	var told replica
	told.members = map[string]held{}
	for i, data := range messages {
		seq := uint64(i + 1)
		e, err := decodeEntry(seq, data)
		if err != nil {
			e = foreignEntry(seq, seq-1)
		}
		entries[seq] = e
		if told.follows(e) {
			told.fold(e)
		}
		told.compacted("n")
	}
	for _, damaged := range []bool{false, true} {
		r, ok := replay(entries, damaged)
		if ok {
			snaps = append(snaps, r.snapshot())
		}
	}
	return append(snaps, told.snapshot())
}

// Unread returns how many followed logs are not read.
func (b *Broker) Unread() (n int) {
	for _, c := range b.presence.all() {
		c.mu.Lock()
		if !c.fresh {
			n++
		}
		c.mu.Unlock()
	}
	return n
}
