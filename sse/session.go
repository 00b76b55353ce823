package sse

import (
	"errors"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
)

// protocol is the name of the protocol and of the transport.
const protocol = "sse"

// conn is what the sessions of streams have in common. The client sends nothing: Receive waits for the
// end.
type conn struct {
	form   fanout.Form
	linger time.Duration // the longest time for the end of the response

	greeted chan struct{} // closed when the Connect hook has returned
	halt    chan struct{} // closed when halted is set
	dead    chan struct{} // closed by Abort
	over    chan struct{} // closed when nothing more is written

	mu      sync.Mutex // guards the fields below
	out     *fanout.Outbox
	halted  *session.CloseError
	reading bool
	aborted bool
	ended   bool
}

// pulled is the session of a stream whose handler writes.
type pulled struct {
	conn
	wake chan struct{} // has an element if frames are queued
}

var (
	_ session.Session = (*pulled)(nil)
	_ fanout.Puller   = (*pulled)(nil)
)

func newPulled(form fanout.Form, linger time.Duration) *pulled {
	return &pulled{
		conn: newConn(form, linger),
		wake: make(chan struct{}, 1),
	}
}

func (p *pulled) Wake() time.Duration {
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return fanout.IndirectCost
}

var errAborted = errors.New("the session was aborted")

func newConn(form fanout.Form, linger time.Duration) conn {
	return conn{
		form:    form,
		linger:  linger,
		greeted: make(chan struct{}),
		halt:    make(chan struct{}),
		dead:    make(chan struct{}),
		over:    make(chan struct{}),
	}
}

func (c *conn) Form() fanout.Form { return c.form }
func (c *conn) Protocol() string  { return protocol }

// Speaks returns what AuthRequest.Protocol is, see hub.Conn.Protocol.
func (c *conn) Speaks() string    { return protocol }
func (c *conn) ShutdownCode() int { return session.CloseShutdown }

func (c *conn) Start(out *fanout.Outbox) {
	c.mu.Lock()
	c.out = out
	c.mu.Unlock()
}

func (c *conn) outbox() *fanout.Outbox {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out
}

// Receive is first called when the connection is open.
func (c *conn) Receive() ([]byte, error) {
	c.begun()
	<-c.halt
	return nil, c.haltedWith()
}

// begun is called when the connection is open.
func (c *conn) begun() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reading {
		c.reading = true
		close(c.greeted)
	}
}

// haltedWith returns the error of Receive after halt is closed.
func (c *conn) haltedWith() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.halted
}

func (c *conn) end(why *session.CloseError, abort bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.halted == nil {
		c.halted = why
		close(c.halt)
	}
	if abort && !c.aborted {
		c.aborted = true
		close(c.dead)
	}
}

func (c *conn) Stop()          { c.end(&session.CloseError{Cause: session.Stopped}, false) }
func (c *conn) Abort()         { c.lost(errAborted) }
func (c *conn) lost(err error) { c.end(session.LostError(err), true) }

// finished is called when nothing more is written.
func (c *conn) finished() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.ended = true
		close(c.over)
	}
}

// Linger waits until the handler has written the end of the response.
func (c *conn) Linger() {
	timer := time.NewTimer(c.linger)
	defer timer.Stop()
	select {
	case <-c.over:
	case <-c.dead:
	case <-timer.C:
	}
	if out := c.outbox(); out != nil {
		out.Discard()
	}
	c.Abort()
}
