package memory

import (
	"cmp"
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

const (
	// maxRecords is the default maximum number of records. Those of requests with short answers
	// take about 120 bytes.
	maxRecords = 1 << 21
	// sweepRecords is how many records each new one checks for expiry.
	sweepRecords = 4
)

// ledger has the claimed keys of a cluster. It is guarded by the cluster's mu. The keys of signed
// requests, of which there are very many, are not listed, and need less memory.
type ledger struct {
	listed   map[string]*listedRecord
	requests requests
}

// record is what Claim, Finish and Release need of a claimed key.
type record struct {
	digest  sum
	answer  []byte // nil if there is none
	claimed int64  // of Cluster.elapsedLocked; not used if there is an answer
	until   int64
}

type listedRecord struct {
	record
	digestText string
}

// sum is the digest of a string.
type sum [16]byte

func sumOf(text string) sum {
	all := sha256.Sum256([]byte(text))
	return sum(all[:16])
}

// Claim implements broker.Ledger.
func (b *Broker) Claim(ctx context.Context, key, digest string, ttl time.Duration) (broker.Claim, error) {
	if err := b.usable(ctx, key, digest, nil); err != nil {
		return broker.Claim{}, err
	}
	own := sumOf(digest)
	c := b.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.elapsedLocked()
	until := now + int64(ttl)
	r, again := c.ledger.find(key, now)
	if again {
		switch {
		case r.digest != own:
			return broker.Claim{State: broker.Mismatch}, nil
		case r.answer != nil:
			if until > r.until {
				r.until = until
				c.ledger.store(key, digest, r)
			}
			return broker.Claim{State: broker.Finished, Answer: slices.Clone(r.answer)}, nil
		case now-r.claimed < int64(broker.ClaimTimeout):
			return broker.Claim{State: broker.Pending}, nil
		}
	} else {
		c.ledger.sweep(now)
		if len(c.ledger.listed)+len(c.ledger.requests.index) >= c.maxRecords {
			return broker.Claim{}, broker.ErrBusy
		}
	}
	c.ledger.store(key, digest, record{
		digest:  own,
		claimed: now,
		until:   until,
	})
	return broker.Claim{State: broker.Claimed, Again: again}, nil
}

// Finish implements broker.Ledger.
func (b *Broker) Finish(ctx context.Context, key, digest string, answer []byte) error {
	if err := b.usable(ctx, key, digest, answer); err != nil {
		return err
	}
	c := b.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.ledger.find(key, c.elapsedLocked())
	if !ok || r.digest != sumOf(digest) {
		return broker.ErrNotOwner
	}
	r.answer = append([]byte{}, answer...)
	c.ledger.store(key, digest, r)
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
	r, ok := c.ledger.find(key, c.elapsedLocked())
	if ok && r.digest == sumOf(digest) && r.answer == nil {
		c.ledger.remove(key)
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
	now := c.elapsedLocked()
	var list []broker.Record
	for key, r := range c.ledger.listed {
		if !strings.HasPrefix(key, prefix) || now >= r.until {
			continue
		}
		list = append(list, broker.Record{
			Key:    key,
			Digest: r.digestText,
			Answer: slices.Clone(r.answer),
			Until:  c.since.Add(time.Duration(r.until)),
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

// find returns the record of a key that has not expired.
func (l *ledger) find(key string, now int64) (r record, ok bool) {
	if strings.HasPrefix(key, broker.RequestPrefix) {
		r, ok = l.requests.find(sumOf(key))
	} else if listed := l.listed[key]; listed != nil {
		r, ok = listed.record, true
	}
	if ok && now >= r.until {
		l.remove(key)
		return record{}, false
	}
	return r, ok
}

func (l *ledger) store(key, digest string, r record) {
	if strings.HasPrefix(key, broker.RequestPrefix) {
		l.requests.store(sumOf(key), r)
		return
	}
	if l.listed == nil {
		l.listed = map[string]*listedRecord{}
	}
	l.listed[key] = &listedRecord{r, digest}
}

func (l *ledger) remove(key string) {
	if strings.HasPrefix(key, broker.RequestPrefix) {
		l.requests.remove(sumOf(key))
		return
	}
	delete(l.listed, key)
}

// sweep checks a few records and removes those that have expired. It runs for each new record, so
// expired records do not accumulate.
func (l *ledger) sweep(now int64) {
	l.requests.sweep(now)
	n := 0
	for key, r := range l.listed { // in the map's random order
		if now >= r.until {
			delete(l.listed, key)
		}
		n++
		if n == sweepRecords {
			return
		}
	}
}
