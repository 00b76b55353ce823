package hub

// memberships has the memberships of a connection by channel. A server has many
// connections, and most are in few channels; a list then needs much less memory than a map,
// and no memory of its own. The zero value is empty. It is not safe for concurrent use.
type memberships struct {
	first *membership            // of a list by membership.next
	many  map[string]*membership // replaces the list when there are more than fewMost
}

const fewMost = 16

func (s *memberships) len() int {
	n := len(s.many)
	for m := s.first; m != nil; m = m.next {
		n++
	}
	return n
}

// get returns the membership of a channel, or nil.
func (s *memberships) get(channel string) *membership {
	if s.many != nil {
		return s.many[channel]
	}
	for m := s.first; m != nil; m = m.next {
		if m.name == channel {
			return m
		}
	}
	return nil
}

// add adds a membership of a channel that has none.
func (s *memberships) add(m *membership) {
	if s.many == nil && s.len() < fewMost {
		m.next = s.first
		s.first = m
		return
	}
	if s.many == nil {
		s.many = make(map[string]*membership, 2*fewMost)
		for s.first != nil {
			s.many[s.first.name] = s.first
			unlink(&s.first)
		}
	}
	s.many[m.name] = m
}

// unlink removes the membership to which a link of the list points.
func unlink(link **membership) {
	m := *link
	*link = m.next
	m.next = nil
}

// remove removes the membership of a channel, if there is one.
func (s *memberships) remove(channel string) {
	delete(s.many, channel)
	for link := &s.first; *link != nil; link = &(*link).next {
		if (*link).name == channel {
			unlink(link)
			return
		}
	}
}

// values returns the memberships, in no order.
func (s *memberships) values() []*membership {
	values := make([]*membership, 0, s.len())
	for m := s.first; m != nil; m = m.next {
		values = append(values, m)
	}
	for _, m := range s.many {
		values = append(values, m)
	}
	return values
}
