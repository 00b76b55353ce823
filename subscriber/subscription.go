package subscriber

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/names"
)

// SubscribeOptions configure a Subscription. The zero value is valid.
type SubscribeOptions struct {
	// Since is the position of the last event that the caller has: in a channel that keeps events,
	// the Subscription first receives those after it, or a KindGap with the reason why not all.
	// Default: it receives what follows.
	Since broker.Position
	// Rewind is the number of newest events that the Subscription first receives of a channel that
	// keeps events, at most 500. With Since, it counts if not everything since then can be received.
	Rewind int
	// Data is the presence data for a private channel, an object, encoded as encoding/json does. If it
	// is nil, that of the token is used, if it has some.
	Data any
	// Presence makes the Subscription receive the list of the members of a private channel, and their
	// changes.
	Presence bool
}

// status is what a Subscription is doing.
type status uint8

const (
	idle   status = iota // it is to subscribe when there is a connection
	asking               // a token or an answer is awaited, or the time for the next try
	live
	parked // it is to subscribe when the queue is empty
	over
)

// Subscription receives the events of one channel. All methods are safe for concurrent use.
type Subscription struct {
	c       *Client
	channel string
	rewind  int
	data    json.RawMessage
	want    bool          // members
	began   chan struct{} // closed when the first subscribe has succeeded, or the Subscription has ended
	wake    chan struct{} // has an element if something has changed for the loop
	looped  atomic.Bool   // Events was called

	// Client.mu guards these.
	status   status
	turn     int   // counts the changes of status, so that what was begun before has no effect
	failures int   // to subscribe, in a row
	err      error // set with over
	started  bool  // it was live
	private  bool  // it needs a token
	token    Token // the last one
	renewal  renewal
	key      memberKey
	members  members
	queue    queue

	place   broker.Position // that the server is told; zero while there is none
	handled broker.Position
	epoch   string // of the events that arrive
	replay  int    // the number of events that are still replayed
	after   broker.Position

	last Event // only the loop uses it
}

// memberKey is with which the Client can take its member over after a reconnect.
type memberKey struct {
	ID  string `json:"id"`
	Key string `json:"key"`
}

