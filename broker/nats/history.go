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

// Read implements broker.History. It needs no consumer and no scan: each message has the
// sequences of the previous ones, and messages that are far from the end are found by a binary
// search.
func (b *Broker) Read(ctx context.Context, channel string, r broker.Range) (broker.Page, error) {
	if err := b.ready(ctx); err != nil {
		return broker.Page{}, err
	}
	h, err := b.head(ctx, channel)
	if err != nil {
		return broker.Page{}, fmt.Errorf("read: %w", err)
	}
	p := broker.Page{Top: h.at}
	var oldest uint64 // a sequence, from which on the first event is found
	p.First, oldest, err = b.first(ctx, channel, h)
	if err != nil {
		return broker.Page{}, fmt.Errorf("read: %w", err)
	}
	if r.Epoch != "" && r.Epoch != p.Top.Epoch {
		return p, broker.ErrEpoch
	}
	from, to := selected(p, r)
	if from > to {
		return p, nil
	}
	list, err := b.between(ctx, channel, h, oldest, from, to)
	if err != nil {
		return broker.Page{}, fmt.Errorf("read: %w", err)
	}
	if reached := to + 1 - uint64(len(list)); reached > from { // the event before it is missing
		p.First = reached
		from = reached
	}
	p.Entries, p.More = brokerkit.Pick(list, from, r)
	if r.Before > 0 {
		p.More = p.More || from > p.First
	} else {
		p.More = p.More || to < p.Top.Offset
	}
	return p, nil
}

// selected returns the offsets of the first and the last event that a Range selects, without
// its limit of bytes.
func selected(p broker.Page, r broker.Range) (from, to uint64) {
	limit := uint64(max(r.Limit, 0))
	if r.Before > 0 {
		to = min(r.Before-1, p.Top.Offset)
		if to >= limit {
			from = to - limit + 1
		}
		return max(from, p.First), to
	}
	from = max(min(r.After, p.Top.Offset)+1, p.First)
	return from, min(from+limit-1, p.Top.Offset)
}

// first returns the offset of the first event that is kept now, and a sequence that is not
// higher than that of its message. If no event is kept, it returns the next offset.
func (b *Broker) first(ctx context.Context, channel string, h head) (offset, seq uint64, err error) {
	top := h.last
	if top.entry == nil {
		return h.at.Offset + 1, 0, nil
	}
	keep := top.entry.Keep
	now := time.Now()
	isKept := func(m kept) bool {
		ttl := m.entry.Keep.TTL
		fresh := ttl <= 0 || now.Sub(m.time) < ttl
		return fresh && (keep.Bytes <= 0 || top.sum-m.sum+uint64(len(m.entry.Data)) <= uint64(keep.Bytes))
	}
	if !isKept(top) {
		return h.at.Offset + 1, 0, nil
	}
	lowest := uint64(1)
	if h.at.Offset > uint64(keep.Size) {
		lowest = h.at.Offset + 1 - uint64(keep.Size)
	}
	m, seq, err := b.search(ctx, channel, h, 1, isKept)
	return max(m.at.Offset, lowest), seq, err
}

// between returns events of a log, oldest first. The sequence oldest is not higher than that
// of any of them. Events before one that is missing are left out.
func (b *Broker) between(ctx context.Context, channel string, h head, oldest, from, to uint64) ([]broker.Entry, error) {
	if to < h.at.Offset {
		end, _, err := b.search(ctx, channel, h, oldest, func(m kept) bool { return m.at.Offset >= to })
		if err != nil || end.at.Offset != to {
			return nil, err
		}
		h.last = end
	}
	var list []broker.Entry
	err := b.back(ctx, channel, h, from-1, func(m kept) bool {
		list = append(list, *m.entry)
		return true
	})
	slices.Reverse(list)
	return list, err
}

// search returns the first event of a log, from a sequence on, that matches, and its sequence.
// The last event matches, and so do all events after one that matches.
func (b *Broker) search(
	ctx context.Context, channel string, h head, from uint64, match func(kept) bool,
) (found kept, seq uint64, err error) {
	found, seq = h.last, h.seq
	subject := b.subjects.log(h.class.name, channel)
	next := from // first the oldest message, which often matches
	for end := h.seq; from < end; next = from + (end-from)/2 {
		msg, err := b.at(ctx, h.class.stream, next, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, errNone) || err == nil && msg.Sequence > h.seq {
			end = next // the messages from there on were removed meanwhile
			continue
		}
		if err != nil {
			return kept{}, 0, err
		}
		m, err := decodeKept(msg.Data)
		switch {
		case err == nil && m.entry != nil && m.at.Epoch == h.at.Epoch && match(m):
			found, seq = m, msg.Sequence
			end = next
		default:
			from = msg.Sequence + 1
		}
	}
	return found, seq, nil
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
