package hub

// slots has the memberships of a channel at places that do not move during an iteration.
// Adding and removing take constant time. The zero value is empty. It is not safe for
// concurrent use.
type slots struct {
	places []*membership
	free   []int
	live   int
}

// add adds m and returns its place.
func (s *slots) add(m *membership) (place int) {
	s.live++
	n := len(s.free)
	if n == 0 {
		s.places = append(s.places, m)
		return len(s.places) - 1
	}
	place = s.free[n-1]
	s.free = s.free[:n-1]
	s.places[place] = m
	return place
}

// remove removes m from its place. It has no effect if m is not there.
func (s *slots) remove(m *membership, place int) {
	if place < len(s.places) && s.places[place] == m {
		s.places[place] = nil
		s.free = append(s.free, place)
		s.live--
	}
}

// copyTo copies the places from i on to dst, with nil for the empty ones, and returns the
// number of places that it copied.
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

// compact removes the empty places if at least half of the places are empty. It must not be
// called during an iteration.
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
	s.places = places
	s.free = nil
}
