package hub

import "slices"

// First selects the items with the lowest keys of a large number of items, in any order, without
// sorting all of them: it keeps at most twice as many as it returns. The zero value of all
// fields but Limit is ready to use.
type First[T any] struct {
	After string // only items with a greater key are selected
	Limit int    // positive

	items []keyed[T]
	bound string // with full: items with a greater key are not selected
	full  bool
	more  bool
}

type keyed[T any] struct {
	key  string
	item T
}

// Wants reports whether Add would keep an item with that key. For a key that is too great, it
// records that there are more items.
func (f *First[T]) Wants(key string) bool {
	if key <= f.After {
		return false
	}
	if f.full && key > f.bound {
		f.more = true
		return false
	}
	return true
}

// Add adds an item for whose key Wants has returned true. Keys are unique.
func (f *First[T]) Add(key string, item T) {
	f.items = append(f.items, keyed[T]{key, item})
	if len(f.items) >= 2*f.Limit {
		f.cut()
	}
}

func (f *First[T]) cut() {
	slices.SortFunc(f.items, func(a, b keyed[T]) int {
		if a.key < b.key {
			return -1
		}
		return 1
	})
	if len(f.items) > f.Limit {
		clear(f.items[f.Limit:])
		f.items = f.items[:f.Limit]
		f.more = true
	}
	if len(f.items) == f.Limit {
		f.full = true
		f.bound = f.items[f.Limit-1].key
	}
}

// Result returns the items in the order of their keys, and whether there are more.
func (f *First[T]) Result() (items []T, more bool) {
	f.cut()
	items = make([]T, 0, len(f.items))
	for _, k := range f.items {
		items = append(items, k.item)
	}
	return items, f.more
}
