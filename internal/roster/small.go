package roster

// Small is a map from names, for maps that are many and mostly have few
// entries: these stand in a row, which costs a third of a map's memory. Its zero
// value is empty. It is not safe for concurrent use.
type Small[T any] struct {
	few  []named[T]
	many map[string]T // instead of few, from when there were more than fewMost
}

type named[T any] struct {
	name  string
	value T
}

const fewMost = 16

// Len returns how many entries there are.
func (s *Small[T]) Len() int { return len(s.few) + len(s.many) }

// Get returns the value of that name, or the zero value.
func (s *Small[T]) Get(name string) (value T) {
	if s.many != nil {
		return s.many[name]
	}
	for i := range s.few {
		if s.few[i].name == name {
			return s.few[i].value
		}
	}
	return value
}

// Add puts a value in under a name that has none.
func (s *Small[T]) Add(name string, value T) {
	if s.many == nil && len(s.few) < fewMost {
		s.few = append(s.few, named[T]{name, value})
		return
	}
	if s.many == nil {
		s.many = make(map[string]T, 2*fewMost)
		for _, e := range s.few {
			s.many[e.name] = e.value
		}
		s.few = nil
	}
	s.many[name] = value
}

// Remove takes out what is there under a name.
func (s *Small[T]) Remove(name string) {
	delete(s.many, name)
	for i := range s.few {
		if s.few[i].name == name {
			last := len(s.few) - 1
			s.few[i], s.few[last] = s.few[last], named[T]{}
			if s.few = s.few[:last]; last == 0 {
				s.few = nil
			}
			return
		}
	}
}

// Values returns the values, in no order.
func (s *Small[T]) Values() []T {
	values := make([]T, 0, s.Len())
	for _, e := range s.few {
		values = append(values, e.value)
	}
	for _, v := range s.many {
		values = append(values, v)
	}
	return values
}
