package untrusted

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gopushy/pushy/broker"
)

// Wrap returns a broker that validates what next delivers. It implements those optional
// interfaces of package broker that next implements, and always Health, Leaser and IDForgetter: a
// broker without Health is never away, and Extend and ForgetIDs return errors.ErrUnsupported. A
// Ledger is always a VolatileLedger, whose LedgerSince returns the zero time if next is none.
func Wrap(next broker.Broker, o Options) broker.Broker {
	b := &Broker{
		next: next,
		o:    o,
	}
	history, hasHistory := next.(broker.History)
	ledger, hasLedger := next.(broker.Ledger)
	cluster, hasCluster := next.(broker.Cluster)
	h := &checkedHistory{next: history, b: b}
	l := &checkedLedger{next: ledger, b: b}
	c := &checkedCluster{next: cluster, b: b}
	switch {
	case hasHistory && hasLedger && hasCluster:
		return struct {
			*Broker
			broker.History
			broker.Ledger
			broker.Cluster
		}{b, h, l, c}
	case hasHistory && hasLedger:
		return struct {
			*Broker
			broker.History
			broker.Ledger
		}{b, h, l}
	case hasHistory && hasCluster:
		return struct {
			*Broker
			broker.History
			broker.Cluster
		}{b, h, c}
	case hasLedger && hasCluster:
		return struct {
			*Broker
			broker.Ledger
			broker.Cluster
		}{b, l, c}
	case hasHistory:
		return struct {
			*Broker
			broker.History
		}{b, h}
	case hasLedger:
		return struct {
			*Broker
			broker.Ledger
		}{b, l}
	case hasCluster:
		return struct {
			*Broker
			broker.Cluster
		}{b, c}
	}
	return b
}

// Away implements broker.Health.
func (b *Broker) Away() (away error) {
	health, ok := b.next.(broker.Health)
	if !ok {
		return nil
	}
	err := b.o.Call("Broker.Away", func() error {
		away = b.o.Readable(health.Away())
		return nil
	})
	return errors.Join(away, err)
}

// Extend implements broker.Leaser.
func (b *Broker) Extend(ctx context.Context, lease time.Duration) error {
	leaser, ok := b.next.(broker.Leaser)
	if !ok {
		return fmt.Errorf("the broker cannot extend its lease: %w", errors.ErrUnsupported)
	}
	return b.o.Call("Broker.Extend", func() error { return leaser.Extend(ctx, lease) })
}

// ForgetIDs implements broker.IDForgetter.
func (b *Broker) ForgetIDs(ctx context.Context, ids []broker.EntryID) error {
	forgetter, ok := b.next.(broker.IDForgetter)
	if !ok {
		return fmt.Errorf("the broker cannot forget ids: %w", errors.ErrUnsupported)
	}
	return b.o.Call("Broker.ForgetIDs", func() error { return forgetter.ForgetIDs(ctx, ids) })
}

// LedgerSince implements broker.VolatileLedger. If next fails, its records may have begun now.
func (b *Broker) LedgerSince() (since time.Time) {
	ledger, ok := b.next.(broker.VolatileLedger)
	if !ok {
		return since
	}
	if b.o.Call("Broker.LedgerSince", func() error {
		since = ledger.LedgerSince()
		return nil
	}) != nil {
		return time.Now()
	}
	return since
}

// checkedHistory is a broker.History that validates the results of another one.
type checkedHistory struct {
	next broker.History
	b    *Broker
}

// Read implements broker.History. It omits invalid entries.
func (h *checkedHistory) Read(ctx context.Context, channel string, r broker.Range) (p broker.Page, err error) {
	err = h.b.o.Call("Broker.Read", func() error {
		var err error
		p, err = h.next.Read(ctx, channel, r)
		return err
	})
	if err != nil && !errors.Is(err, broker.ErrEpoch) {
		return broker.Page{}, err
	}
	if invalid := position(p.Top); invalid != nil || p.First > maxRevision {
		invalid = cmp.Or(invalid, fmt.Errorf("position %d is over %d", p.First, uint64(maxRevision)))
		return broker.Page{}, fmt.Errorf("the broker returned an invalid page: %w", invalid)
	}
	entries := make([]broker.Entry, 0, min(len(p.Entries), max(r.Limit, 0)))
	last := r.After
	for _, e := range p.Entries {
		e, invalid := h.b.kept(e)
		if invalid == nil && (e.At.Epoch != p.Top.Epoch || e.At.Offset <= last || e.At.Offset > p.Top.Offset) {
			invalid = fmt.Errorf("position %v is not one that follows %d, or is beyond the end, %v", e.At, last, p.Top)
		}
		if invalid != nil {
			h.b.o.Skipped("skipped an invalid entry from the broker's history", channel, invalid)
			continue
		}
		if len(entries) == cap(entries) {
			break // more than Range.Limit
		}
		entries = append(entries, e)
		last = e.At.Offset
	}
	p.Entries = entries
	return p, err
}

