package hub

import (
	"time"

	"github.com/gopushy/pushy/broker"
)

// Reserved receives what the broker delivers for a channel that clients cannot use. Its funcs
// must not block, and are called under locks of the broker.
type Reserved struct {
	Entry func(e broker.Entry)
	// Reset is called when entries may have been lost. It can be nil.
	Reset func(s broker.State)
}

// Reserve sets what receives the entries of a channel. The caller follows the channel at the
// Broker, after Reserve. The name begins with a colon, which no protocol permits.
func (h *Hub) Reserve(channel string, r *Reserved) { h.reserves.Store(channel, r) }

func (h *Hub) reserved(channel string) *Reserved {
	if channel == "" || channel[0] != ':' {
		return nil
	}
	r, _ := h.reserves.Load(channel)
	reserved, _ := r.(*Reserved)
	return reserved
}

// Broker returns the broker, for reserved channels and the optional interfaces.
func (h *Hub) Broker() broker.Broker { return h.cfg.Broker }

// Lease returns how long what a node has added to the broker remains after the node has failed.
func (h *Hub) Lease() time.Duration { return h.cfg.Lease }

// Node returns the id of the node.
func (h *Hub) Node() string { return h.cfg.Node }