// Subscribe subscribes to a channel, whose name is case-insensitive. It returns when the server has
// accepted the subscription, which then lasts until Unsubscribe or the end of the loop over Events; or
// when the server has refused it (*Error), Token has (ErrDenied), ctx has ended, or the Client has. A
// Client has one Subscription of each channel. nil options are the zero value.
func (c *Client) Subscribe(ctx context.Context, channel string, o *SubscribeOptions) (*Subscription, error) {
	if o == nil {
		o = &SubscribeOptions{}
	}
	lower, err := names.Channel(channel)
	if err != nil {
		return nil, fmt.Errorf("subscriber: subscribe: channel name %w", err)
	}
	s := &Subscription{
		c:       c,
		channel: lower,
		rewind:  o.Rewind,
		want:    o.Presence,
		began:   make(chan struct{}),
		wake:    make(chan struct{}, 1),
		private: isPrivate(lower),
		place:   o.Since,
		handled: o.Since,
		queue: queue{
			maxEvents: c.o.MaxEvents,
			maxBytes:  c.o.MaxBytes,
		},
	}
	if o.Data != nil {
		if s.data, err = json.Marshal(o.Data); err != nil {
			return nil, fmt.Errorf("subscriber: subscribe: Data: %w", err)
		}
	}
	c.mu.Lock()
	err = c.err
	if err == nil && c.subs[lower] != nil {
		err = fmt.Errorf("subscriber: subscribe: the Client has a Subscription of %s", lower)
	}
	if err == nil {
		c.subs[lower] = s
		c.askLocked(s)
	}
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case <-s.began:
	case <-ctx.Done():
		s.end(fmt.Errorf("subscriber: subscribe: %w", context.Cause(ctx)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.started {
		return nil, s.err
	}
	return s, nil
}

// Channel returns the name of the channel in lower case.
func (s *Subscription) Channel() string { return s.channel }

// Position returns the position of the last event whose loop body has finished, so that a process that
// saves it, and passes it as SubscribeOptions.Since when it is started again, handles each event at
// least once. Before the first event, it is the place from which the Subscription receives the
// channel. It is zero if the channel keeps no events. It can be called after the end, too.
func (s *Subscription) Position() broker.Position {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.handled
}

// Events yields what the Subscription receives, in order. When the loop ends, also with break, return
// or a panic, the Client unsubscribes without waiting for the server. The last pair of a loop that the
// caller does not end itself has a zero Event and an error: ErrClosed after Unsubscribe, Close or a
// KindEnded; ErrSlowConsumer; *Error or ErrDenied if the channel is refused after a reconnect; or that
// of the Client. Only the first loop receives events; another one yields ErrClosed.
func (s *Subscription) Events() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if !s.looped.CompareAndSwap(false, true) {
			yield(Event{}, ErrClosed)
			return
		}
		defer s.end(ErrClosed)
		for {
			e, err := s.next()
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// next returns the next event, and waits for it. The last one counts as handled.
func (s *Subscription) next() (Event, error) {
	for {
		s.c.mu.Lock()
		e, ok, err := s.takeLocked()
		s.c.mu.Unlock()
		if ok || err != nil {
			s.last = e
			return e, err
		}
		<-s.wake
	}
}

func (s *Subscription) takeLocked() (e Event, ok bool, err error) {
	if s.last.Position.Epoch != "" {
		s.handled = s.last.Position
	}
	s.last = Event{}
	if errors.Is(s.err, ErrClosed) && s.status == over && !s.queue.ends() {
		return Event{}, false, s.err
	}
	e, missed, ok := s.queue.pop()
	if ok {
		if missed && s.status == live {
			s.listLocked()
		}
		return e, true, nil
	}
	if s.status == parked {
		s.setLocked(idle)
		s.c.askLocked(s)
	}
	return Event{}, false, s.err
}

// ends reports whether the last event in the queue is that of the end.
func (q *queue) ends() bool {
	return len(q.events) > 0 && q.events[len(q.events)-1].Kind == KindEnded
}

func (s *Subscription) wakeLocked() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Unsubscribe ends the Subscription, whose loop ends with ErrClosed, and waits until the server has
// ended it, the connection is lost, or ctx ends.
func (s *Subscription) Unsubscribe(ctx context.Context) error {
	done := s.end(ErrClosed)
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("subscriber: unsubscribe: %w", context.Cause(ctx))
	}
}

// end ends the Subscription. The returned channel is closed when the server knows it.
func (s *Subscription) end(err error) (done <-chan struct{}) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	before := s.status
	s.endLocked(err)
	return s.leaveLocked(before)
}

// leaveLocked sends the command unsubscribe if the server may know the subscription.
func (s *Subscription) leaveLocked(before status) (done <-chan struct{}) {
	answered := make(chan struct{})
	k := s.c.conn
	if k == nil || s.c.err != nil || before != live && before != asking {
		close(answered)
		return answered
	}
	k.callLocked("unsubscribe", map[string]string{"channel": s.channel}, func(*message, error) { close(answered) })
	return answered
}

// setLocked changes the status.
func (s *Subscription) setLocked(now status) {
	s.status = now
	s.turn++
	s.renewal.stop()
}

// endLocked ends the Subscription for the Client.
func (s *Subscription) endLocked(err error) {
	if s.status == over {
		return
	}
	s.setLocked(over)
	s.err = err
	s.beginLocked()
	s.wakeLocked()
	if s.c.subs[s.channel] == s {
		delete(s.c.subs, s.channel)
	}
}

// beginLocked ends the wait of Subscribe.
func (s *Subscription) beginLocked() {
	select {
	case <-s.began:
	default:
		close(s.began)
	}
}

// disconnectedLocked is called when the connection is lost.
func (s *Subscription) disconnectedLocked() {
	if s.status == live || s.status == asking {
		s.setLocked(idle)
	}
}

// subscribeLocked sends the command subscribe.
func (s *Subscription) subscribeLocked(k *conn) {
	data := map[string]any{
		"channel":  s.channel,
		"hold":     true,
		"presence": "none",
	}
	if s.want {
		data["presence"] = "list"
	}
	if s.token.Auth != "" {
		data["auth"] = s.token.Auth
	}
	if member := cmp.Or(string(s.token.Data), string(s.data)); member != "" {
		data["data"] = json.RawMessage(member)
	}
	if s.key.Key != "" {
		data["member"] = s.key
	}
	since := s.place
	if since.Epoch != "" {
		data["since"] = map[string]any{
			"epoch":  since.Epoch,
			"offset": since.Offset,
		}
		if len(s.c.former) > 0 {
			data["was"] = s.c.former
		}
	}
	if s.rewind > 0 {
		data["rewind"] = s.rewind
	}
	turn := s.turn
	k.callLocked("subscribe", data, func(m *message, err error) {
		switch {
		case s.turn != turn:
		case errors.Is(err, ErrUncertain): // the connection is lost
		case err != nil:
			s.endLocked(err)
		default:
			s.answeredLocked(k, m, since)
		}
	})
}

// answeredLocked handles the answer to subscribe.
func (s *Subscription) answeredLocked(k *conn, m *message, since broker.Position) {
	f := &m.fields
	switch {
	case m.Event == "pushy:subscription-success":
		s.setLocked(live)
		s.failures = 0
		s.key = memberKey{f.MemberID, f.Key}
		if s.want {
			s.members.set(f.Presence)
			s.listLocked()
		}
		s.placeLocked(f, since)
		s.started = true
		s.renewLocked(f.Expires)
		s.beginLocked()
	case m.Event == "pushy:subscription-needauth" && s.c.o.Token == nil:
		s.endLocked(&Error{
			Code:    "401",
			Message: s.channel + " needs a token: set Options.Token",
		})
	case m.Event == "pushy:subscription-needauth" && !s.private:
		s.private = true
		s.setLocked(idle)
		s.c.askLocked(s)
	case m.Event == "pushy:subscription-needauth" && f.Reason == "Expired",
		f.Reason == "Temporarily unavailable", f.Code == "429":
		s.failures++
		s.c.retryLocked(k, []*Subscription{s})
	default:
		s.endLocked(m.err())
	}
}

// pushLocked queues an event, and reports whether it did.
func (s *Subscription) pushLocked(e *Event) bool {
	e.Channel = s.channel
	e.Time = time.Now()
	if s.queue.fits(e) || e.Kind == KindEnded {
		s.queue.push(e)
		s.wakeLocked()
		return true
	}
	before := s.status
	switch {
	case s.c.o.OnFull == EndWhenFull:
		s.endLocked(ErrSlowConsumer)
		s.leaveLocked(before)
	case s.epoch != "":
		s.setLocked(parked)
		s.leaveLocked(before)
		s.key = memberKey{}
	default:
		s.queue.skip(e)
	}
	return false
}

// endedLocked handles the end of the subscription by the server.
func (s *Subscription) endedLocked(m *message) {
	switch {
	case s.status != live:
	case m.fields.Again:
		s.key = memberKey{}
		s.setLocked(idle)
		s.c.askLocked(s)
	default:
		s.pushLocked(&Event{
			Kind:   KindEnded,
			Reason: m.fields.Reason,
		})
		s.endLocked(ErrClosed)
	}
}
