package hub

// memberships has the memberships of a connection by channel. A server has many
// connections, and most are in few channels; a slice then needs a third of the memory of a
// map. The zero value is empty. It is not safe for concurrent use.
type memberships struct {
	few  []*membership
	many map[string]*membership // replaces few when there are more than fewMost
}

const fewMost = 16

func (s *memberships) len() int { return len(s.few) + len(s.many) }

// get returns the membership of a channel, or nil.
func (s *memberships) get(channel string) *membership {
	if s.many != nil {
		return s.many[channel]
	}
	for _, m := range s.few {
		if m.name == channel {
			return m
		}
	}
	return nil
}

// add adds a membership of a channel that has none.
func (s *memberships) add(m *membership) {
	if s.many == nil && len(s.few) < fewMost {
		s.few = append(s.few, m)
		return
	}
	if s.many == nil {
		s.many = make(map[string]*membership, 2*fewMost)
		for _, other := range s.few {
			s.many[other.name] = other
		}
		s.few = nil
	}
	s.many[m.name] = m
}

// remove removes the membership of a channel, if there is one.
func (s *memberships) remove(channel string) {
	delete(s.many, channel)
	for i, m := range s.few {
		if m.name != channel {
			continue
		}
		last := len(s.few) - 1
		s.few[i] = s.few[last]
		s.few[last] = nil
		s.few = s.few[:last]
		if last == 0 {
			s.few = nil
		}
		return
	}
}

// values returns the memberships, in no order.
func (s *memberships) values() []*membership {
	values := make([]*membership, 0, s.len())
	values = append(values, s.few...)
	for _, m := range s.many {
		values = append(values, m)
	}
	return values
}
