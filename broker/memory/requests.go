package memory

import (
	"encoding/binary"
	"slices"
)

const (
	chunkSlots = 1 << 10
	// shortAnswer is the largest answer that a slot has room for. The answers to most requests
	// are shorter.
	shortAnswer = 47
	noAnswer    = 0xfe // sizes of a slot without an answer, and with one that is in long
	longAnswer  = 0xff
)

// requests has the records of signed requests. A record has a fixed size and no pointers: the
// garbage collector need not look at millions of them.
type requests struct {
	index  map[sum]uint32 // the number of the slot
	chunks []*[chunkSlots]slot
	free   []uint32          // slots that were used before
	used   uint32            // slots of chunks that were ever used
	long   map[uint32][]byte // answers that do not fit, by slot
	hand   uint32            // the slot that sweep checks next
}

type slot struct {
	key    sum
	digest sum
	until  int64             // 0 if the slot is free
	size   uint8             // of the answer
	short  [shortAnswer]byte // the answer, or the time of the claim if there is none
}

func (q *requests) at(n uint32) *slot { return &q.chunks[n/chunkSlots][n%chunkSlots] }

func (q *requests) find(key sum) (r record, ok bool) {
	n, ok := q.index[key]
	if !ok {
		return r, false
	}
	s := q.at(n)
	r = record{
		digest: s.digest,
		until:  s.until,
	}
	switch s.size {
	case noAnswer:
		r.claimed = int64(binary.NativeEndian.Uint64(s.short[:]))
	case longAnswer:
		r.answer = q.long[n]
	default:
		r.answer = s.short[:s.size:s.size]
	}
	return r, true
}

// store stores a copy of a record.
func (q *requests) store(key sum, r record) {
	n, ok := q.index[key]
	if !ok {
		n = q.take()
		q.index[key] = n
	}
	s := q.at(n)
	s.key, s.digest, s.until = key, r.digest, r.until
	switch {
	case r.answer == nil:
		s.size = noAnswer
		binary.NativeEndian.PutUint64(s.short[:], uint64(r.claimed))
		delete(q.long, n)
	case len(r.answer) > shortAnswer:
		s.size = longAnswer
		if q.long == nil {
			q.long = map[uint32][]byte{}
		}
		q.long[n] = slices.Clone(r.answer)
	default:
		s.size = uint8(copy(s.short[:], r.answer))
		delete(q.long, n)
	}
}

// take returns a free slot.
func (q *requests) take() uint32 {
	if q.index == nil {
		q.index = map[sum]uint32{}
	}
	if last := len(q.free) - 1; last >= 0 {
		n := q.free[last]
		q.free = q.free[:last]
		return n
	}
	if int(q.used) == len(q.chunks)*chunkSlots {
		q.chunks = append(q.chunks, new([chunkSlots]slot))
	}
	q.used++
	return q.used - 1
}

func (q *requests) remove(key sum) {
	n, ok := q.index[key]
	if !ok {
		return
	}
	delete(q.index, key)
	delete(q.long, n)
	*q.at(n) = slot{}
	q.free = append(q.free, n)
	if len(q.index) == 0 {
		*q = requests{} // frees the memory
	}
}

// sweep checks the next few slots.
func (q *requests) sweep(now int64) {
	for range min(sweepRecords, q.used) {
		q.hand = (q.hand + 1) % q.used
		if s := q.at(q.hand); s.until != 0 && now >= s.until {
			q.remove(s.key)
			if q.used == 0 {
				return
			}
		}
	}
}
