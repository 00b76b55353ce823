package hub

import (
	"sync/atomic"

	"github.com/gopushy/pushy/internal/fanout"
)

const (
	// runLength is the number of events of a run.
	runLength = 16
	// maxRunText is the largest size of the messages of a run. What a socket does not accept
	// of a frame is copied for each client, so a frame should not be large.
	maxRunText = 16 << 10
	// runOverhead is the number of bytes that a run takes beside its messages.
	runOverhead = 200
)

// run has the frames of consecutive events that are replayed as one: after a failure of the
// network, thousands of clients have missed the same events, and queueing each of these for
// each client would cost more than writing them.
//
// Most runs have runLength events and begin at an offset that is a multiple of it, so clients
// with different positions share them. The tail has all events from an offset to the newest, for
// clients with the same position.
type run struct {
	first  uint64   // the offset of the first event
	length uint64   // the number of events
	except []string // the ids of the connections that do not receive all of its events
	size   int64    // what counts towards Config.MaxKept
	frames [2]atomic.Pointer[fanout.Frame]
}

func (r *run) slot(form fanout.Form) *atomic.Pointer[fanout.Frame] {
	return &r.frames[form-fanout.Framed]
}

// has reports whether the run has its frame in one form already.
func (r *run) has(form fanout.Form) bool { return r.slot(form).Load() != nil }

// frame returns the run in one form, which Joins. If it does not have it yet, it makes it
// from the texts of its events.
func (r *run) frame(form fanout.Form, texts [][]byte) *fanout.Frame {
	slot := r.slot(form)
	if slot.Load() == nil {
		slot.CompareAndSwap(nil, fanout.NewRun(texts, form))
	}
	return slot.Load()
}

// texts returns the messages of the events of a run.
func (r *ring) texts(of *run) [][]byte {
	texts := make([][]byte, of.length)
	for i := range texts {
		texts[i] = r.at(of.first + uint64(i)).text
	}
	return texts
}

// runFrame returns the frame of a run.
func (r *ring) runFrame(of *run, form fanout.Form) *fanout.Frame {
	if of.has(form) {
		return of.frame(form, nil)
	}
	return of.frame(form, r.texts(of))
}

// runAt returns the run that begins at an offset, or nil if there is none.
func (r *ring) runAt(offset uint64) *run {
	if offset%runLength != 0 || offset+runLength-1 > r.last {
		return nil
	}
	if found, ok := r.runs[offset]; ok {
		return found
	}
	if r.runs == nil {
		r.runs = map[uint64]*run{}
	}
	made := r.newRun(offset, runLength)
	r.runs[offset] = made
	return made
}

// newRun returns nil if the events are too large.
func (r *ring) newRun(offset, length uint64) *run {
	made := &run{
		first:  offset,
		length: length,
	}
	text := 0
	for i := range length {
		p := r.at(offset + i)
		made.except = append(made.except, p.except...)
		text += len(p.text)
		if text > maxRunText {
			return nil
		}
	}
	made.size = int64(text + runOverhead)
	r.bytes += made.size
	r.framed = true
	return made
}

// tail is the run of all events from first to last. It is made for the second client that asks
// for them, because most positions are those of one client.
type tail struct {
	first, last uint64
	made        bool // run was made, unless the events are too large
	run         *run
}

// askTail notes that a client is sent the events from an offset on.
func (r *ring) askTail(from uint64) {
	t := &r.tail
	switch {
	case from >= r.last:
	case t.first != from || t.last != r.last:
		r.dropTail()
		t.first = from
		t.last = r.last
	case !t.made:
		t.made = true
		t.run = r.newRun(from, r.last-from+1)
	}
}

// tailFrom returns the run of all events from an offset on, or nil if there is none.
func (r *ring) tailFrom(offset uint64) *run {
	if r.tail.first != offset || r.tail.last != r.last {
		return nil
	}
	return r.tail.run
}

func (r *ring) dropTail() {
	if r.tail.run != nil {
		r.bytes -= r.tail.run.size
	}
	r.tail = tail{}
}

// dropRunOf drops the run that has the event with an offset.
func (r *ring) dropRunOf(offset uint64) {
	begin := offset - offset%runLength
	if dropped := r.runs[begin]; dropped != nil {
		r.bytes -= dropped.size
	}
	delete(r.runs, begin)
}

// replay yields the events from an offset on that are for the client of p: a run, or else the
// frame of one event.
func (r *ring) replay(from uint64, p *pastRequest) func(yield func(*run, *fanout.Frame) bool) {
	return func(yield func(*run, *fanout.Frame) bool) {
		if all := r.tailFrom(from); all != nil && p.form.Joins() && !p.excepted(all.except) {
			yield(all, nil)
			return
		}
		for offset := from; offset <= r.last; {
			if p.form.Joins() { // the other transports need each message by itself
				if run := r.runAt(offset); run != nil && !p.excepted(run.except) {
					if !yield(run, nil) {
						return
					}
					offset += runLength
					continue
				}
			}
			if !p.excepted(r.at(offset).except) && !yield(nil, r.frame(offset)) {
				return
			}
			offset++
		}
	}
}
