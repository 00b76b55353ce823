package pushy

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/lifecycle"
	"github.com/gopushy/pushy/internal/roster"
	"github.com/gopushy/pushy/internal/wire"
)

// Channel is a channel as this node sees it.
type Channel struct {
	reg     *registry
	name    string
	private bool
	life    *lifecycle.Life    // open while anybody here is in, or coming in
	unwatch context.CancelFunc // ends the replica; its transitions' alone

	// fan lets one fan-out at a time walk the members, so that all members see
	// one order. It guards presence. Taken before mu.
	fan      sync.Mutex
	presence presence

	mu      sync.Mutex
	members roster.Slots[subscription]
}

// Name returns the channel's lower-cased name.
func (ch *Channel) Name() string { return ch.name }

// Private reports whether the name begins with "private-".
func (ch *Channel) Private() bool { return ch.private }

// Len returns the number of members on this node.
func (ch *Channel) Len() int {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.members.Len()
}

// Conns yields the members on this node, in no order. Members that come or go
// meanwhile may be seen or not.
func (ch *Channel) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		ch.mu.Lock()
		all := ch.members.All()
		ch.mu.Unlock()
		for _, sub := range all {
			if !yield(&sub.conn.plain) {
				return
			}
		}
	}
}

// Has reports whether conn is a member.
func (ch *Channel) Has(conn *Conn) bool {
	sub := conn.subscription(ch.name)
	conn.mu.Lock()
	defer conn.mu.Unlock()
	return sub != nil && sub.member() && conn.srv == ch.reg.srv
}

// Remove ends conn's membership from the host's side: the client gets
// pushy:subscription-end with the reason, if there is one. A join that is
// under way ends as soon as it is through. The error is ErrNotMember.
func (ch *Channel) Remove(conn *Conn, reason string) error {
	sub := conn.subscription(ch.name)
	if sub == nil || conn.srv != ch.reg.srv {
		return ErrNotMember
	}
	end := wire.Object(nil).Text("channel", ch.name)
	if reason != "" {
		end = end.Text("reason", reason)
	}
	if !sub.leaveSoon(replyFrame(eventEnd, end, nil)) {
		return ErrNotMember
	}
	return nil
}

// each walks the members, chunk by chunk, so that joining and leaving go on. It
// needs fan, or Compact could move members that it has not seen.
func (ch *Channel) each() iter.Seq[*subscription] {
	return func(yield func(*subscription) bool) {
		var chunk [128]*subscription
		for from := 0; ; from += len(chunk) {
			ch.mu.Lock()
			n := ch.members.Copy(chunk[:], from)
			ch.mu.Unlock()
			if n == 0 {
				return
			}
			for _, sub := range chunk[:n] {
				if sub != nil && !yield(sub) {
					return
				}
			}
		}
	}
}

// broadcast queues f for every member but the connection named except.
func (ch *Channel) broadcast(f *fanout.Frame, except string) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	ch.mu.Lock()
	ch.members.Compact(func(sub *subscription, slot int) { sub.slot = slot })
	ch.mu.Unlock()
	ch.broadcastLocked(f, except)
}

// broadcastLocked needs fan.
func (ch *Channel) broadcastLocked(f *fanout.Frame, except string) {
	for sub := range ch.each() {
		if except == "" || sub.conn.id != except {
			sub.out.SendThrough(&sub.gate, f)
		}
	}
	ch.reg.srv.engine.Flush()
}

// open connects the channel to Broker and PresenceStore.
func (ch *Channel) open() error {
	s := ch.reg.srv
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	ctx, cancel := s.operation(s.ctx)
	defer cancel()
	err := s.broker.Subscribe(ctx, ch.name)
	if err == nil && ch.private {
		if err = ch.watch(ctx); err != nil {
			err = fmt.Errorf("watch presence: %w", err)
		}
	}
	if err != nil {
		ch.disconnect()
		return err
	}
	if occupied := s.opts.Hooks.ChannelOccupied; occupied != nil {
		s.hook("ChannelOccupied", func() { occupied(ch) })
	}
	return nil
}

func (ch *Channel) close() {
	s := ch.reg.srv
	ch.disconnect()
	if vacated := s.opts.Hooks.ChannelVacated; vacated != nil {
		s.hook("ChannelVacated", func() { vacated(ch) })
	}
}

func (ch *Channel) disconnect() {
	s := ch.reg.srv
	if ch.unwatch != nil {
		ch.unwatch()
	}
	if s.ctx.Err() != nil {
		return // the Broker is closed
	}
	ctx, cancel := s.operation(s.ctx)
	defer cancel()
	if err := s.broker.Unsubscribe(ctx, ch.name); err != nil && s.ctx.Err() == nil {
		s.log.Error("cannot unsubscribe from channel", "channel", ch.name, "error", err)
	}
}
