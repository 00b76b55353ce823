package pushy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/untrusted"
)

// Bounds on what arrives from a Broker or PresenceStore of the host's. Other nodes
// may have other Limits, so these are far above what a node would send by default.
const (
	maxEventBytes   = 16 << 20
	maxMemberBytes  = 256 << 10
	maxListMembers  = 1_000_000
	maxListBytes    = 256 << 20
	highestRevision = math.MaxInt64
)

// arrivals checks what comes from a Broker or PresenceStore of the host's. Whatever
// they work with may be written to by others, so nothing of it is trusted: what is
// broken is skipped, with one log line a minute. It also turns their panics, and calls
// of runtime.Goexit, into errors of the one call.
type arrivals struct {
	srv         *Server
	eventBytes  int
	memberBytes int
	wants       func(channel string) bool // set before the broker is opened
}

func newArrivals(s *Server) *arrivals {
	l := s.opts.Limits
	// A node must be able to receive what it lets its own clients send.
	return &arrivals{
		srv:         s,
		eventBytes:  max(maxEventBytes, l.TriggerBytes),
		memberBytes: max(maxMemberBytes, 2*limit.Or(l.PresenceBytes, 0)),
	}
}

// checked is a broker whose deliveries are checked, and whose failures are errors of one
// call.
func (s *Server) checked(b broker.Broker) broker.Broker {
	bounds := newArrivals(s)
	return untrusted.Wrap(b, untrusted.Options{
		EventBytes:  bounds.eventBytes,
		MemberBytes: bounds.memberBytes,
		Call:        bounds.call,
		Skipped:     bounds.skip,
	})
}

// call runs one call to the host's Broker or PresenceStore.
func (a *arrivals) call(name string, run func() error) (err error) {
	if f := hosted(func() { err = readable(run()) }); f != nil {
		return a.srv.callFailed(name, f)
	}
	return err
}

// callFailed logs a call to the host's Broker or PresenceStore that did not return,
// and turns it into that call's error.
func (s *Server) callFailed(name string, f *failure) error {
	attrs := append([]slog.Attr{slog.String("call", name)}, f.attrs()...)
	s.notices.Warn("a call to the broker or presence store "+f.String(), name, attrs...)
	return fmt.Errorf("%s: %w", name, f)
}

// message returns m as it may go to clients.
func (a *arrivals) message(m Message) (Message, error) {
	if m.Event == EventResync {
		m.Data = emptyObject // whatever it says, events were lost
		return m, nil
	}
	if err := names.Event(m.Event); err != nil {
		return m, fmt.Errorf("event name %w", err)
	}
	data, err := a.json(m.Data, a.eventBytes)
	if err != nil {
		return m, fmt.Errorf("data: %w", err)
	}
	m.Data = data
	return m, nil
}

var emptyObject = []byte("{}")

// json checks one JSON value and returns it without blanks.
func (a *arrivals) json(text []byte, most int) ([]byte, error) {
	if len(text) > most {
		return nil, fmt.Errorf("%d bytes, over the limit of %d", len(text), most)
	}
	return jsvalue.Compacted(text, jsvalue.Limits{})
}

// member returns m as it may go to clients.
func (a *arrivals) member(m Member) (Member, error) {
	if !names.IsToken(m.ID) {
		return m, errors.New("the member's ID is not 1 to 64 of A-Z a-z 0-9 _ -")
	}
	text, err := a.json(m.JSON, a.memberBytes)
	if err != nil {
		return m, err
	}
	found := 0
	var id string
	err = jsvalue.Fields(text, func(name, value []byte) {
		if string(name) == "memberId" {
			found++
			id, _ = jsvalue.Text(value)
		}
	})
	switch {
	case err != nil:
		return m, err
	case found != 1 || id != m.ID:
		return m, errors.New("the JSON's memberId is not the member's ID")
	}
	m.JSON = text
	return m, nil
}

// snapshot returns snap without the members that are broken or duplicate. The
// store's slice stays as it is.
func (a *arrivals) snapshot(channel string, snap Snapshot) (Snapshot, error) {
	if err := a.revision(snap.Revision); err != nil {
		return Snapshot{}, err
	}
	if len(snap.Members) > maxListMembers {
		return Snapshot{}, fmt.Errorf("%d members, over the limit of %d", len(snap.Members), maxListMembers)
	}
	members := make([]Member, 0, len(snap.Members))
	known := make(map[string]struct{}, len(snap.Members))
	size := 0
	for _, m := range snap.Members {
		m, err := a.member(m)
		if _, twice := known[m.ID]; err == nil && twice {
			err = errors.New("the member is in the list twice")
		}
		if err != nil {
			a.skip("skipped a broken member from the presence store", channel, err)
			continue
		}
		if size += len(m.JSON); size > maxListBytes {
			return Snapshot{}, fmt.Errorf("the list of members is over the limit of %d bytes", maxListBytes)
		}
		known[m.ID] = struct{}{}
		members = append(members, m)
	}
	snap.Members = members
	return snap, nil
}

