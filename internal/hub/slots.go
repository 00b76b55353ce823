package hub

// slots holds the memberships of a channel at places that do not move while
// somebody walks them: adding and removing cost the same at any size. The zero
// value is empty. It is not safe for concurrent use.
type slots struct {
	places []*membership
	free   []int
	live   int
}

// add puts m in and returns its place.
func (s *slots) add(m *membership) (place int) {
	s.live++
	n := len(s.free)
	if n == 0 {
		s.places = append(s.places, m)
		return len(s.places) - 1
	}
	place, s.free = s.free[n-1], s.free[:n-1]
	s.places[place] = m
	return place
}

// remove takes m out of its place.
func (s *slots) remove(m *membership, place int) {
	if place < len(s.places) && s.places[place] == m {
		s.places[place] = nil
		s.free = append(s.free, place)
		s.live--
	}
}

// copyTo copies the places from i on to dst, with nil for empty ones, and returns
// how many places those are.
func (s *slots) copyTo(dst []*membership, i int) int {
	return copy(dst, s.places[min(i, len(s.places)):])
}

// all returns the memberships, in no order.
func (s *slots) all() []*membership {
	all := make([]*membership, 0, s.live)
	for _, m := range s.places {
		if m != nil {
			all = append(all, m)
		}
	}
	return all
}

// compact closes the gaps when half of the places are empty. Nobody may be
// walking them.
func (s *slots) compact() {
	if len(s.places) < 64 || s.live > len(s.places)/2 {
		return
	}
	places := make([]*membership, 0, s.live)
	for _, m := range s.places {
		if m != nil {
			m.slot = len(places)
			places = append(places, m)
		}
	}
	s.places, s.free = places, nil
}
