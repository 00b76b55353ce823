package untrusted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

// Limits of deliveries that do not depend on a node's options. Other nodes can have other
// limits, so these are far above what a node appends by default.
const (
	maxMembers   = 1_000_000
	maxListBytes = 256 << 20 // the data of all members of a channel
	maxID        = 128       // bytes of an owner, a node's id and a user's id
	maxRevision  = 1 << 62   // a node can add to it without an overflow
)

// Options configure Wrap. All fields must be set.
type Options struct {
	EventBytes  int // the maximum size of an event's data
	MemberBytes int // the maximum size of a member's data
	// GapEvent is the only reserved event name that nodes send each other.
	GapEvent string
	// Call runs one call of the broker, and converts a panic or a call of runtime.Goexit
	// into its error. The methods of the error that it returns do not panic.
	Call func(name string, run func() error) error
	// Appended is called after each Append of an event, with the time when it began.
	Appended func(began time.Time, err error)
	// Failed is called from the deferred func of a call that did not return, with the
	// result of recover, which is nil for runtime.Goexit. It returns the call's error.
	Failed func(name string, panicked any) error
	// Readable returns err, or panics if a method of err panics.
	Readable func(err error) error
	// Skipped is called for each invalid delivery, which is then ignored.
	Skipped func(kind, channel string, reason error)
}

// Broker is a broker.Broker that validates what another one delivers: invalid entries are
// skipped, and JSON has no whitespace. Append refuses entries that other nodes would skip.
type Broker struct {
	next broker.Broker
	o    Options
}

var (
	_ broker.Broker = (*Broker)(nil)
	_ broker.Health = (*Broker)(nil)
	_ broker.Leaser = (*Broker)(nil)

	_ broker.IDForgetter = (*Broker)(nil)
)

// Open implements broker.Broker. If the sink has a method Wants(channel string) bool, it
// receives only the channels that it wants, and the others are not validated.
func (b *Broker) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	s := &checkedSink{
		next: sink,
		b:    b,
	}
	if selective, ok := sink.(interface{ Wants(channel string) bool }); ok {
		s.wants = selective.Wants
	}
	return b.o.Call("Broker.Open", func() error { return b.next.Open(ctx, o, s) })
}

// Follow implements broker.Broker.
func (b *Broker) Follow(ctx context.Context, channel string) (s broker.State, err error) {
	err = b.o.Call("Broker.Follow", func() error {
		var err error
		s, err = b.next.Follow(ctx, channel)
		return err
	})
	if err != nil {
		return broker.State{}, err
	}
	s, err = b.state(channel, s)
	if err != nil {
		return broker.State{}, fmt.Errorf("the channel's state is invalid: %w", err)
	}
	return s, nil
}

// Unfollow implements broker.Broker.
func (b *Broker) Unfollow(ctx context.Context, channel string) error {
	return b.o.Call("Broker.Unfollow", func() error { return b.next.Unfollow(ctx, channel) })
}

// Append implements broker.Broker. It appends an event on the goroutine of the caller, because
// a new goroutine would double the cost. Therefore an Append that calls runtime.Goexit ends
// the goroutine of the caller.
func (b *Broker) Append(ctx context.Context, channel string, e broker.Entry) (a broker.Appended, err error) {
	limit := b.o.EventBytes
	if e.Kind != broker.Event {
		limit = b.o.MemberBytes
	}
	if size := max(len(e.Data), len(e.State)); size > limit {
		return a, fmt.Errorf("%w: data of %d bytes is over the limit of %d between nodes",
			broker.ErrTooLarge, size, limit)
	}
	if e.Kind == broker.Event {
		return b.appendEvent(ctx, channel, e)
	}
	return b.appendMember(ctx, channel, e)
}

// appendMember is a separate func, because its closure would move an event to the heap.
func (b *Broker) appendMember(ctx context.Context, channel string, e broker.Entry) (a broker.Appended, err error) {
	err = b.o.Call("Broker.Append", func() error {
		var err error
		a, err = b.next.Append(ctx, channel, e)
		return err
	})
	return a, err
}

func (b *Broker) appendEvent(ctx context.Context, channel string, e broker.Entry) (a broker.Appended, err error) {
	returned := false
	began := time.Now()
	defer func() {
		if !returned {
			a, err = broker.Appended{}, b.o.Failed("Broker.Append", recover())
		}
		b.o.Appended(began, err)
	}()
	a, err = b.next.Append(ctx, channel, e)
	err = b.o.Readable(err)
	returned = true
	return a, err
}

// Close implements broker.Broker.
func (b *Broker) Close(ctx context.Context) error {
	return b.o.Call("Broker.Close", func() error { return b.next.Close(ctx) })
}

