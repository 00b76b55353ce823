package hub

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/lifecycle"
)

// Bounds of returnWindow.
const (
	minWindow = time.Second
	maxWindow = time.Minute
)

const (
	drainSpread = 5 * time.Second // the longest time over which connections are closed, or are sent a new window
	drainBatch  = 100             // the number of connections that are closed at once
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
func (c *Conn) ReturnWithin() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.returnWithin) * time.Millisecond
}

// ReturnWindow returns about the time within which all clients of this node are to return, at least
// a second.
func (h *Hub) ReturnWindow() time.Duration {
	return max(time.Duration(h.window.Load()), minWindow)
}

// setReturnWithin decides what the client is told, and returns the window of all clients. It is
// called before the connection is registered.
func (c *Conn) setReturnWithin() (window time.Duration) {
	window = returnWindow(c.hub.admission.Len()+1, c.hub.cfg.ReturnRate)
	if c.version >= 2 && c.foreign == 0 {
		c.returnWithin = uint16(window.Milliseconds()) // at most 60,000
	}
	return window
}

// windowIs is called with the window of the number of connections that there are now. Clients
// that connected when there were fewer were told a shorter one; if this server failed, most of
// them would return in its first part. So they are told again when the window has grown by
// half. That is at most three messages for each connection while the number grows.
func (h *Hub) windowIs(window time.Duration) {
	last := h.window.Load()
	told := max(time.Duration(last), minWindow)
	grown := window >= told*3/2
	shrunk := window > 0 && window <= told/2
	if !grown && !shrunk || !h.window.CompareAndSwap(last, int64(window)) {
		return
	}
	if shrunk || !h.tasks.Start() {
		return
	}
	go func() {
		defer h.tasks.End()
		select {
		case h.growing <- struct{}{}:
		case <-h.stopping.Done():
			return
		}
		defer func() { <-h.growing }()
		lifecycle.Spread(h.stopping, h.admission.all(), drainBatch, min(window, drainSpread), func(c *Conn) {
			c.growWindow(window)
		})
	}()
}

// growWindow tells the client a longer time.
func (c *Conn) growWindow(window time.Duration) {
	ms := uint16(window.Milliseconds())
	c.mu.Lock()
	// A client that is not greeted yet has been told a moment ago.
	shorter := c.greeted && c.returnWithin > 0 && c.returnWithin < ms
	if shorter {
		c.returnWithin = ms
	}
	c.mu.Unlock()
	if shorter {
		_ = c.Send(&Event{Kind: WindowGrew, Within: window}) // it fails only if the connection has ended
	}
}

// drain closes all connections of a Hub, in batches, because clients that all reconnect at the
// same moment would overload the next server. Each client is told when to return: the times of
// all clients are spread evenly over the window.
type drain struct {
	hub    *Hub
	conns  []*Conn
	window time.Duration // 0 if clients are not told
	spread time.Duration // the time over which connections are closed
	batch  int           // the number of connections that are closed at once
}

// newDrain returns the drain of a Shutdown with ctx.
func (h *Hub) newDrain(ctx context.Context) *drain {
	conns := h.admission.all()
	d := &drain{
		hub:    h,
		conns:  conns,
		window: returnWindow(len(conns), h.cfg.ReturnRate),
		spread: drainSpread,
		batch:  drainBatch,
	}
	if h.HasForeign() { // clients that are not told when to return can return at once
		d.batch = min(max(1, len(conns)/100), drainBatch)
	}
	if d.window > 0 {
		d.spread = min(d.spread, d.window) // no client waits longer than it must
	}
	if deadline, ok := ctx.Deadline(); ok {
		d.spread = min(d.spread, time.Until(deadline)/2)
	}
	return d
}

// run closes the connections. It returns false if ctx ended first.
func (d *drain) run(ctx context.Context) bool {
	began := time.Now()
	done := 0
	return lifecycle.Spread(ctx, d.conns, d.batch, d.spread, func(c *Conn) {
		slot := time.Duration(float64(d.window) * float64(done) / float64(len(d.conns)))
		done++
		c.drain(max(0, slot-time.Since(began)))
		c.end(CloseShutdown, shutdownReason)
	})
}

// drain tells the client to return after a time, unless it is not to be told.
func (c *Conn) drain(returnIn time.Duration) {
	c.mu.Lock()
	told := c.greeted && c.returnWithin > 0
	c.mu.Unlock()
	if told {
		_ = c.Send(&Event{Kind: Draining, Within: returnIn}) // it fails only if the connection has ended
	}
}

// extendLease makes the lease of the node last for the grace period after the last client has
// returned, because the members of the connections that the drain closes are held until then.
// A client can return later than drain.run tells it, because it may know returnWithin only.
func (d *drain) extendLease(ctx context.Context) {
	h := d.hub
	if h.cfg.Local || ctx.Err() != nil {
		return // no other node has the members, or nobody waits for the end
	}
	var window time.Duration
	for _, c := range d.conns {
		window = max(window, c.ReturnWithin())
	}
	if window == 0 {
		return
	}
	window = max(window+lifecycle.LastBatch(len(d.conns), d.batch, d.spread), d.window)
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
