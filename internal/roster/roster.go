// Package roster keeps who is in a channel: Slots for those to write to, and
// Roster for those to show, in order.
package roster

// Slots holds members at places that do not move while somebody walks them:
// adding and removing cost the same at any size. Its zero value is empty. It is
// not safe for concurrent use.
type Slots[T any] struct {
	slots []*T
	free  []int
	live  int
}

// Add puts v in and returns its place.
func (s *Slots[T]) Add(v *T) (place int) {
	s.live++
	if n := len(s.free); n > 0 {
		place, s.free = s.free[n-1], s.free[:n-1]
		s.slots[place] = v
		return place
	}
	s.slots = append(s.slots, v)
	return len(s.slots) - 1
}

// Remove takes v out of its place.
func (s *Slots[T]) Remove(v *T, place int) {
	if place < len(s.slots) && s.slots[place] == v {
		s.slots[place] = nil
		s.free = append(s.free, place)
		s.live--
	}
}

// Len returns how many are in.
func (s *Slots[T]) Len() int { return s.live }

// Copy copies the places from i on to dst, with nil for empty ones, and returns
// how many places those are.
func (s *Slots[T]) Copy(dst []*T, i int) int {
	return copy(dst, s.slots[min(i, len(s.slots)):])
}

// All returns who is in, in no order.
func (s *Slots[T]) All() []*T {
	all := make([]*T, 0, s.live)
	for _, v := range s.slots {
		if v != nil {
			all = append(all, v)
		}
	}
	return all
}

// Compact closes the gaps when half the places are empty. No walk may be under
// way. moved is told each one's new place.
func (s *Slots[T]) Compact(moved func(v *T, place int)) {
	if len(s.slots) < 64 || s.live > len(s.slots)/2 {
		return
	}
	slots := make([]*T, 0, s.live)
	for _, v := range s.slots {
		if v != nil {
			moved(v, len(slots))
			slots = append(slots, v)
		}
	}
	s.slots, s.free = slots, nil
}

// Roster is values in the order they came, found by id. Its zero value is
// empty. It is not safe for concurrent use.
type Roster[T any] struct {
	list  []entry[T]
	index map[string]int
	on    bool
}

type entry[T any] struct {
	id    string // "" for a gap
	value T
}

// Len returns how many are in.
func (r *Roster[T]) Len() int { return len(r.index) }

// On reports whether Add was ever told so since the Roster was empty.
func (r *Roster[T]) On() bool { return r.on }

// Add puts a value at the end, and turns the Roster on if on is true. It
// reports false for an id that is in already.
func (r *Roster[T]) Add(id string, value T, on bool) bool {
	if _, known := r.index[id]; known {
		return false
	}
	if r.index == nil {
		r.index = map[string]int{}
	}
	r.index[id] = len(r.list)
	r.list = append(r.list, entry[T]{id, value})
	r.on = r.on || on
	return true
}

// Remove takes a value out. The Roster is off once it is empty.
func (r *Roster[T]) Remove(id string) (value T, ok bool) {
	i, ok := r.index[id]
	if !ok {
		return value, false
	}
	value, r.list[i] = r.list[i].value, entry[T]{}
	delete(r.index, id)
	if len(r.index) == 0 {
		*r = Roster[T]{}
	} else if len(r.list) > 32 && len(r.index) < len(r.list)/2 {
		kept := make([]entry[T], 0, len(r.index))
		for _, e := range r.list {
			if e.id != "" {
				r.index[e.id] = len(kept)
				kept = append(kept, e)
			}
		}
		r.list = kept
	}
	return value, true
}

// Values returns the values in order.
func (r *Roster[T]) Values() []T {
	values := make([]T, 0, len(r.index))
	for _, e := range r.list {
		if e.id != "" {
			values = append(values, e.value)
		}
	}
	return values
}