// checkedSink is a broker.Sink that validates deliveries for another one.
type checkedSink struct {
	next  broker.Sink
	b     *Broker
	wants func(channel string) bool // nil for all channels
}

func (s *checkedSink) Deliver(channel string, e broker.Entry) {
	if s.wants != nil && !s.wants(channel) {
		return
	}
	e, err := s.b.entry(e)
	if err != nil {
		s.b.o.Skipped("skipped an invalid entry from the broker", channel, err)
		return
	}
	s.next.Deliver(channel, e)
}

func (s *checkedSink) Reset(channel string, state broker.State, reason string) {
	if s.wants != nil && !s.wants(channel) {
		return
	}
	state, err := s.b.state(channel, state)
	if err != nil {
		s.b.o.Skipped("skipped an invalid state from the broker", channel, err)
		return
	}
	if reason == "" {
		reason = broker.ResetGap
	}
	s.next.Reset(channel, state, reason)
}

// entry returns e with compact JSON, or an error if e is invalid.
func (b *Broker) entry(e broker.Entry) (broker.Entry, error) {
	if e.At.Offset > 0 {
		if err := position(e.At); err != nil {
			return e, err
		}
	}
	var err error
	if e.Kind == broker.Event {
		if err := names.Received(e.Event); err != nil && e.Event != b.o.GapEvent {
			return e, fmt.Errorf("event name %w", err)
		}
		if e.From != "" && !names.IsToken(e.From) {
			return e, errors.New("the sender's ID is not 1 to 64 of A-Z a-z 0-9 _ -")
		}
		if e.Data, err = compact(e.Data, b.o.EventBytes); err != nil {
			return e, fmt.Errorf("data: %w", err)
		}
		return e, nil
	}
	if e.Kind < broker.Event || e.Kind > broker.Adopt {
		return e, fmt.Errorf("an entry of kind %d", e.Kind)
	}
	m := broker.Member{
		ID:    e.Member,
		Owner: e.Owner,
		User:  e.User,
		Data:  e.Data,
		State: e.State,
	}
	if err := b.member(&m); err != nil {
		return e, err
	}
	e.Data = m.Data
	e.State = m.State
	return e, nil
}

// state returns s without invalid and duplicate members. It does not change the slice of s.
func (b *Broker) state(channel string, s broker.State) (broker.State, error) {
	for _, p := range []broker.Position{s.Revision, s.At} {
		if err := position(p); err != nil && p != (broker.Position{}) {
			return s, err
		}
	}
	if len(s.Members) > maxMembers {
		return s, fmt.Errorf("%d members, over the limit of %d", len(s.Members), maxMembers)
	}
	members := make([]broker.Member, 0, len(s.Members))
	known := make(map[string]struct{}, len(s.Members))
	size := 0
	for _, m := range s.Members {
		err := b.member(&m)
		if _, twice := known[m.ID]; err == nil && twice {
			err = errors.New("duplicate member")
		}
		if err != nil {
			b.o.Skipped("skipped an invalid member from the broker", channel, err)
			continue
		}
		size += len(m.Data) + len(m.State)
		if size > maxListBytes {
			return s, fmt.Errorf("the list of members is over the limit of %d bytes", maxListBytes)
		}
		known[m.ID] = struct{}{}
		members = append(members, m)
	}
	s.Members = members
	return s, nil
}

// member validates m and removes the whitespace from its data and its state.
func (b *Broker) member(m *broker.Member) error {
	if !names.IsToken(m.ID) {
		return errors.New("the member's ID is not 1 to 64 of A-Z a-z 0-9 _ -")
	}
	if len(m.Owner) > maxID || len(m.Node) > maxID || len(m.User) > maxID {
		return fmt.Errorf("an owner, node or user of over %d bytes", maxID)
	}
	var err error
	if m.Data, err = b.object(m.Data); err != nil {
		return fmt.Errorf("the member's data %w", err)
	}
	if m.State, err = b.object(m.State); err != nil {
		return fmt.Errorf("the member's state %w", err)
	}
	return nil
}

// object returns a JSON object without whitespace; nil stays nil.
func (b *Broker) object(data json.RawMessage) (json.RawMessage, error) {
	if data == nil {
		return nil, nil
	}
	data, err := compact(data, b.o.MemberBytes)
	if err != nil {
		return nil, fmt.Errorf("is invalid: %w", err)
	}
	if jsvalue.Kind(data) != '{' {
		return nil, errors.New("is not an object")
	}
	return data, nil
}

// compact validates one JSON value and returns it without whitespace.
func compact(text []byte, limit int) ([]byte, error) {
	if len(text) > limit {
		return nil, fmt.Errorf("%d bytes, over the limit of %d", len(text), limit)
	}
	return jsvalue.Compacted(text, jsvalue.Limits{})
}
