package inmem

import (
	"net"
	"os"
	"time"
)

// stall is a time in which the client reads nothing and its network accepts nothing.
type stall struct {
	waits event // a Write waits
	over  event
}

// Stall makes the Outbox's writes wait until resume is called. The channel is closed when one
// waits: from then on, everything that is queued remains in the Outbox.
func (c *Client) Stall() (waits <-chan struct{}, resume func()) {
	s := &stall{}
	s.waits.ch = make(chan struct{})
	s.over.ch = make(chan struct{})
	c.p.stall.Store(s)
	return s.waits.ch, func() {
		c.p.stall.CompareAndSwap(s, nil)
		s.over.happen()
	}
}

// awaitReader waits until the client does not stall.
func (p *pipe) awaitReader(timeout <-chan time.Time) error {
	for {
		s := p.stall.Load()
		if s == nil {
			return nil
		}
		s.waits.happen()
		select {
		case <-s.over.ch:
		case <-p.aborted.ch:
			return net.ErrClosed
		case <-timeout:
			return os.ErrDeadlineExceeded
		}
	}
}
