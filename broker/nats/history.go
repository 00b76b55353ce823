package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

// Read implements broker.History. It reads all kept events, from the end of the log: each
// message has the sequences of the previous ones, so Read needs no consumer and no scan.
func (b *Broker) Read(ctx context.Context, channel string, r broker.Range) (broker.Page, error) {
	if err := b.ready(ctx); err != nil {
		return broker.Page{}, err
	}
	h, err := b.head(ctx, channel)
	if err != nil {
		return broker.Page{}, fmt.Errorf("read: %w", err)
	}
	list, err := b.kept(ctx, channel, h)
	if err != nil {
		return broker.Page{}, fmt.Errorf("read: %w", err)
	}
	p := broker.Page{First: h.at.Offset + 1 - uint64(len(list)), Top: h.at}
	if r.Epoch != "" && r.Epoch != p.Top.Epoch {
		return p, broker.ErrEpoch
	}
	p.Entries, p.More = brokerkit.Pick(list, p.First, r)
	return p, nil
}

// kept returns the events that are kept now, oldest first.
func (b *Broker) kept(ctx context.Context, channel string, h head) ([]broker.Entry, error) {
	if h.last.entry == nil {
		return nil, nil
	}
	keep := h.last.entry.Keep
	now := time.Now()
	bytes := 0
	lowest := uint64(0)
	if h.at.Offset > uint64(keep.Size) {
		lowest = h.at.Offset - uint64(keep.Size)
	}
	var list []broker.Entry
	err := b.back(ctx, channel, h, lowest, func(m kept) bool {
		bytes += len(m.entry.Data)
		ttl := m.entry.Keep.TTL
		if ttl > 0 && now.Sub(m.time) >= ttl || keep.Bytes > 0 && bytes > keep.Bytes {
			return false
		}
		list = append(list, *m.entry)
		return true
	})
	slices.Reverse(list)
	return list, err
}

// after returns the end of a log, and those events after a position that it still has, oldest
// first.
func (b *Broker) after(ctx context.Context, channel string, at broker.Position) (head, []kept, error) {
	h, err := b.head(ctx, channel)
	if err != nil || h.at.Epoch != at.Epoch || h.at.Offset <= at.Offset {
		return h, nil, err
	}
	var list []kept
	err = b.back(ctx, channel, h, at.Offset, func(m kept) bool {
		list = append(list, m)
		return true
	})
	slices.Reverse(list)
	return h, list, err
}

// back calls visit with the events of a log that have an offset above lowest, newest first,
// until visit returns false or an event is missing.
func (b *Broker) back(ctx context.Context, channel string, h head, lowest uint64, visit func(kept) bool) error {
	m := h.last
	if m.entry == nil || m.at.Offset <= lowest || !visit(m) {
		return nil
	}
	for {
		tail := m.tail[:min(uint64(len(m.tail)), m.at.Offset-1-lowest)]
		if len(tail) == 0 {
			return nil
		}
		found := make([]*jetstream.RawStreamMsg, len(tail))
		err := each(len(tail), func(i int) (err error) {
			found[i], err = b.at(ctx, h.class.stream, tail[i])
			return ignore(err, errNone)
		})
		if err != nil {
			return err
		}
		for _, msg := range found {
			if msg == nil || msg.Subject != b.subjects.log(h.class.name, channel) {
				return nil
			}
			next, err := decodeKept(msg.Data)
			if err != nil || next.entry == nil || !older(reversed(next.tail), msg.Sequence) {
				b.skipped(msg.Subject, errBroken)
				return nil
			}
			if next.at.Epoch != m.at.Epoch || next.at.Offset != m.at.Offset-1 || !visit(next) {
				return nil
			}
			m = next
		}
	}
}

// Tops implements broker.History.
func (b *Broker) Tops(ctx context.Context, channels []string) ([]broker.Position, error) {
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	tops := make([]broker.Position, len(channels))
	err := each(len(channels), func(i int) error {
		h, err := b.head(ctx, channels[i])
		tops[i] = h.at
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tops: %w", err)
	}
	return tops, nil
}

// Forget implements broker.History. It appends the message that begins the new epoch, and
// then removes all messages before it.
func (b *Broker) Forget(ctx context.Context, channel string) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	for range appendAttempts {
		h, err := b.head(ctx, channel)
		if err != nil {
			return fmt.Errorf("forget: %w", err)
		}
		if h.class == nil {
			return nil
		}
		seq, err := b.abandon(ctx, channel, h.class.name, h.seq)
		if errors.Is(err, errConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("forget: %w", err)
		}
		subject := b.subjects.log(h.class.name, channel)
		return b.call(ctx, func(ctx context.Context) error {
			return h.class.stream.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(seq))
		})
	}
	return errChanging
}

// abandon begins a new epoch of a log. prev is the sequence of the log's last message.
func (b *Broker) abandon(ctx context.Context, channel, class string, prev uint64) (seq uint64, err error) {
	empty := kept{at: broker.Position{Epoch: brokerkit.NewEpoch()}, time: now(time.Time{})}
	seq, err = b.compareAndStore(ctx, b.subjects.log(class, channel), prev, empty.encode())
	if err == nil {
		b.logs.observe(channel, class, seq, empty)
	}
	return seq, err
}
