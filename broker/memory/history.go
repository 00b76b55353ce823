package memory

import (
	"context"
	"time"

	"github.com/gopushy/pushy/broker"
)

// Read implements broker.History.
func (b *Broker) Read(ctx context.Context, channel string, r broker.Range) (broker.Page, error) {
	if err := ctx.Err(); err != nil {
		return broker.Page{}, err
	}
	if err := b.reachable(); err != nil {
		return broker.Page{}, err
	}
	l := b.cluster.shard(channel).find(channel)
	if l == nil {
		p := broker.Page{First: 1, Top: b.cluster.beginning()}
		return p, checkEpoch(r, p.Top)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked(time.Now())
	p := broker.Page{First: l.at.Offset - uint64(len(l.kept)) + 1, Top: l.at}
	if err := checkEpoch(r, p.Top); err != nil {
		return p, err
	}
	p.Entries, p.More = pick(l.kept, p.First, r)
	return p, nil
}

func checkEpoch(r broker.Range, top broker.Position) error {
	if r.Epoch != "" && r.Epoch != top.Epoch {
		return broker.ErrEpoch
	}
	return nil
}

// beginning is the position of a channel to which nothing was appended.
func (c *Cluster) beginning() broker.Position {
	offsets, _ := c.epochs()
	return broker.Position{Epoch: offsets}
}

// pick selects from kept events, the first of which has the offset first.
func pick(kept []broker.Entry, first uint64, r broker.Range) (entries []broker.Entry, more bool) {
	if r.Before > 0 {
		end := uint64(len(kept))
		if r.Before < first+end {
			end = max(r.Before, first) - first
		}
		return pickNewest(kept[:end], r)
	}
	begin := uint64(0)
	if r.After >= first {
		begin = min(r.After-first+1, uint64(len(kept)))
	}
	return pickOldest(kept[begin:], r)
}

func pickOldest(kept []broker.Entry, r broker.Range) (entries []broker.Entry, more bool) {
	n, size := 0, 0
	for n < len(kept) && n < r.Limit {
		size += len(kept[n].Data)
		if n > 0 && r.Bytes > 0 && size > r.Bytes {
			break
		}
		n++
	}
	return append([]broker.Entry(nil), kept[:n]...), n < len(kept)
}

func pickNewest(kept []broker.Entry, r broker.Range) (entries []broker.Entry, more bool) {
	n, size := 0, 0
	for n < len(kept) && n < r.Limit {
		size += len(kept[len(kept)-n-1].Data)
		if n > 0 && r.Bytes > 0 && size > r.Bytes {
			break
		}
		n++
	}
	return append([]broker.Entry(nil), kept[len(kept)-n:]...), n < len(kept)
}

// Tops implements broker.History.
func (b *Broker) Tops(ctx context.Context, channels []string) ([]broker.Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := b.reachable(); err != nil {
		return nil, err
	}
	tops := make([]broker.Position, len(channels))
	for i, channel := range channels {
		l := b.cluster.shard(channel).find(channel)
		if l == nil {
			tops[i] = b.cluster.beginning()
			continue
		}
		l.mu.Lock()
		tops[i] = l.at
		l.mu.Unlock()
	}
	return tops, nil
}

// Forget implements broker.History. Followers receive a Reset.
func (b *Broker) Forget(ctx context.Context, channel string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.reachable(); err != nil {
		return err
	}
	l := b.cluster.logOf(channel)
	defer l.mu.Unlock()
	l.kept, l.bytes = nil, 0
	l.at = broker.Position{Epoch: newEpoch()}
	for follower := range l.followers {
		follower.sink.Reset(channel, l.stateLocked(), broker.ResetEpoch)
	}
	return nil
}
