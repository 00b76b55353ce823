package memory

import (
	"context"
	"fmt"
	"time"

	"github.com/gopushy/pushy/broker"
)

const (
	// idTime is how long an ID is remembered, and maxIDs the maximum number of IDs.
	idTime = 20 * time.Minute
	maxIDs = 1 << 20
)

// Append implements broker.Broker.
func (b *Broker) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if err := ctx.Err(); err != nil {
		return broker.Appended{}, err
	}
	if err := b.reachable(); err != nil {
		return broker.Appended{}, err
	}
	if e.ID != "" {
		return b.appendOnce(ctx, channel, e)
	}
	if e.Kind == broker.Event && e.Keep.Size <= 0 {
		return b.pass(channel, e), nil
	}
	return b.appendEntry(channel, e)
}

// pass delivers an event that is not kept. It does not create a log for a channel that no
// node follows.
func (b *Broker) pass(channel string, e broker.Entry) broker.Appended {
	l := b.cluster.shard(channel).find(channel)
	if l == nil {
		return broker.Appended{Receivers: broker.None}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deliverLocked(e)
	return broker.Appended{Receivers: l.receiversLocked(b)}
}

func (l *channelLog) receiversLocked(from *Broker) broker.Receivers {
	others := len(l.followers)
	if _, here := l.followers[from]; here {
		others--
	}
	if others > 0 {
		return broker.Some
	}
	return broker.None
}

func (b *Broker) appendEntry(channel string, e broker.Entry) (broker.Appended, error) {
	l := b.cluster.logOf(channel)
	defer l.mu.Unlock()
	a := broker.Appended{Receivers: l.receiversLocked(b)}
	var err error
	switch e.Kind {
	case broker.Event:
		a.At = l.appendEventLocked(e)
	case broker.Join, broker.Update, broker.Leave, broker.Adopt:
		a.At, a.Duplicate, err = l.appendMemberLocked(b, e)
	default:
		err = fmt.Errorf("memory: append: unknown kind %d", e.Kind)
	}
	b.cluster.dropIfUnusedLocked(l)
	return a, err
}

// appendOnce appends an entry with an ID, unless one with that ID was appended before.
func (b *Broker) appendOnce(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	c := b.cluster
	key := channel + "\x00" + e.ID
	for {
		r, own, err := c.claimID(key)
		switch {
		case err != nil:
			return broker.Appended{}, err
		case own:
			a, err := b.appendEntry(channel, e)
			c.finishID(key, r, a, err)
			return a, err
		}
		select { // another call may be appending it at this moment
		case <-r.done:
		case <-ctx.Done():
			return broker.Appended{}, ctx.Err()
		}
		if !r.failed {
			first := r.appended
			first.Duplicate = true
			return first, nil
		}
	}
}

// idWindow stores the results of entries with an ID.
type idWindow struct {
	byKey map[string]*idRecord
	order []string // keys, oldest first
}

type idRecord struct {
	at       time.Time
	done     chan struct{} // closed when the others are set
	appended broker.Appended
	failed   bool // it was not appended
}

// claimID returns the record of a key. If the record is the caller's own, the caller
// appends the entry and calls finishID.
func (c *Cluster) claimID(key string) (r *idRecord, own bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.ids
	now := time.Now()
	w.expire(now)
	if r := w.byKey[key]; r != nil {
		return r, false, nil
	}
	if len(w.byKey) >= maxIDs {
		return nil, false, broker.ErrBusy
	}
	if w.byKey == nil {
		w.byKey = map[string]*idRecord{}
	}
	r = &idRecord{at: now, done: make(chan struct{})}
	w.byKey[key] = r
	w.order = append(w.order, key)
	return r, true, nil
}

// finishID sets the result. The record is not in the window any more if the last node was
// closed meanwhile.
func (c *Cluster) finishID(key string, r *idRecord, a broker.Appended, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.appended, r.failed = a, err != nil
	close(r.done)
	if err == nil || c.ids.byKey[key] != r {
		return
	}
	delete(c.ids.byKey, key)
	if last := len(c.ids.order) - 1; c.ids.order[last] == key {
		c.ids.order = c.ids.order[:last] // otherwise expire removes it later
	}
}

func (w *idWindow) expire(now time.Time) {
	for len(w.order) > 0 {
		key := w.order[0]
		r := w.byKey[key]
		if r != nil && now.Sub(r.at) < idTime {
			return
		}
		if r != nil {
			delete(w.byKey, key)
		}
		w.order = w.order[1:]
	}
}
