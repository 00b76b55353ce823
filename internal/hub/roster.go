package hub

import (
	"cmp"
	"slices"
	"sort"
	"weak"
)

// roster is a list of members in the order of their Joins. The zero value is empty.
//
// Adding at the end and removing take constant time, apart from a binary search. Therefore
// places are not moved when a member is removed, and the index does not contain places.
type roster struct {
	places   []place
	index    map[string]*Member // by id
	unsorted bool               // the places are not in the order of since
	texts    weak.Pointer[rosterTexts]
}

// place is a place of a roster. It keeps its since when the member is removed, so that a
// binary search works.
type place struct {
	since  uint64
	member *Member // nil if it has been removed
}

func (r *roster) len() int { return len(r.index) }

func (r *roster) get(id string) *Member { return r.index[id] }

// last returns the largest since, if the roster is sorted.
func (r *roster) last() uint64 {
	if len(r.places) == 0 {
		return 0
	}
	return r.places[len(r.places)-1].since
}

// append adds a member, which the roster does not have, at the end.
func (r *roster) append(m *Member) {
	if r.index == nil {
		r.index = map[string]*Member{}
	}
	r.unsorted = r.unsorted || m.since < r.last()
	r.index[m.ID] = m
	r.places = append(r.places, place{m.since, m})
}

// insert adds a member, which the roster does not have, at the place that its since says.
func (r *roster) insert(m *Member) {
	if r.unsorted || m.since >= r.last() {
		r.append(m)
		return
	}
	r.index[m.ID] = m
	i := r.search(m.since)
	r.places = slices.Insert(r.places, i, place{m.since, m})
	r.moved(i)
}

// search returns the first place whose since is at least that. The roster is sorted.
func (r *roster) search(since uint64) int {
	return sort.Search(len(r.places), func(i int) bool { return r.places[i].since >= since })
}

// remove removes a member and returns it, or nil if there is none with that id.
func (r *roster) remove(id string) *Member {
	m := r.index[id]
	if m == nil {
		return nil
	}
	delete(r.index, id)
	if len(r.index) == 0 {
		*r = roster{}
		return m
	}
	i := r.place(m)
	r.places[i].member = nil
	r.forget(i)
	if len(r.places) > 32 && len(r.index) < len(r.places)/2 {
		r.places = slices.DeleteFunc(r.places, func(p place) bool { return p.member == nil })
		r.moved(0)
	}
	return m
}

// place returns the place of a member.
func (r *roster) place(m *Member) int {
	i := 0
	if !r.unsorted {
		i = r.search(m.since)
	}
	for r.places[i].member != m {
		i++
	}
	return i
}

// changed is called when the Text of a member, which the roster has, is not valid any more.
func (r *roster) changed(m *Member) {
	m.Text = nil
	if r.texts.Value() != nil {
		r.forget(r.place(m))
	}
}

// sort sorts the members by their Joins, and reports whether their order has changed.
func (r *roster) sort() bool {
	if !r.unsorted {
		return false
	}
	r.unsorted = false
	kept := r.places[:0]
	for _, p := range r.places {
		if p.member != nil {
			kept = append(kept, place{p.member.since, p.member})
		}
	}
	clear(r.places[len(kept):])
	r.places = kept
	r.moved(0)
	before := func(a, b place) int { return cmp.Compare(a.since, b.since) }
	if slices.IsSortedFunc(kept, before) {
		return false
	}
	slices.SortStableFunc(kept, before)
	return true
}

// values returns the members in order.
func (r *roster) values() []*Member {
	values := make([]*Member, 0, len(r.index))
	for _, p := range r.places {
		if p.member != nil {
			values = append(values, p.member)
		}
	}
	return values
}

// after returns up to limit members whose Joins follow the revision since, and whether there
// are more.
func (r *roster) after(since uint64, limit int) (page []*Member, more bool) {
	places := r.places
	if r.unsorted {
		places = slices.Clone(places)
		places = slices.DeleteFunc(places, func(p place) bool { return p.member == nil })
		slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.member.since, b.member.since) })
		places = slices.DeleteFunc(places, func(p place) bool { return p.member.since <= since })
	} else {
		places = places[r.search(since+1):]
	}
	for _, p := range places {
		switch {
		case p.member == nil:
		case len(page) == limit:
			return page, true
		default:
			page = append(page, p.member)
		}
	}
	return page, false
}
