// Package roster keeps who is in a channel, in order.
package roster

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
