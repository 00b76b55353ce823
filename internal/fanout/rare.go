package fanout

import "sync"

// rare has the fields that few outboxes need. They are separate to save memory and cache lines: a
// delivery makes one check for all of them.
type rare struct {
	lists lists
	marks marks
}

var rares = sync.Pool{New: func() any { return &rare{} }}

// rareLocked returns the rare of o, which has one from now on.
func (o *Outbox) rareLocked() *rare {
	if o.rare == nil {
		o.rare = rares.Get().(*rare)
	}
	return o.rare
}

// releaseRareLocked is called when o.rare may not be needed any more.
func (o *Outbox) releaseRareLocked() {
	if r := o.rare; r.lists.bytes == 0 && !r.marks.used() {
		r.marks.reset()
		rares.Put(r)
		o.rare = nil
	}
}

// dropRareLocked is called before all queued frames are dropped.
func (o *Outbox) dropRareLocked() {
	o.dropListsLocked()
	o.rare.marks.reset() // the client is not told
	o.releaseRareLocked()
}

// listBytesLocked returns the bytes of lists that are queued or being written.
func (o *Outbox) listBytesLocked() int64 {
	if o.rare == nil {
		return 0
	}
	return o.rare.lists.bytes
}
