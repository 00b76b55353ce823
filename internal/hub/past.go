package hub

import (
	"context"

	"github.com/gopushy/pushy/broker"
)

// Place returns the position of the last event that a channel keeps.
func (h *Hub) Place(ctx context.Context, channel string) (broker.Position, error) {
	if err := h.keeps(channel); err != nil {
		return broker.Position{}, err
	}
	ctx, cancel := h.operation(ctx)
	defer cancel()
	tops, err := h.history.Tops(ctx, []string{channel})
	if err != nil {
		return broker.Position{}, err
	}
	return tops[0], nil
}

// History returns events that a channel keeps.
func (h *Hub) History(ctx context.Context, channel string, r broker.Range) (broker.Page, error) {
	if err := h.keeps(channel); err != nil {
		return broker.Page{}, err
	}
	ctx, cancel := h.operation(ctx)
	defer cancel()
	return h.history.Read(ctx, channel, r)
}

// Forget removes all events that a channel keeps.
func (h *Hub) Forget(ctx context.Context, channel string) error {
	if err := h.keeps(channel); err != nil {
		return err
	}
	ctx, cancel := h.operation(ctx)
	defer cancel()
	return h.history.Forget(ctx, channel)
}

func (h *Hub) keeps(channel string) error {
	policy, err := h.PolicyOf(channel)
	if err != nil {
		return err
	}
	if h.history == nil || policy.Keep.Size <= 0 {
		return ErrNotKept
	}
	return nil
}

// History returns events that a channel keeps, if the connection is a member that may read
// them. The errors are ErrNotMember, ErrDenied, ErrNotKept and those of the broker.
func (c *Conn) History(ctx context.Context, channel string, r broker.Range) (broker.Page, error) {
	m := c.membership(channel)
	if m == nil {
		return broker.Page{}, ErrNotMember
	}
	c.mu.Lock()
	in := m.isMember()
	denied := m.noPast
	c.mu.Unlock()
	switch {
	case !in:
		return broker.Page{}, ErrNotMember
	case denied:
		return broker.Page{}, ErrDenied
	}
	return c.hub.History(ctx, channel, r)
}
