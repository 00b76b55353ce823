package memory

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"
	"unique"

	"github.com/gopushy/pushy/broker"
)

const (
	// idTime is how long an ID is remembered, and maxIDs the default maximum number of IDs.
	idTime = 20 * time.Minute
	maxIDs = 1 << 20
)

// idWindow remembers the entries with an ID. It is guarded by the cluster's mu. There can be a
// million of them, so they are kept without the text of their IDs.
type idWindow struct {
	records  map[idKey]idRecord
	order    []idAge // oldest first, with some whose record was forgotten
	gone     int     // the number of those
	underWay map[idKey]*idCall
}

// idKey identifies a channel and an ID.
type idKey [16]byte

func keyOfID(channel, id string) idKey {
	sum := sha256.Sum256([]byte(channel + "\x00" + id))
	return idKey(sum[:16])
}

// idRecord is an entry that was appended. The epoch is that of its position.
type idRecord struct {
	at        int64 // of Cluster.elapsedLocked
	offset    uint64
	epoch     unique.Handle[string]
	receivers broker.Receivers
}

type idAge struct {
	key idKey
	at  int64
}

// idCall is an append that has not returned.
type idCall struct {
	done     chan struct{} // closed when the others are set
	appended broker.Appended
	failed   bool // it was not appended
}

// appendOnce appends an entry with an ID, unless one with that ID was appended before.
func (b *Broker) appendOnce(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	c := b.cluster
	key := keyOfID(channel, e.ID)
	for {
		first, call, own, err := c.claimID(key)
		switch {
		case err != nil:
			return broker.Appended{}, err
		case own:
			a, err := b.appendEntry(channel, e)
			c.finishID(key, call, a, err)
			return a, err
		case call == nil:
			return first, nil
		}
		select { // another call is appending it at this moment
		case <-call.done:
		case <-ctx.Done():
			return broker.Appended{}, ctx.Err()
		}
		if !call.failed {
			first := call.appended
			first.Duplicate = true
			return first, nil
		}
	}
}

// claimID returns the result of the first append with a key, or its call if that has not
// returned. If the call is the caller's own, the caller appends the entry and calls finishID.
func (c *Cluster) claimID(key idKey) (first broker.Appended, call *idCall, own bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.ids
	w.expire(c.elapsedLocked())
	if r, ok := w.records[key]; ok {
		return broker.Appended{
			At:        broker.Position{Epoch: r.epoch.Value(), Offset: r.offset},
			Receivers: r.receivers,
			Duplicate: true,
		}, nil, false, nil
	}
	if call := w.underWay[key]; call != nil {
		return first, call, false, nil
	}
	if len(w.records)+len(w.underWay) >= c.maxIDs {
		return first, nil, false, broker.ErrBusy
	}
	if w.records == nil {
		w.records = map[idKey]idRecord{}
		w.underWay = map[idKey]*idCall{}
	}
	call = &idCall{done: make(chan struct{})}
	w.underWay[key] = call
	return first, call, true, nil
}

// finishID sets the result. The call is not in the window any more if the last node was closed
// meanwhile.
func (c *Cluster) finishID(key idKey, call *idCall, a broker.Appended, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	call.appended, call.failed = a, err != nil
	close(call.done)
	w := &c.ids
	if w.underWay[key] != call {
		return
	}
	delete(w.underWay, key)
	if err != nil {
		return
	}
	now := c.elapsedLocked()
	w.records[key] = idRecord{
		at:        now,
		offset:    a.At.Offset,
		epoch:     unique.Make(a.At.Epoch),
		receivers: a.Receivers,
	}
	w.order = append(w.order, idAge{key, now})
}

// ForgetIDs implements broker.IDForgetter.
func (b *Broker) ForgetIDs(ctx context.Context, ids []broker.EntryID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.reachable(); err != nil {
		return err
	}
	keys := make([]idKey, 0, len(ids))
	for _, id := range ids {
		keys = append(keys, keyOfID(id.Channel, id.ID))
	}
	c := b.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.ids
	for _, key := range keys {
		if _, ok := w.records[key]; ok {
			delete(w.records, key)
			w.gone++
		}
	}
	w.expire(c.elapsedLocked())
	if w.gone > 1000 && w.gone > len(w.order)/2 {
		w.order = slices.DeleteFunc(w.order, w.isGone)
		w.gone = 0
	}
	return nil
}

// isGone reports whether an element of order was forgotten.
func (w *idWindow) isGone(e idAge) bool {
	r, ok := w.records[e.key]
	return !ok || r.at != e.at
}

func (w *idWindow) expire(now int64) {
	for len(w.order) > 0 {
		oldest := w.order[0]
		switch {
		case w.isGone(oldest):
			w.gone--
		case now-oldest.at < int64(idTime):
			return
		default:
			delete(w.records, oldest.key)
		}
		w.order = w.order[1:]
	}
}
