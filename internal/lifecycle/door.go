package lifecycle

import (
	"maps"
	"sync"
)

// Why a Door refuses by itself.
const (
	Full   = "connections"
	Closed = "shutdown"
)

// Door keeps who is in, by id, and lets in no more than a limit, none once it
// is closed. A place is reserved before it is filled, so that what takes time
// in between cannot let in too many. It is safe for concurrent use.
type Door[T any] struct {
	limit int // none if not above zero

	mu       sync.RWMutex
	in       map[string]T
	reserved int
	closed   bool
	refused  map[string]uint64 // how often, by reason
}

// NewDoor returns a Door that is open.
func NewDoor[T any](limit int) *Door[T] {
	return &Door[T]{limit: limit, in: map[string]T{}, refused: map[string]uint64{}}
}

// Reserve takes a place: Enter or GiveBack must follow. If there is none it
// counts a refusal and returns its reason, else "".
func (d *Door[T]) Reserve() (refused string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		refused = Closed
	case d.limit > 0 && len(d.in)+d.reserved >= d.limit:
		refused = Full
	default:
		d.reserved++
		return ""
	}
	d.refused[refused]++
	return refused
}

// GiveBack returns a reserved place.
func (d *Door[T]) GiveBack() {
	d.mu.Lock()
	d.reserved--
	d.mu.Unlock()
}

// Enter fills a reserved place, unless the Door was closed meanwhile, which
// counts as a refusal. start runs before anybody can find v; false is a refusal, too.
func (d *Door[T]) Enter(id string, v T, start func() bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved--
	if d.closed || !start() {
		d.refused[Closed]++
		return false
	}
	d.in[id] = v
	return true
}

// Leave takes id out.
func (d *Door[T]) Leave(id string) {
	d.mu.Lock()
	delete(d.in, id)
	d.mu.Unlock()
}

// Find returns who is in by that id.
func (d *Door[T]) Find(id string) (v T, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	v, ok = d.in[id]
	return v, ok
}

// All returns who is in, in no order.
func (d *Door[T]) All() []T {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]T, 0, len(d.in))
	for _, v := range d.in {
		all = append(all, v)
	}
	return all
}

// Len returns how many are in.
func (d *Door[T]) Len() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.in)
}

// Close lets nobody in any more. It reports whether it was open.
func (d *Door[T]) Close() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !d.closed
	d.closed = true
	return first
}

// Refuse counts a refusal for a reason of the caller's.
func (d *Door[T]) Refuse(reason string) {
	d.mu.Lock()
	d.refused[reason]++
	d.mu.Unlock()
}

// Refused returns how many were refused, by reason.
func (d *Door[T]) Refused() map[string]uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return maps.Clone(d.refused)
}
