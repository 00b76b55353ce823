package hub

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
)

// ErrSlow ends a Listener whose queue is full.
var ErrSlow = errors.New("the listener does not take its events as fast as they arrive")

// GapSkipped is the reason of a Gap in place of the events that did not fit into the queue of a
// Listener.
const GapSkipped = "skipped"

// ListenerEvent is what a Listener receives. Its Data and Members are shared and must not be changed.
type ListenerEvent struct {
	Kind     EventKind // Published, Gap, Ended, Joined, Left, Updated or Members
	Channel  string
	Name     string          // of Published
	Data     []byte          // of Published; the member of Joined, Left and Updated as clients see it
	Members  [][]byte        // of Members
	From     string          // of Published: the member of the client that has sent it, or ""
	Position broker.Position // of Published, and of a Gap: the channel's place; zero if nothing is kept
	Time     time.Time
	Reason   string // of Gap and Ended
	Count    int    // of a Gap with GapSkipped
}

// eventOverhead is what a queued event takes beside its data.
const eventOverhead = 250

func (e *ListenerEvent) size() int {
	size := len(e.Data) + len(e.Name) + eventOverhead
	for _, m := range e.Members {
		size += len(m)
	}
	return size
}

// ofMembers reports whether the event is about the members of the channel.
func (e *ListenerEvent) ofMembers() bool {
	switch e.Kind {
	case Joined, Left, Updated, Members:
		return true
	}
	return false
}

// ListenerConfig configures a Listener.
type ListenerConfig struct {
	Presence  bool   // it receives the members of private channels
	Rewind    Rewind // what it receives first of channels that keep events
	MaxEvents int    // the limits of the queue
	MaxBytes  int
	Skip      bool // what does not fit is replaced by a Gap; otherwise the Listener ends with ErrSlow
}

// Listener is code of this process that receives the events of channels. It counts as a
// subscriber, and is neither a connection nor a member. Nothing that is queued for it makes a
// publisher wait. It has no goroutine. One goroutine at a time calls Next; all other methods are
// safe for concurrent use.
type Listener struct {
	hub *Hub
	cfg ListenerConfig

	mu        sync.Mutex
	channels  map[string]*subscription
	positions map[string]broker.Position // of the last events that were handled
	queue     []queuedEvent
	head      int // the index of the first queued event
	bytes     int
	err       error // what Next returns after the queue
	closed    bool  // Close was called: what is queued is not delivered

	replay *replay // whose events are being delivered

	wake chan struct{} // has an element if something has changed for Next

	last *queuedEvent // the last result, which has been handled when Next is called again; only Next uses it
}

// queuedEvent is an event in the queue of a Listener, or the place of a replay or of skipped events.
type queuedEvent struct {
	ListenerEvent
	in      *subscription
	replay  *replay
	skipped *skipped
}

// replay has the past events of a channel. It counts towards no limit of the queue: it is limited
// as the replay of a client.
type replay struct {
	in     *subscription
	events []ListenerEvent
	ready  bool // under the Listener's mu
}

// skipped describes events that did not fit into the queue.
type skipped struct {
	gap     ListenerEvent
	members bool // changes of the members are among them
}

// subscription is a Listener in a channel.
type subscription struct {
	listener *Listener
	name     string

	// The Listener's mu guards these.
	ch      *Channel // nil until it is open
	removed bool     // what is still queued is not delivered
	gap     *skipped // the last element of the channel in the queue, if that is one

	attached bool // it is in ch.listeners; ch.fan guards it
}

// Position returns the position of the last event of a channel that was handled, see Next. Before
// the first one, it is the place from which the Listener has followed the channel. It is zero if
// the channel keeps no events.
func (l *Listener) Position(channel string) broker.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.positions[channel]
}

func (l *Listener) wakeLocked() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// push queues an event. It does not block, and can be called under the fan of the channel.
func (s *subscription) push(e ListenerEvent) {
	l := s.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || s.removed {
		return
	}
	waiting := len(l.queue) - l.head
	full := waiting >= l.cfg.MaxEvents || l.bytes+e.size() > l.cfg.MaxBytes
	switch {
	case waiting == 0, !full, e.Kind == Ended:
		s.gap = nil
		l.bytes += e.size()
		l.queue = append(l.queue, queuedEvent{
			ListenerEvent: e,
			in:            s,
		})
	case l.cfg.Skip:
		s.skipLocked(&e)
	default:
		l.err = ErrSlow
	}
	l.wakeLocked()
}

