package fanout

import (
	"context"
	"math"
	"time"
)

// lists accounts for the frames of an Outbox that NewList returned. The zero value has none. The
// Outbox's lock guards it.
type lists struct {
	bytes   int64
	writing []*Frame      // taken, and not yet written
	room    chan struct{} // nil until a caller waits for it; closed when there is room
}

func (l *lists) wake() {
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
}

// AwaitRoom waits until a list of about size bytes can be queued. It waits while the queued
// lists of this client exceed MaxBytes, and while the queued bytes of all clients exceed
// half of MaxTotal. So a client that requests many large lists receives them as fast as it
// reads, and a client that does not read is disconnected by the write timeout while few
// bytes are queued. AwaitRoom returns early when the Outbox is closed. It does not wait
// before Release, nor for longer than the write timeout. The caller must call release when
// the list is queued, or will not be queued. The only error is that of ctx.
func (o *Outbox) AwaitRoom(ctx context.Context, size int64) (release func(), err error) {
	e := o.flusher.engine
	release = func() { e.coming.Add(-size) }
	if o.listRoom() == nil && e.reserve(size) {
		return release, nil // the common case needs no timer
	}
	o.Uncork() // the caller is the one that has called Cork
	timeout := time.NewTimer(e.cfg.WriteTimeout)
	defer timeout.Stop()
	expired := false
	for room := o.listRoom(); room != nil && !expired; room = o.listRoom() {
		select {
		case <-room:
		case <-timeout.C:
			expired = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	pause := time.Millisecond
	for !e.reserve(size) {
		if expired || o.heldOrClosed() {
			e.coming.Add(size)
			break
		}
		retry := time.NewTimer(pause)
		select {
		case <-retry.C:
			pause = min(2*pause, maxRoomPause)
		case <-timeout.C:
			expired = true
		case <-ctx.Done():
			retry.Stop()
			return nil, ctx.Err()
		}
		retry.Stop()
	}
	return release, nil
}

const (
	// maxRoomPause is the longest time between two checks by AwaitRoom of the queued bytes
	// of all clients.
	maxRoomPause = 100 * time.Millisecond
	// smallList is the size up to which a list does not wait for other clients.
	smallList = 64 << 10
)

// reserve reserves size bytes of the half of MaxTotal that lists can fill, and reports
// whether there was room. If nothing is queued or reserved, a list of any size fits.
func (e *Engine) reserve(size int64) bool {
	coming := e.coming.Add(size)
	if size <= smallList || coming == size && e.Waiting() == 0 || e.Waiting()+coming <= e.cfg.MaxTotal/2 {
		return true
	}
	e.coming.Add(-size)
	return false
}

// listRoom returns a channel that is closed when a list can be queued, or nil if it can be
// queued now.
func (o *Outbox) listRoom() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held || o.closed || o.listBytesLocked() <= int64(o.flusher.engine.cfg.MaxBytes) {
		return nil
	}
	l := &o.rare.lists
	if l.room == nil {
		l.room = make(chan struct{})
	}
	return l.room
}

func (o *Outbox) heldOrClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.held || o.closed
}

// addListLocked accounts for a list of n bytes that is about to be queued.
func (o *Outbox) addListLocked(f *Frame, n int64) {
	o.rareLocked().lists.bytes += n
	o.bytes += n
	if f.refs.Add(1) == 1 {
		counted := uint32(min(n, math.MaxInt32))
		f.size.Add(counted)
		o.flusher.waiting.Add(int64(counted))
	}
}

// takenLocked records that frames with that number of bytes are being written.
func (o *Outbox) takenLocked(frames []*Frame, bytes int64) {
	r := o.rareLocked()
	for _, f := range frames {
		if f.list {
			bytes -= int64(len(f.Bytes(o.form)))
			r.lists.writing = append(r.lists.writing, f)
		}
	}
	r.writing += bytes
}

// listsWrittenLocked subtracts the lists that were being written from the queued bytes.
func (o *Outbox) listsWrittenLocked() {
	l := &o.rare.lists
	for _, f := range l.writing {
		o.releaseListLocked(f)
	}
	clear(l.writing)
	l.writing = l.writing[:0]
	if l.bytes <= int64(o.flusher.engine.cfg.MaxBytes) {
		l.wake()
	}
}

func (o *Outbox) releaseListLocked(f *Frame) {
	n := int64(len(f.Bytes(o.form)))
	o.rare.lists.bytes -= n
	o.bytes -= n
	if f.refs.Add(-1) == 0 {
		o.flusher.waiting.Add(-int64(f.size.Swap(0)))
	}
}

// dropListsLocked subtracts all lists from the queued bytes.
func (o *Outbox) dropListsLocked() {
	for _, f := range o.waitingLocked() {
		if f.list {
			o.releaseListLocked(f)
		}
	}
	o.listsWrittenLocked() // also those that are being written
}
