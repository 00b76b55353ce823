package fanout

import (
	"bytes"
	"slices"
	"sync"
	"time"
)

// batchBytes is the largest number of bytes that are joined for one write. A larger frame is
// written alone.
const batchBytes = 64 << 10

// content has the bytes of one write: one frame, or several that are joined.
type content struct {
	frames []*Frame // what p has; none if p has control frames
	over   *Frame   // the frame after these, which did not fit, or nil
	form   Form
	first  int64 // when frames[0] was made
	p      []byte
	joined *[]byte // from scratch, or nil; p is a part of it if there are several frames
}

// batch has the content of the last write. Successive connections usually have the same frames
// queued, so it is kept for the next connection.
type batch struct {
	content
	others []content // of the last writes in other forms, see turn
	made   int64     // when the first Frame of the last write was made; 0 if that is not known
	taken  int       // frames since the last call of sent.add
	bytes  int       // of these, and of control frames
	done   int64     // the bytes that are to be subtracted from flusher.waiting
	free   *queue    // a chain of queues that are not needed, see takeQueue
	frees  int       // their number

	indirect time.Duration // what the writes of the pass cost that other goroutines make
}

var scratch = sync.Pool{New: func() any { b := make([]byte, 0, batchBytes); return &b }}

// release forgets the frames and returns the buffers and the queues to the pools.
func (b *batch) release() {
	b.content.release()
	b.releaseOthers()
	putQueues(b.free)
	b.free = nil
	b.frees = 0
}

// releaseOthers is release for the contents of other forms than that of the last write. It is called
// for each pass, so that the bytes of a form that no connection has any more are not kept.
func (b *batch) releaseOthers() {
	for i := range b.others {
		b.others[i].release()
	}
	b.others = b.others[:0]
}

// release forgets the frames and returns the buffer to the pool.
func (c *content) release() {
	c.forget()
	if c.joined != nil {
		scratch.Put(c.joined)
		c.joined = nil
	}
}

// leave gives the bytes of the last write to a goroutine that still writes them.
func (b *batch) leave() {
	b.forget()
	b.joined = nil
}

// forget drops the references to the frames, so that they can be collected.
func (c *content) forget() {
	clear(c.frames)
	c.frames = c.frames[:0]
	c.over = nil
	c.p = nil
}

// takeLocked removes the frames of the next write from o, control frames first, up to
// batchBytes, and returns their bytes, which are valid until the next call. size is the number of
// bytes of the frames. Without direct, or if o.rare is set, these bytes count as being written.
func (b *batch) takeLocked(o *Outbox, direct bool) (p []byte, size int64) {
	waiting := o.waitingLocked()
	n := len(waiting)
	switch {
	case o.rare != nil && o.rare.control.queued():
		n, size = b.joinControlLocked(o, waiting)
		p = b.p
		b.p = nil // the control frames are only for this connection
	case n == 0:
		b.made = 0
	default:
		if !b.fits(waiting, o.form) && !(b.turn(o.form) && b.fits(waiting, o.form)) {
			b.fill(waiting, o.form)
		}
		n = len(b.frames)
		p = b.p
		size = int64(len(p))
		b.made = b.first
	}
	if !direct || o.rare != nil {
		o.takenLocked(waiting[:n], size)
	}
	b.taken += n - o.holesLocked(waiting[:n])
	if q := o.dequeueLocked(n); q != nil {
		b.freeQueue(q)
	}
	b.bytes += len(p)
	return p, size
}

// fits reports whether c is the next write for a connection for which these frames wait.
func (c *content) fits(waiting []*Frame, form Form) bool {
	n := len(c.frames)
	return n > 0 && form == c.form && (len(waiting) == n || len(waiting) > n && waiting[n] == c.over) &&
		slices.Equal(c.frames, waiting[:n])
}

// turn is called before a write in a form that can differ from that of the last write. It makes the
// last content in that form the current one, and reports whether there is one. The connections of a
// pass are not sorted by form: without others, each change of the form would join the frames again.
func (b *batch) turn(form Form) bool {
	if form == b.form {
		return false
	}
	for i := range b.others {
		if b.others[i].form == form {
			b.content, b.others[i] = b.others[i], b.content
			return true
		}
	}
	if n := len(b.others); len(b.frames) > 0 {
		if n < cap(b.others) {
			b.others = b.others[:n+1] // an empty content of an earlier pass
		} else {
			b.others = append(b.others, content{})
		}
		b.content, b.others[n] = b.others[n], b.content
	}
	return false
}

// fill makes b the first frames of waiting, of which there is at least one.
func (b *batch) fill(waiting []*Frame, form Form) {
	b.forget()
	n, _ := fitting(waiting, form, batchBytes)
	b.frames = append(b.frames, waiting[:n]...)
	b.form = form
	b.first = waiting[0].made
	if n < len(waiting) {
		b.over = waiting[n]
	}
	if n == 1 {
		b.p = waiting[0].Bytes(form)
		return
	}
	b.start()
	b.join(b.frames, form)
	b.p = *b.joined
}

// joinControlLocked makes b the control frames of o, which it removes, and the first frames of
// waiting that fit. It returns the number of these, and of their bytes.
func (b *batch) joinControlLocked(o *Outbox, waiting []*Frame) (n int, size int64) {
	b.forget()
	b.start()
	for _, wire := range o.rare.control {
		*b.joined = append(*b.joined, wire...)
	}
	o.rare.control = control{}
	before := len(*b.joined)
	n, bytes := fitting(waiting, o.form, batchBytes)
	if before+bytes > batchBytes { // leave the frames for the next write
		n = 0
	}
	b.made = 0
	if n > 0 {
		b.made = waiting[0].made
	}
	b.join(waiting[:n], o.form)
	b.p = *b.joined
	return n, int64(len(b.p) - before)
}

