package webhook

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

const (
	// maxStayBytes limits the records of one node that have only to stay until all nodes have
	// received them.
	maxStayBytes = 16 << 20
	maxRecord    = 64 << 10 // one event alone can be larger
	// eventBytes is what an event takes beside its data.
	eventBytes = 300
	// flushTime limits how long a shutdown waits until the events of this node are in the log.
	flushTime = handoverTime
	flushPoll = 100 * time.Millisecond
)

// outbox adds what happens at one moment, such as a client.event, to the log. There it is a record
// of several events, which is removed when all nodes have received it: a node that was cut off from
// the broker for less than its lease finds it in the next State, and one that was cut off for longer
// does not send.
type outbox struct {
	s    *Sender
	stay time.Duration // of a record in the log

	mu       sync.Mutex
	events   []event // oldest first
	bytes    int
	since    time.Time // when the first of them happened
	lost     int       // events that followed them and had no place
	tooLarge int
	wake     chan struct{} // has an element when there may be something to do

	// Only work uses these.
	records   int // counts those that were made
	staying   []staying
	stayBytes int
	current   string // the record that is not in the log yet
	written   int    // its size
}

// staying is a record that is to be removed.
type staying struct {
	id    string
	bytes int
	due   time.Time
}

func newOutbox(s *Sender) *outbox {
	return &outbox{
		s:    s,
		stay: 2 * s.hub.Lease(),
		wake: make(chan struct{}, 1),
	}
}

// push adds an event. It does not block.
func (o *outbox) push(e event) {
	e.ID = o.s.ids.next()
	e.At = time.Now().UnixMilli()
	if o.s.local {
		o.putLocal(record{Events: []event{e}})
		return
	}
	size := len(e.Data) + eventBytes
	o.mu.Lock()
	if o.lost > 0 || len(o.events) >= maxQueued || o.bytes+size > maxQueuedBytes && len(o.events) > 0 {
		o.lost++
	} else {
		if len(o.events) == 0 {
			o.since = time.Now()
		}
		o.events = append(o.events, e)
		o.bytes += size
	}
	o.mu.Unlock()
	o.signal()
}

// refuse counts an event that the broker does not accept because of its size.
func (o *outbox) refuse() {
	if o.s.local {
		o.putLocal(record{TooLarge: 1})
		return
	}
	o.mu.Lock()
	o.tooLarge++
	o.mu.Unlock()
	o.signal()
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// putLocal adds a record to a log that no other node follows, and removes it.
func (o *outbox) putLocal(r record) {
	id := o.s.writer.id(kindEvents, o.s.ids.next())
	r.Kind = kindEvents
	o.s.writer.add(id, r)
	o.s.writer.remove(id, ending{})
}

// take returns the next record, or how long to wait for more events. Without an event it returns
// forever.
func (o *outbox) take(now time.Time, hurry bool) (r record, size int, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r.Kind = kindEvents
	n := 0
	for n < len(o.events) && n < maxBatch {
		add := len(o.events[n].Data) + eventBytes
		if n > 0 && size+add > maxRecord {
			break
		}
		size += add
		n++
	}
	full := n == maxBatch || n < len(o.events)
	if wait = maxGather - now.Sub(o.since); n > 0 && !full && !hurry && wait > 0 {
		return r, 0, wait
	}
	r.Events = o.events[:n:n]
	o.events = o.events[n:]
	o.bytes -= size
	o.since = now
	if len(o.events) == 0 { // what was lost followed the events that are in r
		o.events = nil
		r.Lost = o.lost
		r.TooLarge = o.tooLarge
		o.lost = 0
		o.tooLarge = 0
	}
	if n == 0 && r.Lost == 0 && r.TooLarge == 0 {
		return r, 0, forever
	}
	return r, size + eventBytes, 0
}

// work writes the events until the Server has shut down.
func (o *outbox) work(stopping context.Context) {
	for stopping.Err() == nil {
		wait, _ := o.step(stopping, false)
		o.sleep(stopping, wait)
	}
	// The clients are disconnected only now, and can send until then.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(stopping), flushTime)
	defer cancel()
	for ctx.Err() == nil {
		wait, idle := o.step(ctx, true)
		if idle && o.s.hub.Admission().Len() == 0 {
			break
		}
		if wait != 0 {
			o.sleep(ctx, flushPoll)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.events) + o.lost + o.tooLarge; n > 0 || o.current != "" {
		o.s.log.Error("webhooks are lost: the broker has not accepted them before the shutdown",
			slog.String("name", o.s.opts.Name),
			slog.Int("events", n))
	}
}

// step writes one record. It returns how long to wait after that, and whether nothing waits.
func (o *outbox) step(ctx context.Context, hurry bool) (wait time.Duration, idle bool) {
	w := o.s.writer
	if o.current == "" {
		r, size, wait := o.take(time.Now(), hurry)
		if size == 0 {
			return o.sooner(wait), wait == forever
		}
		o.records++
		o.written = size
		o.current = w.id(kindEvents, strconv.Itoa(o.records))
		w.want(o.current, r)
	}
	if !w.try(ctx, o.current) {
		return o.sooner(appendPause), false
	}
	o.staying = append(o.staying, staying{
		id:    o.current,
		bytes: o.written,
		due:   time.Now().Add(o.stay),
	})
	o.stayBytes += o.written
	o.current = ""
	o.expire(time.Now())
	return 0, false
}

// sooner removes what has to be removed, and returns the time until that is to be done again, or
// wait if that is earlier.
func (o *outbox) sooner(wait time.Duration) time.Duration {
	now := time.Now()
	o.expire(now)
	if wait == forever && len(o.staying) > 0 {
		return max(o.staying[0].due.Sub(now), time.Millisecond)
	}
	return wait
}

// expire removes the records that have been in the log for long enough, and the oldest ones if
// they are too large together.
func (o *outbox) expire(now time.Time) {
	n := 0
	for n < len(o.staying) && (o.stayBytes > maxStayBytes || !o.staying[n].due.After(now)) {
		o.s.writer.remove(o.staying[n].id, ending{})
		o.stayBytes -= o.staying[n].bytes
		n++
	}
	clear(o.staying[:n])
	o.staying = o.staying[n:]
}

func (o *outbox) sleep(ctx context.Context, wait time.Duration) {
	if wait == 0 {
		return
	}
	var timeout <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-o.wake:
	case <-timeout:
	case <-ctx.Done():
	}
}
