package nats

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// isAlive reports whether a node's lease has not expired.
func (p *peer) isAlive(t time.Time) bool {
	return p.seq > 0 && p.sign.lease > 0 && t.Sub(p.heard) <= p.sign.lease
}

// inspect returns how many of the living nodes come before this one, the nodes for which
// it is this one's turn to act because they are gone, and whether the stream brings
// nothing any more. Clocks are only ever compared with themselves. After this process
// has been stopped, no node counts as gone before it could be heard for a whole lease.
func (r *replica) inspect(t time.Time, stopped bool) (rank int, dead []string, deaf bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lease := r.b.lease
	silent := t.Sub(r.peerLocked(r.b.node).heard)
	if stopped {
		for _, p := range r.nodes {
			p.heard = t
		}
	}
	for id, p := range r.nodes {
		if id < r.b.node && p.isAlive(t) {
			rank++
		}
	}
	if stopped || silent > lease/2 {
		return rank, nil, silent > lease
	}
	delay := time.Duration(min(rank, mostRank)) * rankDelay
	for id, p := range r.nodes {
		expired := p.sign.lease
		if p.seq == 0 {
			expired = lease // it has no sign of life, but members
		}
		if id != r.b.node && t.Sub(p.heard) > expired+delay && (len(p.members) > 0 || p.sign.lease > 0) {
			dead = append(dead, id)
		}
	}
	return rank, dead, false
}

// bury marks a node as gone and appends the Leaves of its members. It does nothing if the
// node gives a sign of life meanwhile.
func (b *Broker) bury(ctx context.Context, r *replica, id string) error {
	r.mu.Lock()
	p := r.peerLocked(id)
	seq, marked, members := p.seq, p.sign.lease == 0, maps.Clone(p.members)
	r.mu.Unlock()
	if !marked {
		_, err := b.put(ctx, b.subjects.node(id), seq, sign{}.encode())
		if errors.Is(err, errConflict) {
			return nil // it lives, or another node is faster
		}
		if err != nil {
			return err
		}
		b.o.Logger.Warn("a node is gone without a word; its members leave", "node", id, "members", len(members))
	}
	_, err := b.leave(ctx, members)
	return err
}

// sweep drops the records of members that left and of nodes that are gone, and the
// channels without any. One node removes them from the stream, too.
func (b *Broker) sweep(r *replica, removes bool) {
	var seqs []uint64
	gone := map[string]uint64{} // the last sequences of nodes
	before := time.Now().Add(-keepLeft * b.lease)
	r.mu.Lock()
	for channel, m := range r.rooms {
		if len(m.left) > 0 {
			for _, old := range m.useless(before) {
				seqs = append(append(seqs, old.tail...), old.seq)
				r.removeLocked(m, old.member.ID)
			}
		}
		if len(m.members) == 0 && len(m.left) == 0 {
			delete(r.rooms, channel)
		}
	}
	for id, p := range r.nodes {
		if p.sign.lease == 0 && len(p.members) == 0 && p.heard.Before(before) {
			if p.seq > 0 {
				gone[id] = p.seq
			}
			delete(r.nodes, id)
		}
	}
	r.mu.Unlock()
	if !removes {
		return
	}
	b.remove(b.subjects.stream+"members", seqs...)
	for id, seq := range gone {
		b.removeSubject(b.subjects.stream+"members", b.subjects.node(id), seq)
	}
}

// Nodes implements broker.Cluster.
func (b *Broker) Nodes(ctx context.Context) ([]string, error) {
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	if err := b.catchUp(ctx); err != nil {
		return nil, err
	}
	r, t := b.replica.Load(), time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id, p := range r.nodes {
		if p.isAlive(t) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}
