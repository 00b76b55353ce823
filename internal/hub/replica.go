package hub

import (
	"cmp"
	"slices"

	"github.com/gopushy/pushy/broker"
)

// maxMembers limits the members of a channel that a broker can deliver. It is far above the
// default of Limits.Members, because other nodes can have other limits.
const maxMembers = 1_000_000

// replica has the members of a channel on all nodes, in joining order, as far as this node
// knows them. The zero value is empty.
type replica struct {
	list     []*Member      // nil in the places of removed members
	index    map[string]int // indexes of list, by member id
	on       bool           // a member with data has joined since the replica was last empty
	skipped  bool           // a member was skipped, and the log message is still to be written
	unlogged int            // the number of members that are to join again
	bytes    int64          // the approximate size of a list of all members
	revision broker.Position
}

// memberOverhead is approximately the number of bytes that a protocol adds to a member's
// data.
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

// add adds a member that the replica does not have.
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

// sort sorts the members by their Joins, and reports whether their order has changed.
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

// remove removes a member and returns it, or nil if there is none with that id. The field on
// is reset only when no member is left.
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
		*r = replica{
			revision: r.revision,
			skipped:  r.skipped,
		}
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
