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

// batch has the bytes of one write: one frame, or several that are joined. Successive
// connections usually have the same frames queued, so the joined bytes are kept for the
// next connection.
type batch struct {
	joined *[]byte  // from scratch, or nil
	frames []*Frame // the frames in joined
	form   Form
	made   int64 // when the first Frame of the last write was made; 0 if that is not known
	taken  int   // frames since the last call of sent.add
	bytes  int   // of these, and of control frames
}

var scratch = sync.Pool{New: func() any { b := make([]byte, 0, batchBytes); return &b }}

// release forgets the frames and returns the buffer to the pool.
func (b *batch) release() {
	b.forget()
	if b.joined != nil {
		scratch.Put(b.joined)
		b.joined = nil
	}
}

// forget drops the references to the frames, so that they can be collected.
func (b *batch) forget() {
	clear(b.frames)
	b.frames = b.frames[:0]
}

// takeLocked removes the frames of the next write from o, control frames first, up to
// batchBytes, and returns their bytes, which are valid until the next call.
func (b *batch) takeLocked(o *Outbox) (p []byte) {
	waiting := o.queue.waiting()
	total, n := 0, 0
	for _, f := range waiting {
		size := len(f.Bytes(o.form))
		if n > 0 && total+size > batchBytes {
			break
		}
		total += size
		n++
	}
	frames := waiting[:n]
	b.made = 0
	if n > 0 {
		b.made = frames[0].made
	}
	switch {
	case o.control != nil:
		b.start()
		for _, c := range o.control {
			*b.joined = append(*b.joined, c...)
		}
		o.control = nil
		if len(*b.joined)+total > batchBytes { // leave the frames for the next write
			frames = nil
			total = 0
		}
		b.join(frames, o.form)
		b.forget() // the control frames are only for this connection
		p = *b.joined
	case n == 1:
		p = frames[0].Bytes(o.form)
	case n > 1:
		if b.form != o.form || !slices.Equal(b.frames, frames) {
			b.start()
			b.join(frames, o.form)
		}
		p = *b.joined
	}
	o.takenLocked(frames, int64(total))
	o.dequeueLocked(len(frames))
	b.taken += len(frames)
	b.bytes += len(p)
	return p
}

func (b *batch) start() {
	if b.joined == nil {
		b.joined = scratch.Get().(*[]byte)
	}
	*b.joined = (*b.joined)[:0]
	b.forget()
}

func (b *batch) join(frames []*Frame, form Form) {
	for _, f := range frames {
		*b.joined = append(*b.joined, f.Bytes(form)...)
	}
	b.frames = append(b.frames, frames...)
	b.form = form
}

// flush writes once for o, in a pass of its flusher, which owns o. If the write could
// block, flush passes o to a drain.
func (o *Outbox) flush(b *batch) {
	o.mu.Lock()
	if !o.restLocked() {
		o.mu.Unlock()
		return
	}
	if puller, ok := o.puller(); ok {
		o.owned = false // before Wake, so that a frame that is queued from now on calls Wake again
		o.mu.Unlock()
		puller.Wake()
		return
	}
	if o.direct == nil || o.queue == nil && o.closed { // Finish can block, too
		o.mu.Unlock()
		o.startDrain(nil)
		return
	}
	p := b.takeLocked(o)
	o.mu.Unlock()

	n, err := o.direct.TryWrite(p)
	if err == nil && n < len(p) {
		o.mu.Lock()
		o.endingLocked().writing = b.made
		o.mu.Unlock()
		o.startDrain(bytes.Clone(p[n:]))
		return
	}
	o.mu.Lock()
	o.writtenLocked()
	if err != nil {
		o.owned = false
	} else if o.restLocked() {
		o.flusher.add(o)
	}
	o.mu.Unlock()
	if err != nil {
		o.end.(Socket).Broken()
		o.Lost(err)
	}
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
	o.flusher.engine.running.Add(1)
	go o.drain(rest)
}

// drain writes until no frame is queued, and then gives up the ownership of o. If o is
// closed, it ends with the close frame.
func (o *Outbox) drain(p []byte) {
	e := o.flusher.engine
	defer e.running.Done()
	writer := o.end.(Writer)
	var b batch
	defer b.release()
	for {
		if len(p) > 0 {
			err := writeAll(writer, p, e.cfg.WriteTimeout)
			o.mu.Lock()
			o.writtenLocked()
			if err != nil {
				o.owned = false
			}
			o.mu.Unlock()
			if err != nil {
				o.Lost(err)
				return
			}
		}
		o.mu.Lock()
		if !o.restLocked() {
			o.mu.Unlock()
			return
		}
		p = b.takeLocked(o)
		o.endingLocked().writing = b.made
		o.flusher.sent.add(&b)
		code, reason := o.closeFrameLocked()
		o.mu.Unlock()
		if len(p) == 0 { // o is closed, and no frame is queued
			writer.Finish(code, reason, e.cfg.WriteTimeout)
			o.mu.Lock()
			o.endLocked()
			o.owned = false
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
