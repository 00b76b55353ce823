package hub

import (
	"cmp"
	"slices"

	"github.com/gopushy/pushy/broker"
)

// maxMembers bounds the members of a channel that a broker may bring. It is far
// above what a node would log by default, since other nodes may have other limits.
const maxMembers = 1_000_000

// replica is the members of a channel on all nodes, in joining order, as this
// node knows them. The zero value is empty.
type replica struct {
	list     []*Member // with nil for gaps
	index    map[string]int
	on       bool  // a member with data has joined since it was last empty
	skipped  bool  // a member was, which is still to be logged
	unlogged int   // members that are to join again
	bytes    int64 // about what a list of all members has
	revision broker.Position
}

// memberOverhead is about what a protocol adds to a member's data.
const memberOverhead = 100

func (m *Member) size() int64 { return int64(len(m.Data) + memberOverhead) }

func (r *replica) len() int { return len(r.index) }

func (r *replica) get(id string) *Member {
	i, ok := r.index[id]
	if !ok {
		return nil
	}
	return r.list[i]
}

// add puts in a member that is not in.
func (r *replica) add(m *Member) {
	if r.index == nil {
		r.index = map[string]int{}
	}
	r.index[m.ID] = len(r.list)
	r.list = append(r.list, m)
	r.on = r.on || m.Data != nil
	r.bytes += m.size()
	if m.unlogged {
		r.unlogged++
	}
}

// sort brings the members into the order of their Joins, and reports whether they were in
// another one.
func (r *replica) sort() bool {
	before := func(a, b *Member) int { return cmp.Compare(a.since, b.since) }
	list := r.values()
	if slices.IsSortedFunc(list, before) {
		return false
	}
	slices.SortStableFunc(list, before)
	r.list = list
	for i, m := range list {
		r.index[m.ID] = i
	}
	return true
}

// remove takes a member out and returns it, or nil. It stays on while there are
// others.
func (r *replica) remove(id string) *Member {
	i, ok := r.index[id]
	if !ok {
		return nil
	}
	m := r.list[i]
	r.list[i] = nil
	delete(r.index, id)
	r.bytes -= m.size()
	if m.unlogged {
		r.unlogged--
	}
	switch {
	case len(r.index) == 0:
		*r = replica{revision: r.revision, skipped: r.skipped}
	case len(r.list) > 32 && len(r.index) < len(r.list)/2:
		kept := make([]*Member, 0, len(r.index))
		for _, other := range r.list {
			if other != nil {
				r.index[other.ID] = len(kept)
				kept = append(kept, other)
			}
		}
		r.list = kept
	}
	return m
}

// values returns the members in order.
func (r *replica) values() []*Member {
	values := make([]*Member, 0, len(r.index))
	for _, m := range r.list {
		if m != nil {
			values = append(values, m)
		}
	}
	return values
}
