package hub

import (
	"cmp"
	"slices"
)

// top selects the items with the highest weights of a large number of items, without keeping more
// than twice as many as it returns.
type top[T any] struct {
	limit int // positive
	items []weighted[T]
	least int64 // with more than limit items: lighter ones are not selected
}

type weighted[T any] struct {
	weight int64
	item   T
}

// add considers an item. Items whose weight is not positive are not selected.
func (t *top[T]) add(weight int64, item T) {
	if weight <= t.least {
		return
	}
	t.items = append(t.items, weighted[T]{weight, item})
	if len(t.items) >= 2*t.limit {
		t.cut()
	}
}

func (t *top[T]) cut() {
	slices.SortFunc(t.items, func(a, b weighted[T]) int { return cmp.Compare(b.weight, a.weight) })
	if len(t.items) > t.limit {
		clear(t.items[t.limit:])
		t.items = t.items[:t.limit]
	}
	if len(t.items) == t.limit {
		t.least = t.items[t.limit-1].weight
	}
}

// result returns the items, the heaviest first.
func (t *top[T]) result() []T {
	t.cut()
	all := make([]T, 0, len(t.items))
	for _, w := range t.items {
		all = append(all, w.item)
	}
	return all
}

// Busiest returns the connections for which the most bytes are waiting, at most limit of them, the
// one with the most first. Connections for which nothing is waiting are not returned. It looks at
// all connections, unless nothing is waiting for any, so it must not be called often.
func (h *Hub) Busiest(limit int) []*Conn {
	if h.cfg.Engine.Waiting() == 0 {
		return nil
	}
	return h.admission.busiest(limit)
}

func (a *Admission) busiest(limit int) []*Conn {
	most := top[*Conn]{limit: limit}
	a.mu.RLock()
	for _, c := range a.conns {
		most.add(c.out.Waiting(), c)
	}
	a.mu.RUnlock()
	return slices.DeleteFunc(most.result(), func(c *Conn) bool { return !c.isGreeted() })
}

// Largest returns the channels with the most members on this node, at most limit of them, the one
// with the most first. It looks at all channels.
func (h *Hub) Largest(limit int) []*Channel {
	most := top[*Channel]{limit: limit}
	for _, ch := range h.Channels() {
		most.add(int64(ch.Len()), ch)
	}
	return most.result()
}
