package fanout

import "sync"

// queue has the queued frames of one Outbox, in order. To save memory, an Outbox has a queue only
// while more than one frame is queued, see Outbox.one. A nil queue is empty.
type queue struct {
	frames []*Frame
	head   int                 // index of the first queued frame
	next   *queue              // in a chain of queues that no Outbox has
	place  [queuePlaces]*Frame // frames begins here, and moves if there are more
}

const (
	// queuePlaces makes a queue two cache lines long, of which a few frames use only the first.
	queuePlaces = 11
	// keptQueue is the largest capacity of an array that is kept for the next Outbox.
	keptQueue = 64
	// queueChain is the number of queues that are returned to the pool at once.
	queueChain = 64
)

// queues has chains of queues, because a pool takes more time than the rest of a delivery.
var queues = sync.Pool{New: func() any {
	q := &queue{}
	q.frames = q.place[:0]
	return q
}}

// takeQueue takes a queue from a chain, which it takes from the pool if there is none.
func takeQueue(chain **queue) *queue {
	q := *chain
	if q == nil {
		q = queues.Get().(*queue)
	}
	*chain = q.next
	q.next = nil
	return q
}

// putQueues returns a chain to the pool. It can be nil.
func putQueues(chain *queue) {
	if chain != nil {
		queues.Put(chain)
	}
}

func (q *queue) waiting() []*Frame {
	if q == nil {
		return nil
	}
	return q.frames[q.head:]
}

func (q *queue) push(f *Frame) {
	if len(q.frames) == queuePlaces && cap(q.frames) == queuePlaces {
		q.frames = append(make([]*Frame, 0, keptQueue/2), q.frames...)
	}
	q.frames = append(q.frames, f)
}

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

// waitingLocked returns the queued frames.
func (o *Outbox) waitingLocked() []*Frame {
	if o.one[0] != nil {
		return o.one[:]
	}
	return o.queue.waiting()
}

// pushLocked appends a frame. If it needs a queue, it takes it from chain, see takeQueue.
func (o *Outbox) pushLocked(f *Frame, chain **queue) {
	q := o.queue
	if q == nil {
		one := o.one[0]
		if one == nil && f.omit == nil {
			o.one[0] = f
			return
		}
		q = takeQueue(chain)
		if one != nil {
			q.push(one)
			o.one[0] = nil
		}
		o.queue = q
	}
	q.push(f)
}

// queueLocked makes the queued frames, if there are any, those of o.queue, which Omit needs.
func (o *Outbox) queueLocked() {
	if f := o.one[0]; f != nil {
		var chain *queue
		o.queue = takeQueue(&chain)
		putQueues(chain)
		o.queue.push(f)
		o.one[0] = nil
	}
}

// dequeueLocked removes n frames. If the queue is then empty, it is returned, unless the client
// must be told of frames that were omitted.
func (o *Outbox) dequeueLocked(n int) (free *queue) {
	if n > 0 && o.one[0] != nil {
		o.one[0] = nil
		return nil
	}
	q := o.queue
	if q == nil {
		return nil
	}
	if o.rare != nil {
		n = o.rare.marks.pass(q, n)
	}
	q.drop(n)
	if len(q.frames) == 0 && o.rare != nil {
		o.backlogTakenLocked()
	}
	if len(q.frames) > 0 {
		return nil
	}
	if cap(q.frames) > keptQueue {
		q.frames = q.place[:0]
	}
	o.queue = nil
	return q
}
