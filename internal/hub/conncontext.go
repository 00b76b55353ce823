package hub

import (
	"context"
	"sync/atomic"
	"time"
)

var _ context.Context = (*connContext)(nil)

// connContext is the context of a connection, which is canceled when the connection ends. The
// context.Context behind it is made when one is first needed, because most connections never need
// one, and it would be a tenth of the memory of an idle connection. The zero value is ready to use.
type connContext struct {
	made  atomic.Pointer[madeContext]
	ended atomic.Bool // set before made is read, which is set before ended is read
}

type madeContext struct {
	context.Context
	cancel context.CancelFunc
}

// real returns the context behind c.
func (c *connContext) real() context.Context {
	m := c.made.Load()
	if m == nil {
		m = &madeContext{}
		m.Context, m.cancel = context.WithCancel(context.Background())
		if !c.made.CompareAndSwap(nil, m) { // another goroutine has made one
			m.cancel()
			m = c.made.Load()
		}
	}
	if c.ended.Load() {
		m.cancel()
	}
	return m.Context
}

func (c *connContext) cancel() {
	c.ended.Store(true)
	if m := c.made.Load(); m != nil {
		m.cancel()
	}
}

// Err needs no context behind c.
func (c *connContext) Err() error {
	if c.ended.Load() {
		return context.Canceled
	}
	return nil
}

func (c *connContext) Deadline() (time.Time, bool) { return time.Time{}, false }

func (c *connContext) Done() <-chan struct{} { return c.real().Done() }

// Value lets package context find the context behind c, so that it needs no goroutine for a
// context that is derived from c.
func (c *connContext) Value(key any) any { return c.real().Value(key) }
