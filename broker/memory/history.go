package memory

import (
	"context"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
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
	p.Entries, p.More = brokerkit.Pick(l.kept, p.First, r)
	return p, nil
}

func checkEpoch(r broker.Range, top broker.Position) error {
	if r.Epoch != "" && r.Epoch != top.Epoch {
		return broker.ErrEpoch
	}
	return nil
}

// beginning returns the position of a channel to which nothing was appended.
func (c *Cluster) beginning() broker.Position {
	offsets, _ := c.epochs()
	return broker.Position{Epoch: offsets}
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
	l.kept = nil
	l.bytes = 0
	l.at = broker.Position{Epoch: brokerkit.NewEpoch()}
	for follower := range l.followers {
		follower.sink.Reset(channel, l.stateLocked(), broker.ResetEpoch)
	}
	return nil
}
