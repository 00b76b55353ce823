package hub

import (
	"time"
	"unique"

	"github.com/gopushy/pushy/internal/fanout"
)

// Ender says who has ended a connection.
type Ender uint8

// Who can end a connection.
const (
	ByServer  Ender = iota + 1 // also because the client has broken a rule
	ByClient                   // with a close frame
	ByNetwork                  // it was lost, or was silent for too long
)

// Ending describes a connection that has ended.
type Ending struct {
	Conn   *Conn
	Code   int
	Reason string
	By     Ender
	Left   fanout.Left
	At     time.Time
}

// ending describes the connection when it has ended.
func (c *Conn) ending() Ending {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Ending{
		Conn:   c,
		Code:   int(c.code),
		Reason: c.reasonLocked(),
		By:     c.by,
		Left:   c.out.Left(),
		At:     c.hub.cfg.Now(),
	}
}

// endedBy returns who has ended the connection, or 0.
func (c *Conn) endedBy() Ender {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by
}

// Address returns the address that was passed to Connect.
func (c *Conn) Address() string { return c.address }

// Agent returns the User-Agent header that was passed to Connect.
func (c *Conn) Agent() string {
	if c.agent == (unique.Handle[string]{}) {
		return ""
	}
	return c.agent.Value()
}
