package hub

import (
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
)

// Channel is a channel as this node knows it.
type Channel struct {
	hub    *Hub
	name   string
	policy Policy
	host   any       // see Config.HostChannel
	life   *lifetime // open while it has members on this node, or clients here are joining

	// fan serializes the fan-outs, so that all members receive events in the same order.
	// It is locked before mu, and guards the fields up to arriving.
	fan       sync.Mutex
	replica   replica
	ready     bool                     // the State of Follow is in the replica
	early     []arrival                // delivered before ready
	own       map[string]*loggedMember // members of a private channel that are on this node, by id
	arriving  int                      // the number of own whose Join has not been delivered yet
	history   *history                 // nil if the channel keeps no events; it does not change
	*watching                          // nil for a public channel

	keepDiffers atomic.Bool // compareKeep has found that the policies of nodes differ

	forms atomic.Uint64 // those that members have had, without Text, Framed and Bare, as bits

	held atomic.Int64 // the number of own whose client is absent; changed under fan

	mu      sync.Mutex
	members slots

	// listeners is read under fan or mu, and changed under both. It is nil if there are none.
	listeners channelListeners
}

// Name returns the channel's name.
func (ch *Channel) Name() string { return ch.name }

// Host returns the value of Config.HostChannel for the channel.
func (ch *Channel) Host() any { return ch.host }

// Hub returns the node.
func (ch *Channel) Hub() *Hub { return ch.hub }

// Policy returns the properties of the channel.
func (ch *Channel) Policy() Policy { return ch.policy }

// Len returns the number of members on this node whose client is connected.
func (ch *Channel) Len() int {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.members.live
}

// inUse reports whether the channel has members or Listeners on this node. Members whose client
// is absent count.
func (ch *Channel) inUse() bool { return ch.held.Load() > 0 || ch.Subscribers() > 0 }

// Conns yields the members on this node, in no order. Members that join or leave during the
// iteration may or may not be included.
func (ch *Channel) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		ch.mu.Lock()
		all := ch.members.all()
		ch.mu.Unlock()
		for _, m := range all {
			if !yield(m.conn) {
				return
			}
		}
	}
}

// Has reports whether c is a member.
func (ch *Channel) Has(c *Conn) bool {
	m := c.membership(ch.name)
	c.mu.Lock()
	defer c.mu.Unlock()
	return m != nil && m.isMember() && c.hub == ch.hub
}

// compact removes empty places. The caller has locked fan, and is not in an iteration.
func (ch *Channel) compact() {
	ch.mu.Lock()
	ch.members.compact()
	ch.mu.Unlock()
}

// broadcastLocked queues f for every member, except the connections whose ids are in except. The
// caller has locked fan.
func (ch *Channel) broadcastLocked(f *fanout.Frame, except []string) {
	fan := ch.hub.cfg.Engine.Fan(f)
	delivered := uint64(0)
	// The members are copied in parts, so that clients can join and leave during the fan-out. They do
	// not move, because only compact moves them.
	var part [32]*membership
	for from := 0; ; from += len(part) {
		ch.mu.Lock()
		n := ch.members.copyTo(part[:], from)
		ch.mu.Unlock()
		if n == 0 {
			break
		}
		for _, m := range part[:n] {
			if m != nil {
				fan.Touch(m.out)
			}
		}
		for _, m := range part[:n] {
			if m != nil && (len(except) == 0 || !slices.Contains(except, m.conn.id)) && fan.Send(m.out, &m.gate) {
				delivered++
			}
		}
	}
	fan.Flush()
	ch.hub.counts.deliveries.Add(delivered)
}

// admit makes m a member: it queues the Subscribed event and the replay, and opens the gate,
// in one step. Conn.Channels includes the channel before the client receives the event.
func (ch *Channel) admit(m *membership, subscribed *fanout.Frame, replay ...*fanout.Frame) {
	ch.enrol(m)
	m.out.Open(&m.gate, subscribed, replay...)
	m.watchMembership(DecidedJoined)
}

// admitNow is admit without a lock, for an answer that can be written at once.
func (ch *Channel) admitNow(m *membership, subscribed *Event) {
	c := m.conn
	if c.foreign != 0 {
		other := *subscribed // so that the event of most connections is not on the heap
		ch.admit(m, c.frame(&other))
		return
	}
	ch.enrol(m)
	text := texts.Get().(*[]byte)
	*text = ch.hub.cfg.Protocol.Append((*text)[:0], *subscribed)
	m.out.OpenNow(&m.gate, *text)
	putText(text)
	m.watchMembership(DecidedJoined)
}

func (ch *Channel) enrol(m *membership) {
	m.conn.mu.Lock()
	m.state = memberHooked
	m.conn.mu.Unlock()
	ch.mu.Lock()
	m.slot = ch.members.add(m)
	ch.mu.Unlock()
}

// open follows the channel at the broker and calls the Occupied hook.
func (ch *Channel) open() error {
	h := ch.hub
	if h.ctx.Err() != nil {
		return ErrClosed
	}
	ctx, cancel := h.operation(h.ctx)
	defer cancel()
	s, err := h.cfg.Broker.Follow(ctx, ch.name)
	if err != nil && !errors.Is(err, broker.ErrAway) {
		ch.forgetEarly()
		return wrap("follow the channel", err)
	}
	ch.begin(s)
	if ch.history != nil {
		h.keep(ch)
	}
	h.observers.occupied(ch)
	if occupied := h.cfg.Hooks.Occupied; occupied != nil {
		occupied(ch)
	}
	return nil
}

func (ch *Channel) close() {
	h := ch.hub
	if ch.history != nil {
		h.unkeep(ch)
		defer ch.closeHistory()
	}
	if h.ctx.Err() == nil { // otherwise the broker is closed
		ctx, cancel := h.operation(h.ctx)
		err := h.cfg.Broker.Unfollow(ctx, ch.name)
		cancel()
		if err != nil && h.ctx.Err() == nil && !errors.Is(err, broker.ErrAway) {
			h.cfg.Log.Error("cannot unfollow a channel", "channel", ch.name, "error", err)
		}
	}
	if vacated := h.cfg.Hooks.Vacated; vacated != nil {
		vacated(ch)
	}
	h.observers.vacated(ch)
}
