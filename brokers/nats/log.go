package nats

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/names"
)

// A channel's log is the messages of one subject of the stream. Each is written
// on condition that a certain one is the subject's last, and names it, so that
// whoever reads can tell whether any is missing:
//
//   - changes: members that joined and left, in order;
//   - a base: which of the joins before it still hold. All else before it may be
//     deleted, which is how a log stays short.
//
// A message written when the channel was empty is a root: nothing before it counts.

const (
	entryRoot = 1 << iota
	entryBase
)

const (
	changeLeft = iota
	changeJoined
	changeJoinedWithData
)

// maxChanges is how many changes an entry has: a change's revision is its
// entry's sequence times this, plus its place.
const maxChanges = 256

// entry is one message of a log.
type entry struct {
	seq     uint64 // in the stream
	prev    uint64 // the last before it
	root    bool
	node    string // that wrote it
	changes []pushy.Change
	skipped map[int]error // the changes that are broken, which keep their places
	// foreign is a message that is no entry. It has a place in the log, since the
	// next entry is written after it, and changes nothing.
	foreign bool

	base bool
	rev  uint64   // of the last change before a base
	on   bool     // the state at a base
	live []uint64 // the revisions of the joins that hold at a base
}

func (e *entry) encode() []byte {
	b := []byte{codecVersion, 0}
	if e.root {
		b[1] |= entryRoot
	}
	if e.base {
		b[1] |= entryBase
	}
	b = binary.AppendUvarint(b, e.prev)
	b = appendText(b, e.node)
	if e.base {
		on := byte(0)
		if e.on {
			on = 1
		}
		b = binary.AppendUvarint(append(b, on), e.rev)
		b = binary.AppendUvarint(b, uint64(len(e.live)))
		last := uint64(0)
		for _, rev := range e.live {
			b = binary.AppendUvarint(b, rev-last)
			last = rev
		}
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(e.changes)))
	for _, c := range e.changes {
		switch {
		case c.Left:
			b = appendText(append(b, changeLeft), c.Member.ID)
			continue
		case c.Member.HasData:
			b = append(b, changeJoinedWithData)
		default:
			b = append(b, changeJoined)
		}
		b = appendText(appendText(b, c.Member.ID), c.Member.JSON)
	}
	return b
}

func decodeEntry(seq uint64, data []byte) (*entry, error) {
	c := cut(data)
	flags := c.octet()
	e := &entry{seq: seq, prev: c.number(), root: flags&entryRoot != 0, base: flags&entryBase != 0, node: string(c.text())}
	if e.base {
		e.on, e.rev = c.octet() == 1, c.number()
		last := uint64(0)
		for n := c.number(); n > 0 && !c.bad; n-- {
			last += c.number()
			e.live = append(e.live, last)
		}
	} else {
		for n := c.number(); n > 0 && !c.bad; n-- {
			kind := c.octet()
			change := pushy.Change{Revision: seq*maxChanges + uint64(len(e.changes)), Left: kind == changeLeft}
			change.Member.ID = string(c.text())
			if !change.Left {
				change.Member.HasData, change.Member.JSON = kind == changeJoinedWithData, c.text()
			}
			e.changes = append(e.changes, change)
		}
	}
	switch {
	case c.bad, len(e.changes) > maxChanges, e.prev >= seq, seq > maxSequence:
		return nil, errCodec
	case !names.IsToken(e.node):
		return nil, fmt.Errorf("nats: an entry of a node whose id is not 1 to 64 of A-Z a-z 0-9 _ -: %.70q", e.node)
	case e.rev >= seq*maxChanges, len(e.live) > 0 && !slices.IsSorted(e.live), len(e.live) > 0 && e.live[len(e.live)-1] > e.rev:
		return nil, errCodec
	}
	for i, change := range e.changes {
		if change.Left {
			continue // a member that is not in is none that leaves
		}
		if err := checkMember(change.Member); err != nil {
			if e.skipped == nil {
				e.skipped = map[int]error{}
			}
			e.skipped[i] = err
		}
	}
	return e, nil
}

// maxSequence bounds an entry's sequence, so that revisions have room.
const maxSequence = 1 << 53

// foreignEntry is the place of a message that is no entry, after prev.
func foreignEntry(seq, prev uint64) *entry {
	return &entry{seq: seq, prev: prev, root: prev == 0, foreign: true}
}