// change returns c as it may be applied.
func (a *arrivals) change(channel string, c Change) (Change, error) {
	if c.State != nil {
		snap, err := a.snapshot(channel, *c.State)
		c.State = &snap
		return c, err
	}
	if err := a.revision(c.Revision); err != nil {
		return c, err
	}
	if c.Left {
		return c, nil // an ID that is not in the list changes nothing
	}
	var err error
	c.Member, err = a.member(c.Member)
	return c, err
}

// revision refuses one that leaves no room for later ones.
func (a *arrivals) revision(r uint64) error {
	if r > highestRevision {
		return fmt.Errorf("revision %d is over %d", r, uint64(highestRevision))
	}
	return nil
}

// skip logs what was skipped: one line a minute for each kind.
func (a *arrivals) skip(kind, channel string, reason error) {
	a.srv.notices.Warn(kind, "", slog.String("channel", channel), slog.Any("reason", reason))
}

// sharedBroker is a Broker of the host's behind the checks.
type sharedBroker struct {
	Broker
	*arrivals
}

var _ Broker = (*sharedBroker)(nil)

func (b *sharedBroker) Open(ctx context.Context, deliver func(string, Message)) error {
	return b.call("Broker.Open", func() error {
		return b.Broker.Open(ctx, func(channel string, m Message) {
			if !b.wants(channel) {
				return // checking costs time, and nobody gets it
			}
			m, err := b.message(m)
			if err != nil {
				b.skip("skipped a broken message from the broker", channel, err)
				return
			}
			deliver(channel, m)
		})
	})
}

// Publish runs on its caller's goroutine, since one more for each event would be
// dear: a Broker that ends it (runtime.Goexit) ends the caller, and is logged.
func (b *sharedBroker) Publish(ctx context.Context, channel string, m Message) (received Receivers, err error) {
	if len(m.Data) > b.eventBytes {
		return None, fmt.Errorf("%w: data of %d bytes is over the limit of %d for a shared event",
			ErrTooLarge, len(m.Data), b.eventBytes)
	}
	returned := false
	defer func() {
		if !returned {
			received, err = None, b.srv.callFailed("Broker.Publish", failed(recover()))
		}
	}()
	received, err = b.Broker.Publish(ctx, channel, m)
	err = readable(err)
	returned = true
	return received, err
}

func (b *sharedBroker) Subscribe(ctx context.Context, channel string) error {
	return b.call("Broker.Subscribe", func() error { return b.Broker.Subscribe(ctx, channel) })
}

func (b *sharedBroker) Unsubscribe(ctx context.Context, channel string) error {
	return b.call("Broker.Unsubscribe", func() error { return b.Broker.Unsubscribe(ctx, channel) })
}

func (b *sharedBroker) Close() error { return b.call("Broker.Close", b.Broker.Close) }

// sharedStore is a PresenceStore of the host's behind the checks.
type sharedStore struct {
	PresenceStore
	*arrivals
	isBroker bool // taken from Options.Broker, or the other way round: closed once
}

var _ PresenceStore = (*sharedStore)(nil)

func (p *sharedStore) Join(ctx context.Context, channel string, m Member) error {
	if len(m.JSON) > p.memberBytes {
		return fmt.Errorf("%w: a member of %d bytes is over the limit of %d for a shared one",
			ErrTooLarge, len(m.JSON), p.memberBytes)
	}
	return p.call("PresenceStore.Join", func() error { return p.PresenceStore.Join(ctx, channel, m) })
}

func (p *sharedStore) Leave(ctx context.Context, channel, memberID string) error {
	return p.call("PresenceStore.Leave", func() error { return p.PresenceStore.Leave(ctx, channel, memberID) })
}

func (p *sharedStore) Watch(ctx context.Context, channel string, apply func(Change)) (snap Snapshot, err error) {
	err = p.call("PresenceStore.Watch", func() error {
		var err error
		snap, err = p.PresenceStore.Watch(ctx, channel, func(c Change) {
			c, err := p.change(channel, c)
			if err != nil {
				p.skip("skipped a broken entry from the presence store", channel, err)
				return
			}
			apply(c)
		})
		return err
	})
	if err != nil {
		return Snapshot{}, err
	}
	return p.snapshot(channel, snap)
}

func (p *sharedStore) Close() error {
	if p.isBroker {
		return nil
	}
	return p.call("PresenceStore.Close", p.PresenceStore.Close)
}
