package nats

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// isOpen reports whether a node is not closed and its lease has not expired.
func (p *peer) isOpen(t time.Time) bool {
	return p.seq > 0 && !p.heartbeat.closed && p.heartbeat.lease > 0 && t.Sub(p.lastSeen) <= p.heartbeat.lease
}

// leaseOf returns the length of a node's lease, or 0 if the node is not known.
func (r *replica) leaseOf(node string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.nodes[node]
	if p == nil {
		return 0
	}
	return p.heartbeat.lease
}

// inspect returns this node's rank, which is the number of open nodes with a lower id, the
// dead nodes whose members this node must remove now, and whether the stream delivers nothing
// any more. It uses only times of this node's clock. After this process was stopped, a node
// counts as dead only if no heartbeat arrives for a whole lease.
func (r *replica) inspect(t time.Time, stopped bool) (rank int, dead []string, streamSilent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lease := r.b.lease
	silent := t.Sub(r.peerLocked(r.b.node).lastSeen)
	if stopped {
		for _, p := range r.nodes {
			p.lastSeen = t
		}
	}
	for id, p := range r.nodes {
		if id < r.b.node && p.isOpen(t) {
			rank++
		}
	}
	if stopped || silent > lease/2 {
		return rank, nil, silent > lease
	}
	delay := time.Duration(min(rank, maxRank)) * rankDelay
	for id, p := range r.nodes {
		expired := p.heartbeat.lease
		if p.seq == 0 {
			expired = lease // it has members, but no heartbeat
		}
		if id != r.b.node && t.Sub(p.lastSeen) > expired+delay && (len(p.members) > 0 || p.heartbeat.lease > 0) {
			dead = append(dead, id)
		}
	}
	return rank, dead, false
}

// removeDeadNode marks a node as dead and appends the Leaves of its members. It does nothing if
// the node has sent a heartbeat in the meantime.
func (b *Broker) removeDeadNode(ctx context.Context, r *replica, id string) error {
	r.mu.Lock()
	p := r.peerLocked(id)
	seq := p.seq
	marked := p.heartbeat.lease == 0
	closed := p.heartbeat.closed
	members := maps.Clone(p.members)
	r.mu.Unlock()
	if !marked {
		_, err := b.compareAndStore(ctx, b.subjects.node(id), seq, heartbeat{}.encode())
		if errors.Is(err, errConflict) {
			return nil // it has sent a heartbeat, or another node has marked it
		}
		if err != nil {
			return err
		}
		if !closed {
			b.o.Logger.Warn("the lease of a node has expired; its members leave", "node", id, "members", len(members))
		}
	}
	_, err := b.leave(ctx, members)
	return err
}

// sweep removes the records of members that have left and of dead nodes from the replica, and
// channels without records. With removes, it also removes the records from the stream: only
// one node does that.
func (b *Broker) sweep(r *replica, removes bool) {
	var seqs []uint64
	dead := map[string]uint64{} // the last sequences of nodes
	before := time.Now().Add(-leftLeases * b.lease)
	r.mu.Lock()
	for channel, m := range r.channels {
		if len(m.left) > 0 {
			for _, old := range m.removable(before) {
				seqs = append(append(seqs, old.tail...), old.seq)
				r.removeLocked(m, old.member.ID)
			}
		}
		if len(m.members) == 0 && len(m.left) == 0 {
			delete(r.channels, channel)
		}
	}
	for id, p := range r.nodes {
		if p.heartbeat.lease == 0 && len(p.members) == 0 && p.lastSeen.Before(before) {
			if p.seq > 0 {
				dead[id] = p.seq
			}
			delete(r.nodes, id)
		}
	}
	r.mu.Unlock()
	if !removes {
		return
	}
	b.remove(b.subjects.stream+"members", seqs...)
	if len(dead) == 0 {
		return
	}
	b.spawn(func() {
		for id, seq := range dead {
			b.removeHeartbeats(r.link, id, seq)
		}
	})
}

// removeHeartbeats deletes the heartbeats of a dead node, up to that with the sequence last,
// which marks it as dead. It does not purge their subject: when NATS 2.9 purges a subject, each
// consumer skips the messages that it has not delivered yet. If reading them fails, they remain
// until a node that has read the stream again removes them.
func (b *Broker) removeHeartbeats(ctx context.Context, node string, last uint64) {
	stream := b.streams.Load().members
	subject := jetstream.WithGetMsgSubject(b.subjects.node(node))
	var seqs []uint64
	for next := uint64(1); next <= last; {
		msg, err := b.at(ctx, stream, next, subject)
		if errors.Is(err, errNone) {
			break
		}
		if err != nil {
			return
		}
		if msg.Sequence <= last {
			seqs = append(seqs, msg.Sequence)
		}
		next = msg.Sequence + 1
	}
	b.remove(b.subjects.stream+"members", seqs...)
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
		if p.isOpen(t) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}
