package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gopushy/pushy/broker"
)

// appendMember appends a member entry. The replica can be out of date, so a refusal or a
// duplicate is decided again with the stored record.
func (b *Broker) appendMember(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	r := b.replica.Load()
	current, on := r.lookup(channel, e.Member, e.Kind == broker.Join && e.Data == nil)
	r.mu.Lock()
	epoch := r.epoch
	applied := r.applied
	r.mu.Unlock()
	stored := false
	for range appendAttempts {
		next, since, err := b.decide(current, e)
		switch {
		case next != nil:
			if e.Kind == broker.Join {
				next.onAt = on
			}
			prev := uint64(0)
			if current != nil {
				prev = current.seq
			}
			seq, err := b.compareAndStore(ctx, b.subjects.member(channel, e.Member), prev, next.encode())
			if err == nil && seq <= applied {
				return broker.Appended{}, r.replaced()
			}
			if err == nil {
				return broker.Appended{At: broker.Position{Epoch: epoch, Offset: seq}}, nil
			}
			if !errors.Is(err, errConflict) {
				return broker.Appended{}, err
			}
		case stored && err != nil:
			return broker.Appended{}, fmt.Errorf("nats: %w", err)
		case stored:
			return broker.Appended{At: broker.Position{Epoch: epoch, Offset: since}, Duplicate: true}, nil
		}
		current, err = b.lastRecord(ctx, channel, e.Member)
		if err != nil {
			return broker.Appended{}, err
		}
		stored = true
	}
	return broker.Appended{}, errChanging
}

// lookup returns a member's record. If asked is set, it also returns a sequence at which
// State.On was certainly set, or 0.
func (r *replica) lookup(channel, member string, asked bool) (current *record, on uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.channels[channel]
	if m == nil {
		return nil, 0
	}
	if asked && m.on() {
		on = r.applied
	}
	current = m.members[member]
	if current == nil {
		current = m.left[member]
	}
	return current, on
}

// lastRecord returns a member's stored record, or nil if there is none.
func (b *Broker) lastRecord(ctx context.Context, channel, member string) (*record, error) {
	subject := b.subjects.member(channel, member)
	msg, err := b.last(ctx, b.streams.Load().members, subject)
	if err != nil {
		return nil, ignore(err, errNone)
	}
	r, err := decodeRecord(msg.Data, member, msg.Sequence)
	if err != nil {
		b.skipped(subject, err)
		return &record{kind: broker.Leave, seq: msg.Sequence}, nil // like a member that has left
	}
	return r, nil
}

// decide returns the record of a member after an entry. It returns nil if the entry is
// refused, with the error, or if it is a duplicate of the Join with the revision since.
func (b *Broker) decide(current *record, e broker.Entry) (next *record, since uint64, err error) {
	in := current != nil && !current.left()
	t := time.Now()
	next = &record{kind: e.Kind}
	if current != nil {
		*next = *current
		next.kind = e.Kind
		next.oldOwner = ""
		next.taken = time.Time{}
		next.tail = append(slices.Clone(current.tail), current.seq)
		next.tail = next.tail[max(0, len(next.tail)-(maxVersion-1)):]
		next.adopted = slices.DeleteFunc(slices.Clone(current.adopted), func(a adoption) bool { return !t.Before(a.until) })
	}
	switch e.Kind {
	case broker.Join:
		switch {
		case in && current.member.Owner == e.Owner:
			return nil, current.member.Since, nil
		case in:
			return nil, 0, broker.ErrMemberExists
		case slices.ContainsFunc(next.adopted, func(a adoption) bool { return a.owner == e.Owner }):
			return nil, 0, broker.ErrNotOwner
		}
		next.past = past{}
		if current != nil && current.member.Since > 0 {
			next.past = current.membership()
		}
		next.joinedWithData = e.Data != nil
		next.member = broker.Member{
			ID:     e.Member,
			Owner:  e.Owner,
			Node:   b.node,
			User:   e.User,
			Data:   e.Data,
			State:  e.State,
			Joined: e.Joined,
		}
	case broker.Adopt:
		if !in || current.member.Owner != e.OldOwner {
			return nil, 0, broker.ErrNotOwner
		}
		next.oldOwner = e.OldOwner
		next.member.Owner = e.Owner
		next.member.Node = b.node
		lease := max(b.lease, b.replica.Load().leaseOf(current.member.Node))
		next.adopted = append(next.adopted, adoption{owner: e.OldOwner, until: t.Add(2 * lease)})
		next.adopted = next.adopted[max(0, len(next.adopted)-maxAdopted):]
	case broker.Update:
		if !in || current.member.Owner != e.Owner {
			return nil, 0, broker.ErrNotOwner
		}
		next.member.Data = e.Data
		next.member.State = e.State
	case broker.Leave:
		if !in || current.member.Owner != e.Owner {
			return nil, 0, broker.ErrNotOwner
		}
		next.member.Data = nil
		next.member.State = nil
	}
	return next, 0, nil
}

// leave appends the Leaves of members of a dead node. It skips members that have changed in
// the meantime. It returns the sequence of the last Leave.
func (b *Broker) leave(ctx context.Context, members map[*record]string) (last uint64, err error) {
	list := make([]*record, 0, len(members))
	for r := range members {
		list = append(list, r)
	}
	seqs := make([]uint64, len(list))
	err = each(len(list), func(i int) error {
		r := list[i]
		next, _, err := b.decide(r, broker.Entry{Kind: broker.Leave, Member: r.member.ID, Owner: r.member.Owner})
		if err != nil {
			return err
		}
		seqs[i], err = b.compareAndStore(ctx, b.subjects.member(members[r], r.member.ID), r.seq, next.encode())
		return ignore(err, errConflict)
	})
	return slices.Max(append(seqs, 0)), err
}
