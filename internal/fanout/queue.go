package fanout

import "sync"

// queue is what waits in one Outbox, in order. An Outbox has one only while
// something waits, so an idle connection holds none. A nil one is empty.
type queue struct {
	frames []*Frame
	head   int // of those that wait
}

// keptQueue is how large a queue may have grown to be used again.
const keptQueue = 64

var queues = sync.Pool{New: func() any { return &queue{frames: make([]*Frame, 0, 8)} }}

func (q *queue) waiting() []*Frame {
	if q == nil {
		return nil
	}
	return q.frames[q.head:]
}

func (q *queue) push(f *Frame) { q.frames = append(q.frames, f) }

// drop takes the first n out. What is in front of a queue that never gets
// empty must not grow.
func (q *queue) drop(n int) {
	clear(q.frames[q.head : q.head+n])
	q.head += n
	if q.head == len(q.frames) || q.head >= keptQueue && q.head > len(q.frames)/2 {
		left := copy(q.frames, q.frames[q.head:])
		clear(q.frames[max(left, q.head):])
		q.frames, q.head = q.frames[:left], 0
	}
}

// dequeueLocked takes n frames out, and lets go of a queue that is empty.
func (o *Outbox) dequeueLocked(n int) {
	if o.queue == nil {
		return
	}
	o.queue.drop(n)
	if len(o.queue.frames) == 0 {
		if cap(o.queue.frames) <= keptQueue {
			queues.Put(o.queue)
		}
		o.queue = nil
	}
}
