package fanout

import (
	"maps"
	"slices"
)

// marks has what an Outbox must know of the queued frames that can be omitted, see Omit. The queued
// frames have numbers, in order: gone is that of the first one. The zero value has no marks. The
// Outbox's lock guards it.
type marks struct {
	gone  int
	holes int               // the number of queued frames that are hole
	noted []notedFrame      // frames with a key, in order, while there is no index
	index map[latestKey]int // the number of the newest frame with a key; nil until a search
	gates []*Gate           // those of omitted frames
}

// latestKey is the key of a frame. Each subscription has a Gate of its own, so a frame does not
// replace one of an earlier subscription to the same channel.
type latestKey struct {
	gate   *Gate
	latest string
}

type notedFrame struct {
	key latestKey
	at  int
}

// hole stands for a frame that was removed from the middle of a queue. It has no bytes. While the
// lock of the Outbox is free, neither the first nor the last frame of a queue is a hole.
var hole = RawFrame(nil)

// note records the key of the frame that is pushed next.
func (m *marks) note(q *queue, key latestKey) {
	at := m.gone + len(q.waiting())
	if m.index == nil {
		if m.noted == nil {
			m.noted = make([]notedFrame, 0, scanFrom)
		}
		if len(m.noted) == cap(m.noted) { // frames that were taken are not needed
			m.noted = slices.DeleteFunc(m.noted, func(n notedFrame) bool { return n.at < m.gone })
		}
		m.noted = append(m.noted, notedFrame{
			key: key,
			at:  at,
		})
		return
	}
	if len(m.index) > 2*len(q.waiting())+keptQueue {
		maps.DeleteFunc(m.index, func(_ latestKey, at int) bool { return at < m.gone })
	}
	m.index[key] = at
}

// find returns the number of the newest queued frame with a key, if the index has it.
func (m *marks) find(key latestKey) (at int, found bool) {
	at, found = m.index[key]
	return at, found && at >= m.gone
}

// place returns the place of the frame with a number.
func (m *marks) place(q *queue, number int) **Frame { return &q.waiting()[number-m.gone] }

// holesLocked returns how many of the first queued frames are holes, which are not written.
func (o *Outbox) holesLocked(frames []*Frame) (n int) {
	if o.rare == nil || o.rare.marks.holes == 0 {
		return 0
	}
	for _, f := range frames {
		if f == hole {
			n++
		}
	}
	return n
}

// pass returns the number of frames to drop if n frames have been taken: the holes that follow
// them are dropped as well.
func (m *marks) pass(q *queue, n int) int {
	if m.holes > 0 {
		waiting := q.waiting()
		for _, f := range waiting[:n] {
			if f == hole {
				m.holes--
			}
		}
		for n < len(waiting) && waiting[n] == hole {
			m.holes--
			n++
		}
	}
	m.gone += n
	return n
}

// remove removes the frame with a number. It leaves a hole, so that a removal does not move all
// frames that follow. When most frames are holes, they are removed.
func (m *marks) remove(q *queue, number int) {
	*m.place(q, number) = hole
	m.holes++
	if number == m.gone {
		q.drop(m.pass(q, 0))
	} else if m.holes > keptQueue && m.holes > len(q.waiting())/2 {
		m.removeHoles(q)
	}
}

func (m *marks) removeHoles(q *queue) {
	waiting := q.waiting()
	numbers := make([]int, len(waiting)) // the new ones
	n := 0
	for i, f := range waiting {
		numbers[i] = m.gone + n
		if f != hole {
			waiting[n] = f
			n++
		}
	}
	clear(waiting[n:])
	q.frames = q.frames[:q.head+n]
	m.holes = 0
	for key, at := range m.index {
		if at < m.gone {
			delete(m.index, key)
		} else {
			m.index[key] = numbers[at-m.gone]
		}
	}
}

func (m *marks) used() bool { return len(m.noted) > 0 || m.index != nil || len(m.gates) > 0 }

// reset forgets all marks, and returns the gates of omitted frames. The queue is empty, or is
// dropped.
func (m *marks) reset() (gates []*Gate) {
	gates = m.gates
	clear(m.noted)
	*m = marks{noted: m.noted[:0]}
	return gates
}
