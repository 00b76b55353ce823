package fanout

import "sync"

// queue has the queued frames of one Outbox, in order. To save memory, an Outbox has a
// queue only while frames are queued. A nil queue is empty.
type queue struct {
	frames []*Frame
	head   int // index of the first queued frame
}

// keptQueue is the largest capacity of a queue that is returned to the pool.
const keptQueue = 64

var queues = sync.Pool{New: func() any { return &queue{frames: make([]*Frame, 0, 8)} }}

func (q *queue) waiting() []*Frame {
	if q == nil {
		return nil
	}
	return q.frames[q.head:]
}

func (q *queue) push(f *Frame) { q.frames = append(q.frames, f) }

// drop removes the first n frames. It moves the remaining frames to the front when the
// unused part in front of them is large, because a queue that is never empty would
// otherwise grow without limit.
func (q *queue) drop(n int) {
	clear(q.frames[q.head : q.head+n])
	q.head += n
	if q.head == len(q.frames) || q.head >= keptQueue && q.head > len(q.frames)/2 {
		left := copy(q.frames, q.frames[q.head:])
		clear(q.frames[max(left, q.head):])
		q.frames = q.frames[:left]
		q.head = 0
	}
}

// dequeueLocked removes n frames. If the queue is then empty, it is released, unless the client
// must be told of frames that were omitted.
func (o *Outbox) dequeueLocked(n int) {
	q := o.queue
	if q == nil {
		return
	}
	if o.rare != nil {
		n = o.rare.marks.pass(q, n)
	}
	q.drop(n)
	if len(q.frames) == 0 && o.rare != nil {
		o.backlogTakenLocked()
	}
	if len(q.frames) == 0 {
		if cap(q.frames) <= keptQueue {
			queues.Put(q)
		}
		o.queue = nil
	}
}
