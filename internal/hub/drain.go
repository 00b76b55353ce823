package hub

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gopushy/pushy/broker"
)

// Bounds of returnWindow.
const (
	minWindow = time.Second
	maxWindow = time.Minute
)

// extendTimeout limits how long a Shutdown waits for the broker before it closes connections.
const extendTimeout = 2 * time.Second

var errNoLeaser = errors.New("the Broker does not implement broker.Leaser")

// returnWindow returns the time over which clients must spread their returns so that at most
// rate of them return a second, or 0 if the rate is unlimited.
func returnWindow(conns, rate int) time.Duration {
	if rate <= 0 {
		return 0
	}
	window := time.Duration(float64(conns) / float64(rate) * float64(time.Second))
	return min(max(window, minWindow), maxWindow)
}

// ReturnWithin returns the time within which the client is to return if it loses the
// connection, or 0 if it was not told.
func (c *Conn) ReturnWithin() time.Duration { return time.Duration(c.returnWithin) * time.Millisecond }

// setReturnWithin decides what the client is told. It is called before the connection is
// registered.
func (c *Conn) setReturnWithin() {
	if c.version < 2 {
		return
	}
	window := returnWindow(c.hub.admission.Len()+1, c.hub.cfg.ReturnRate)
	c.returnWithin = uint16(window.Milliseconds()) // at most 60,000
}

// extendLease makes the lease of the node last for the grace period after the last client has
// returned, because the members of the connections that a Shutdown closes are held until then.
func (h *Hub) extendLease(ctx context.Context) {
	if h.cfg.Local || ctx.Err() != nil {
		return // no other node has the members, or nobody waits for the end
	}
	var window time.Duration
	for _, c := range h.admission.all() {
		window = max(window, c.ReturnWithin())
	}
	if window == 0 {
		return
	}
	timeout := extendTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline)/4)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := errNoLeaser
	if leaser, ok := h.cfg.Broker.(broker.Leaser); ok {
		err = leaser.Extend(ctx, window+h.cfg.Lease)
	}
	if err != nil && window > h.cfg.Lease {
		h.cfg.Log.Warn("cannot extend the lease for the shutdown: members whose clients return after Options.Grace leave and join again",
			slog.Duration("clients return within", window),
			slog.Duration("Grace", h.cfg.Lease),
			slog.Any("error", err))
	}
}