// skipLocked puts a Gap in place of an event that does not fit into the queue. A Gap counts
// towards no limit, because each channel has at most one behind its last event.
func (s *subscription) skipLocked(e *ListenerEvent) {
	if s.gap == nil {
		s.gap = &skipped{gap: ListenerEvent{
			Kind:    Gap,
			Channel: e.Channel,
			Reason:  GapSkipped,
		}}
		s.listener.queue = append(s.listener.queue, queuedEvent{
			in:      s,
			skipped: s.gap,
		})
	}
	gap := &s.gap.gap
	switch {
	case e.Kind == Gap:
		gap.Reason = e.Reason
	case e.ofMembers():
		s.gap.members = true
	default:
		gap.Count++
	}
	gap.Time = e.Time
	if e.Position.Epoch != "" {
		gap.Position = e.Position
	}
}

// Next returns the next event, and waits for it. The event that the previous call has returned
// counts as handled. The error is that with which the Listener has ended.
func (l *Listener) Next() (ListenerEvent, error) {
	l.handled()
	for {
		l.mu.Lock()
		e, err := l.nextLocked()
		l.mu.Unlock()
		switch {
		case err != nil:
			return ListenerEvent{}, err
		case e != nil:
			l.last = e
			return e.ListenerEvent, nil
		}
		<-l.wake
	}
}

// handled records the position of the last event.
func (l *Listener) handled() {
	last := l.last
	l.last = nil
	if last == nil {
		return
	}
	if last.skipped != nil && last.skipped.members {
		last.in.pushMembers()
	}
	if last.Position.Epoch == "" {
		return
	}
	l.mu.Lock()
	if l.channels[last.Channel] == last.in || l.channels[last.Channel] == nil {
		l.positions[last.Channel] = last.Position
	}
	l.mu.Unlock()
}

// nextLocked returns the next event, or nil if there is none yet.
func (l *Listener) nextLocked() (*queuedEvent, error) {
	for {
		if l.closed {
			return nil, l.err
		}
		if r := l.replay; r != nil {
			if !r.ready && !r.in.removed {
				return nil, nil
			}
			if len(r.events) > 0 && !r.in.removed {
				e := queuedEvent{
					ListenerEvent: r.events[0],
					in:            r.in,
				}
				r.events = r.events[1:]
				return &e, nil
			}
			l.replay = nil
		}
		if l.head == len(l.queue) {
			l.queue = nil
			l.head = 0
			return nil, l.err
		}
		e := l.queue[l.head]
		l.queue[l.head] = queuedEvent{}
		l.head++
		l.compactLocked()
		switch {
		case e.replay != nil:
			l.replay = e.replay
		case e.skipped != nil:
			if e.in.gap == e.skipped {
				e.in.gap = nil
			}
			if e.in.removed {
				continue
			}
			e.ListenerEvent = e.skipped.gap
			return &e, nil
		default:
			l.bytes -= e.size()
			if !e.in.removed {
				return &e, nil
			}
		}
	}
}

// compactLocked moves the queue to the front of its memory if most of that is unused. Otherwise a
// queue that is never empty would grow without a limit.
func (l *Listener) compactLocked() {
	const least = 64
	if l.head < least || l.head <= len(l.queue)/2 {
		return
	}
	left := copy(l.queue, l.queue[l.head:])
	clear(l.queue[left:])
	l.queue = l.queue[:left]
	l.head = 0
}

// Remove ends the Listener's subscription of a channel. What is queued of it is not delivered.
// Remove reports whether there was one.
func (l *Listener) Remove(channel string) bool {
	l.mu.Lock()
	s := l.channels[channel]
	if s != nil {
		s.removed = true
		delete(l.channels, channel)
	}
	l.mu.Unlock()
	if s == nil {
		return false
	}
	s.leave()
	return true
}

// Channels returns the number of channels of the Listener.
func (l *Listener) Channels() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.channels)
}

// Add subscribes the Listener to a channel. If since is not nil, the Listener first receives the
// events after that position, and before them a Gap if these are not all. The errors are
// ErrAlreadyMember, ErrClosed, the error of ctx, a *RefusedError if the channel is banned, and an
// *UnavailableError.
func (l *Listener) Add(ctx context.Context, channel string, since *broker.Position) error {
	s := &subscription{
		listener: l,
		name:     channel,
	}
	l.mu.Lock()
	err := l.err
	if err == nil && l.channels[channel] != nil {
		err = ErrAlreadyMember
	}
	if err == nil {
		l.channels[channel] = s
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	if err = s.enter(ctx, since); err != nil {
		l.forget(s)
		s.leave()
	}
	return err
}

// forget removes the subscription of a channel, if it is the present one.
func (l *Listener) forget(s *subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.removed = true
	if l.channels[s.name] == s {
		delete(l.channels, s.name)
	}
	l.wakeLocked()
}
