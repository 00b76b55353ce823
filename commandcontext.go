package pushy

import (
	"context"
	"sync"
	"time"
)

// commandContext is the context of a typed command, which ends as one of context.WithTimeout does.
// Most commands never wait for it, so the timer and the place in the context of the connection are
// made when something needs them.
type commandContext struct {
	conn     context.Context // of the connection
	deadline time.Time

	mu     sync.Mutex      // guards the fields below
	made   context.Context // nil until it is needed
	cancel context.CancelFunc
	ended  bool // the command has returned
}

func newCommandContext(conn context.Context, timeout time.Duration) *commandContext {
	return &commandContext{
		conn:     conn,
		deadline: time.Now().Add(timeout),
	}
}

// end ends the context when the command has returned.
func (c *commandContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil && !time.Now().Before(c.deadline) {
		c.makeLocked() // it has ended before
	}
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}

func (c *commandContext) makeLocked() {
	c.made, c.cancel = context.WithDeadline(c.conn, c.deadline)
	if c.ended {
		c.cancel()
	}
}

func (c *commandContext) context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		c.makeLocked()
	}
	return c.made
}

// Deadline implements context.Context.
func (c *commandContext) Deadline() (time.Time, bool) { return c.deadline, true }

// Done implements context.Context.
func (c *commandContext) Done() <-chan struct{} { return c.context().Done() }

// Err implements context.Context.
func (c *commandContext) Err() error { return c.context().Err() }

// Value implements context.Context. Package context asks for its own values, to find out how a
// context has ended, so they must be those of a whole context.
func (c *commandContext) Value(key any) any { return c.context().Value(key) }