// position returns an error if p is not one of a log.
func position(p broker.Position) error {
	switch {
	case !broker.ValidEpoch(p.Epoch):
		return fmt.Errorf("the epoch %.100q is not 1 to 64 of A-Z a-z 0-9 _ -", p.Epoch)
	case p.Offset > maxRevision:
		return fmt.Errorf("position %d is over %d", p.Offset, uint64(maxRevision))
	}
	return nil
}

// kept returns the kept event e with compact JSON, or an error if e is invalid.
func (b *Broker) kept(e broker.Entry) (broker.Entry, error) {
	if e.Kind != broker.Event {
		return e, fmt.Errorf("an entry of kind %d", e.Kind)
	}
	return b.entry(e)
}

// Tops implements broker.History.
func (h *checkedHistory) Tops(ctx context.Context, channels []string) (tops []broker.Position, err error) {
	err = h.b.o.Call("Broker.Tops", func() error {
		var err error
		tops, err = h.next.Tops(ctx, channels)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(tops) != len(channels) {
		return nil, fmt.Errorf("the broker returned %d positions for %d channels", len(tops), len(channels))
	}
	for _, top := range tops {
		if err := position(top); err != nil {
			return nil, fmt.Errorf("the broker returned an invalid position: %w", err)
		}
	}
	return tops, nil
}

// Forget implements broker.History.
func (h *checkedHistory) Forget(ctx context.Context, channel string) error {
	return h.b.o.Call("Broker.Forget", func() error { return h.next.Forget(ctx, channel) })
}

// checkedLedger is a broker.Ledger that converts panics into errors. The caller must validate
// the answers.
type checkedLedger struct {
	next broker.Ledger
	b    *Broker
}

// Claim implements broker.Ledger.
func (l *checkedLedger) Claim(ctx context.Context, key, digest string, ttl time.Duration) (c broker.Claim, err error) {
	err = l.b.o.Call("Broker.Claim", func() error {
		var err error
		c, err = l.next.Claim(ctx, key, digest, ttl)
		return err
	})
	if err != nil {
		return broker.Claim{}, err
	}
	if c.State < broker.Claimed || c.State > broker.Mismatch {
		return broker.Claim{}, fmt.Errorf("the broker returned a claim with the unknown state %d", c.State)
	}
	return c, nil
}

// Finish implements broker.Ledger.
func (l *checkedLedger) Finish(ctx context.Context, key, digest string, answer []byte) error {
	return l.b.o.Call("Broker.Finish", func() error { return l.next.Finish(ctx, key, digest, answer) })
}

// Release implements broker.Ledger.
func (l *checkedLedger) Release(ctx context.Context, key, digest string) error {
	return l.b.o.Call("Broker.Release", func() error { return l.next.Release(ctx, key, digest) })
}

// List implements broker.Ledger.
func (l *checkedLedger) List(ctx context.Context, prefix string) (records []broker.Record, err error) {
	err = l.b.o.Call("Broker.List", func() error {
		var err error
		records, err = l.next.List(ctx, prefix)
		return err
	})
	if err != nil {
		return nil, err
	}
	return records, nil
}

// checkedCluster is a broker.Cluster that converts panics into errors.
type checkedCluster struct {
	next broker.Cluster
	b    *Broker
}

// Nodes implements broker.Cluster.
func (c *checkedCluster) Nodes(ctx context.Context) (nodes []string, err error) {
	err = c.b.o.Call("Broker.Nodes", func() error {
		var err error
		nodes, err = c.next.Nodes(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return nodes, nil
}