// fitting returns how many of the first frames have together at most that many bytes, but at least
// one if there is one, and their bytes.
func fitting(frames []*Frame, form Form, most int) (n, bytes int) {
	for _, f := range frames {
		size := len(f.Bytes(form))
		if n > 0 && bytes+size > most {
			break
		}
		bytes += size
		n++
	}
	return n, bytes
}

func (b *batch) start() {
	if b.joined == nil {
		b.joined = scratch.Get().(*[]byte)
	}
	*b.joined = (*b.joined)[:0]
}

func (b *batch) join(frames []*Frame, form Form) {
	for _, f := range frames {
		*b.joined = append(*b.joined, f.Bytes(form)...)
	}
}

// freeQueue keeps a queue that is not needed for the pool.
func (b *batch) freeQueue(q *queue) {
	q.next = b.free
	b.free = q
	b.frees++
	if b.frees == queueChain {
		putQueues(b.free)
		b.free = nil
		b.frees = 0
	}
}

// flush writes once for o, in a pass of its flusher. If the write could block, flush passes o to
// a drain. While flush writes, o can be put on the list again; the next pass of the same flusher
// follows this one, so frames remain in order. The results are those of flusher.writeNow.
func (o *Outbox) flush(b *batch) (relieved bool, err error) {
	o.mu.Lock()
	o.listed = false
	if o.drains || !o.pendingLocked() {
		o.mu.Unlock()
		return false, nil
	}
	if puller, ok := o.puller(); ok {
		o.mu.Unlock()
		b.indirect += puller.Wake()
		return false, nil
	}
	if o.direct == nil || o.closed && len(o.waitingLocked()) == 0 { // Finish can block, too
		o.drains = true
		o.mu.Unlock()
		b.indirect += IndirectCost
		o.startDrain(nil)
		return false, nil
	}
	p, size := b.takeLocked(o, true)
	counted := o.rare != nil // as being written
	if !counted {
		o.bytes -= size
		b.done += size
	}
	if o.pendingLocked() {
		o.wakeLocked() // notices can have done so, see backlogTakenLocked
	}
	o.mu.Unlock()

	n, err := o.direct.TryWrite(p)
	if err == nil && n == len(p) && !counted {
		return false, nil
	}
	t := taken{
		o:       o,
		size:    size,
		counted: counted,
		made:    b.made,
	}
	if err == ErrGuard {
		n = len(p)
		if relieved, err = o.flusher.writeNow(p, t); relieved {
			return true, err
		}
	}
	o.mu.Lock()
	if err == nil && n == len(p) {
		if counted {
			o.writtenLocked()
		}
		o.mu.Unlock()
		return false, nil
	}
	t.unwrittenLocked()
	if err == nil {
		o.drainLocked()
		b.indirect += IndirectCost
		o.mu.Unlock()
		o.startDrain(bytes.Clone(p[n:]))
		return false, nil
	}
	o.mu.Unlock()
	o.end.(Socket).Broken()
	o.Lost(err)
	return false, nil
}

// puller returns o's endpoint if that is a Puller.
func (o *Outbox) puller() (p Puller, ok bool) {
	if o.direct == nil { // an endpoint with a Direct is a Writer: skip the type assertion
		p, ok = o.end.(Puller)
	}
	return p, ok
}

// startDrain passes o to a drain, which writes rest before the queued frames.
func (o *Outbox) startDrain(rest []byte) {
	e := o.flusher.engine
	e.running.Add(1)
	go func() {
		defer e.running.Done()
		o.drain(rest)
	}()
}

// drain writes until no frame is queued. If o is closed, it ends with the close frame.
func (o *Outbox) drain(p []byte) {
	e := o.flusher.engine
	writer := o.end.(Writer)
	var b batch
	defer b.release()
	for {
		if len(p) > 0 {
			err := writeAll(writer, p, e.cfg.WriteTimeout)
			o.mu.Lock()
			o.writtenLocked()
			if err != nil {
				o.drains = false
			}
			o.mu.Unlock()
			if err != nil {
				o.Lost(err)
				return
			}
		}
		o.mu.Lock()
		if !o.pendingLocked() {
			o.drains = false
			o.mu.Unlock()
			return
		}
		p, _ = b.takeLocked(o, false)
		o.rareLocked().made = b.made
		o.flusher.sent.add(&b)
		code, reason := o.closeFrameLocked()
		o.mu.Unlock()
		if len(p) == 0 { // o is closed, and no frame is queued
			writer.Finish(code, reason, e.cfg.WriteTimeout)
			o.mu.Lock()
			o.endLocked()
			o.drains = false
			o.mu.Unlock()
			return
		}
	}
}

// writeBytes is the most that is written within one timeout. A slow client that does read
// can need more than one timeout for a list of several megabytes.
const writeBytes = 256 << 10

// writeAll writes p in parts of up to writeBytes, each within timeout.
func writeAll(w Writer, p []byte, timeout time.Duration) error {
	for len(p) > 0 {
		n := min(len(p), writeBytes)
		if err := w.Write(p[:n], timeout); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
