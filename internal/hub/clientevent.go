package hub

import (
	"context"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/limit"
)

// AllowEvent decides whether the client may publish an event to the other members of a channel
// now, and charges its rate. The error is ErrNotMember, ErrNotAllowed or ErrTooOften.
func (c *Conn) AllowEvent(channel string) error {
	err := c.allowEvent(channel)
	if report := c.Watcher(); report != nil && err != nil {
		report(Decision{
			Kind:    DecidedRefused,
			Channel: channel,
			Reason:  err.Error(),
		})
	}
	return err
}

func (c *Conn) allowEvent(channel string) error {
	m := c.membership(channel)
	switch {
	case m == nil || !c.isIn(m):
		return ErrNotMember
	case !m.ch.policy.ClientEvents || !m.ch.policy.Private:
		return ErrNotAllowed
	}
	rate := c.hub.cfg.Limits.EventRate
	c.mu.Lock()
	if !m.clientEvents {
		c.mu.Unlock()
		return ErrNotAllowed
	}
	verdict := c.presenterLocked().events.Spend(time.Now(), rate, 2*rate)
	c.mu.Unlock()
	if verdict != limit.OK {
		return ErrTooOften
	}
	return nil
}

// PublishEvent publishes an event of the client to the other members of a channel. They learn
// the member's id. The event is never kept, because it concerns those that are there now. The
// error is ErrNotMember, ErrClosed, or that of the broker.
func (c *Conn) PublishEvent(ctx context.Context, channel, name string, data []byte) error {
	m := c.membership(channel)
	if m == nil || !c.isIn(m) {
		return ErrNotMember
	}
	from := m.shownID()
	_, err := c.hub.Publish(ctx, channel, broker.Entry{
		Kind:   broker.Event,
		Event:  name,
		Data:   data,
		Except: []string{c.id},
		From:   from,
	})
	if err == nil {
		c.hub.observers.clientEvent(c, m.ch, from, name, data)
	}
	return err
}

// shownID returns the id of the member with which other clients see the client.
func (m *membership) shownID() string {
	ch := m.ch
	if !ch.policy.Private || !ch.policy.PerUser {
		return m.id
	}
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if member := ch.replica.get(m.id); member != nil {
		return ch.replica.shownFor(member).ID
	}
	return m.id
}
