package fanout

import (
	"context"
	"time"
)

// lists is what an Outbox holds of frames made by NewList, under its lock.
type lists struct {
	bytes   int64
	writing []*Frame      // taken by the owner and not yet written
	room    chan struct{} // nil until somebody waits for it; closed when there is room
}

// size is the number of bytes; l may be nil.
func (l *lists) size() int64 {
	if l == nil {
		return 0
	}
	return l.bytes
}

func (l *lists) wake() {
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
}

// AwaitRoom waits until a list of about size bytes may be queued: while more
// lists wait for this client than the bound of an Outbox, and while more than
// half of what may wait for all clients does. So a client that asks for many
// large lists receives them as fast as it reads, and one that does not read is
// disconnected by the write timeout, with little queued. It returns early when
// the Outbox is closed, and does not wait before Release or for longer than the
// write timeout. release gives the place back once the list is queued, or is not
// going to be. The error is ctx's.
func (o *Outbox) AwaitRoom(ctx context.Context, size int64) (release func(), err error) {
	e := o.flusher.engine
	release = func() { e.coming.Add(-size) }
	if o.listRoom() == nil && e.reserve(size) {
		return release, nil // without a timer
	}
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
	// maxRoomPause is how long AwaitRoom waits at most between two looks at what
	// waits for all clients.
	maxRoomPause = 100 * time.Millisecond
	// smallList never waits for what others have not read.
	smallList = 64 << 10
)

// reserve takes size bytes of the half of the total bound that lists may fill,
// and reports whether there was room. One list always fits.
func (e *Engine) reserve(size int64) bool {
	coming := e.coming.Add(size)
	if size <= smallList || coming == size && e.Waiting() == 0 || e.Waiting()+coming <= e.cfg.MaxTotal/2 {
		return true
	}
	e.coming.Add(-size)
	return false
}

// listRoom returns a channel that is closed when a list may be queued, or nil if
// one may be now.
func (o *Outbox) listRoom() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held || o.closed || o.lists.size() <= int64(o.flusher.engine.cfg.MaxBytes) {
		return nil
	}
	if o.lists.room == nil {
		o.lists.room = make(chan struct{})
	}
	return o.lists.room
}

func (o *Outbox) heldOrClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.held || o.closed
}

// addListLocked counts a list of n bytes that is about to be queued.
func (o *Outbox) addListLocked(f *Frame, n int64) {
	if o.lists == nil {
		o.lists = &lists{}
	}
	o.lists.bytes += n
	o.bytes.Add(n)
	if f.refs.Add(1) == 1 {
		f.size.Add(n)
		o.flusher.waiting.Add(n)
	}
}

// takenLocked notes that the owner has taken frames of so many bytes.
func (o *Outbox) takenLocked(frames []*Frame, bytes int64) {
	if o.lists != nil {
		for _, f := range frames {
			if f.list {
				bytes -= int64(len(f.Bytes(o.form)))
				o.lists.writing = append(o.lists.writing, f)
			}
		}
	}
	o.writing += bytes
}

// listsWrittenLocked takes the lists that were being written off what waits.
func (o *Outbox) listsWrittenLocked() {
	for _, f := range o.lists.writing {
		o.releaseListLocked(f)
	}
	clear(o.lists.writing)
	o.lists.writing = o.lists.writing[:0]
	if o.lists.bytes <= int64(o.flusher.engine.cfg.MaxBytes) {
		o.lists.wake()
	}
	if o.lists.bytes == 0 {
		o.lists = nil
	}
}

func (o *Outbox) releaseListLocked(f *Frame) {
	n := int64(len(f.Bytes(o.form)))
	o.lists.bytes -= n
	o.bytes.Add(-n)
	if f.refs.Add(-1) == 0 {
		o.flusher.waiting.Add(-f.size.Swap(0))
	}
}

// dropListsLocked takes all lists off what waits.
func (o *Outbox) dropListsLocked() {
	if o.lists == nil {
		return
	}
	for _, f := range o.queue.waiting() {
		if f.list {
			o.releaseListLocked(f)
		}
	}
	o.listsWrittenLocked() // those taken, too
}