// held is a member in a log.
type held struct {
	pushy.Member
	node string // that logged the join
	rev  uint64
}

// replica is what a channel's log amounts to.
type replica struct {
	last    uint64 // the sequence of the last entry, 0 for none
	rev     uint64 // of the last change
	on      bool
	members map[string]held
	seqs    []uint64 // of the entries that are stored, ascending
}

// follows reports whether nothing is missing between the replica and e.
func (r *replica) follows(e *entry) bool {
	return e.prev == r.last || e.root && len(r.members) == 0
}

// fold takes the next entry and returns its changes that are changes.
func (r *replica) fold(e *entry) (changes []pushy.Change) {
	r.last = e.seq
	if e.base { // whoever wrote it deletes the rest
		r.seqs = nil
		for _, rev := range e.live {
			if seq := rev / maxChanges; len(r.seqs) == 0 || r.seqs[len(r.seqs)-1] != seq {
				r.seqs = append(r.seqs, seq)
			}
		}
	}
	r.seqs = append(r.seqs, e.seq)
	if r.members == nil {
		r.members = map[string]held{}
	}
	for i, c := range e.changes {
		if e.skipped[i] == nil && r.apply(c, e.node) {
			changes = append(changes, c)
		}
	}
	return changes
}

func (r *replica) apply(c pushy.Change, node string) bool {
	_, in := r.members[c.Member.ID]
	if in != c.Left {
		return false
	}
	r.rev = c.Revision
	if c.Left {
		delete(r.members, c.Member.ID)
		r.on = r.on && len(r.members) > 0
	} else {
		r.members[c.Member.ID] = held{c.Member, node, c.Revision}
		r.on = r.on || c.Member.HasData
	}
	return true
}

// ordered returns the members in joining order.
func (r *replica) ordered() []held {
	return slices.SortedFunc(maps.Values(r.members), func(a, b held) int { return cmp.Compare(a.rev, b.rev) })
}

func (r *replica) snapshot() pushy.Snapshot {
	s := pushy.Snapshot{Revision: r.rev, On: r.on, Members: make([]pushy.Member, 0, len(r.members))}
	for _, m := range r.ordered() {
		s.Members = append(s.Members, m.Member)
	}
	return s
}

// compacted is the base to write instead of what can then be deleted.
func (r *replica) compacted(node string) *entry {
	e := &entry{prev: r.last, base: true, node: node, rev: r.rev, on: r.on}
	for _, m := range r.ordered() {
		e.live = append(e.live, m.rev)
	}
	return e
}

// replay returns what entries amount to. ok is false if any is missing: they were
// read while somebody deleted. With damaged, what can be read without it counts.
func replay(entries map[uint64]*entry, damaged bool) (r replica, ok bool) {
	r.members = map[string]held{}
	r.seqs = slices.Sorted(maps.Keys(entries))
	if len(r.seqs) == 0 {
		return r, true
	}
	prev := uint64(0)
	for _, seq := range r.seqs {
		if entries[seq].foreign {
			entries[seq] = foreignEntry(seq, prev)
		}
		prev = seq
	}
	var chain []*entry
	e := entries[prev]
	for !e.root && !e.base {
		before := entries[e.prev]
		if before == nil && !damaged {
			return r, false
		}
		if before == nil {
			break
		}
		chain = append(chain, e)
		e = before
	}
	if e.base {
		for _, rev := range e.live {
			of, at := entries[rev/maxChanges], int(rev%maxChanges)
			missing := of == nil || !of.foreign && at >= len(of.changes)
			if missing && !damaged {
				return r, false
			}
			if !missing && !of.foreign && of.skipped[at] == nil {
				r.apply(of.changes[at], of.node)
			}
		}
		r.on, r.rev = e.on, e.rev
	}
	seqs := r.seqs
	for chain = append(chain, e); len(chain) > 0; chain = chain[:len(chain)-1] {
		r.fold(chain[len(chain)-1])
	}
	r.seqs = seqs
	return r, true
}

// hasForeign reports whether any of the entries is foreign.
func hasForeign(entries map[uint64]*entry) bool {
	for _, e := range entries {
		if e.foreign {
			return true
		}
	}
	return false
}
