package memory

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

// sweepRecords is how many records each new one checks for expiry.
const sweepRecords = 4

// ledger has the claimed keys of a cluster. It is guarded by the cluster's mu.
type ledger struct {
	records map[string]*record
}

type record struct {
	digest  string
	answer  []byte // nil if there is none
	claimed time.Time
	until   time.Time
}

// Claim implements broker.Ledger.
func (b *Broker) Claim(ctx context.Context, key, digest string, ttl time.Duration) (broker.Claim, error) {
	if err := b.usable(ctx, key, digest, nil); err != nil {
		return broker.Claim{}, err
	}
	c := b.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	r := c.ledger.find(key, now)
	if r != nil {
		switch {
		case r.digest != digest:
			return broker.Claim{State: broker.Mismatch}, nil
		case r.answer != nil:
			if until := now.Add(ttl); until.After(r.until) {
				r.until = until
			}
			return broker.Claim{State: broker.Finished, Answer: slices.Clone(r.answer)}, nil
		case now.Sub(r.claimed) < broker.ClaimTimeout:
			return broker.Claim{State: broker.Pending}, nil
		}
	}
	if r == nil {
		c.ledger.sweep(now)
		if len(c.ledger.records) >= c.maxRecords {
			return broker.Claim{}, broker.ErrBusy
		}
	}
	if c.ledger.records == nil {
		c.ledger.records = map[string]*record{}
	}
	c.ledger.records[key] = &record{
		digest:  digest,
		claimed: now,
		until:   now.Add(ttl),
	}
	return broker.Claim{State: broker.Claimed, Again: r != nil}, nil
}

// Finish implements broker.Ledger.
func (b *Broker) Finish(ctx context.Context, key, digest string, answer []byte) error {
	if err := b.usable(ctx, key, digest, answer); err != nil {
		return err
	}
	c := b.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.ledger.find(key, time.Now())
	if r == nil || r.digest != digest {
		return broker.ErrNotOwner
	}
	r.answer = append([]byte{}, answer...)
	return nil
}

// Release implements broker.Ledger.
func (b *Broker) Release(ctx context.Context, key, digest string) error {
	if err := b.usable(ctx, key, digest, nil); err != nil {
		return err
	}
	c := b.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.ledger.find(key, time.Now())
	if r != nil && r.digest == digest && r.answer == nil {
		delete(c.ledger.records, key)
	}
	return nil
}

// List implements broker.Ledger.
func (b *Broker) List(ctx context.Context, prefix string) ([]broker.Record, error) {
	if err := b.usable(ctx, prefix, "", nil); err != nil {
		return nil, err
	}
	c := b.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	var list []broker.Record
	for key, r := range c.ledger.records {
		if !strings.HasPrefix(key, prefix) || !now.Before(r.until) {
			continue
		}
		list = append(list, broker.Record{
			Key:    key,
			Digest: r.digest,
			Answer: slices.Clone(r.answer),
			Until:  r.until,
		})
	}
	slices.SortFunc(list, func(x, y broker.Record) int { return cmp.Compare(x.Key, y.Key) })
	return list[:min(len(list), brokerkit.MaxListed)], nil
}

// LedgerSince implements broker.VolatileLedger.
func (b *Broker) LedgerSince() time.Time {
	b.cluster.mu.Lock()
	defer b.cluster.mu.Unlock()
	return b.cluster.since
}

func (b *Broker) usable(ctx context.Context, key, digest string, answer []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := brokerkit.CheckRecord(key, digest, answer); err != nil {
		return err
	}
	return b.reachable()
}

// find returns the record of a key, or nil if there is none or it has expired.
func (l *ledger) find(key string, now time.Time) *record {
	r := l.records[key]
	if r == nil || now.Before(r.until) {
		return r
	}
	delete(l.records, key)
	return nil
}

// sweep checks a few records, in the map's random order, and removes those that have
// expired. It runs for each new record, so expired records do not accumulate.
func (l *ledger) sweep(now time.Time) {
	n := 0
	for key, r := range l.records {
		if !now.Before(r.until) {
			delete(l.records, key)
		}
		n++
		if n == sweepRecords {
			return
		}
	}
}
