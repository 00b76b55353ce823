package fanout

import "sync"

// rare has the fields that few outboxes need. They are separate to save memory and cache lines: a
// delivery makes one check for all of them.
type rare struct {
	control control
	lists   lists
	marks   marks
	writing int64   // bytes that were taken and are not yet written, without lists
	made    int64   // Frame.made of the first Frame that is being written; 0 if that is not known
	ending  *ending // nil until the Outbox is closed, or Done is called
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
	r := o.rare
	if r == nil || r.lists.bytes != 0 || r.marks.used() || r.writing != 0 || r.ending != nil || r.control.queued() {
		return
	}
	r.marks.reset()
	r.made = 0
	rares.Put(r)
	o.rare = nil
}

// dropRareLocked is called before all queued frames are dropped.
func (o *Outbox) dropRareLocked() {
	r := o.rare
	o.dropListsLocked()
	r.marks.reset() // the client is not told
	r.control = control{Response: r.control[Response]}
	r.writing = 0
	o.releaseRareLocked()
}

// listBytesLocked returns the bytes of lists that are queued or being written.
func (o *Outbox) listBytesLocked() int64 {
	if o.rare == nil {
		return 0
	}
	return o.rare.lists.bytes
}

// writingLocked returns the part of o.bytes that is being written, without lists.
func (o *Outbox) writingLocked() int64 {
	if o.rare == nil {
		return 0
	}
	return o.rare.writing
}

// endingLocked returns the ending of o, which has one from now on.
func (o *Outbox) endingLocked() *ending {
	r := o.rareLocked()
	if r.ending == nil {
		r.ending = &ending{}
	}
	return r.ending
}

// endedLocked returns the ending of o, or nil.
func (o *Outbox) endedLocked() *ending {
	if o.rare == nil {
		return nil
	}
	return o.rare.ending
}
