package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/lifecycle"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/session"
)

// Conn is the connection of one client. All methods are safe for concurrent use, and only
// Join blocks.
type Conn struct {
	hub     *Hub
	id      string
	user    *user // nil if there is none
	host    any   // see Config.HostConn
	network limit.Network
	session session.Session
	out     *fanout.Outbox
	ctx     context.Context
	cancel  context.CancelFunc

	// The reader's alone.
	budget limit.Budget
	early  uint8 // the first messages, counted

	// Guarded by mu, also what stands before it: fields are in this order for the
	// size of a Conn, of which there may be very many.
	greeted  bool   // the Connect hook has returned
	closed   bool   // no membership is added any more
	code     uint16 // why it ended; 0 while it has not
	mu       sync.Mutex
	members  memberships
	reason   string
	finished chan struct{}       // set when the clean-up begins, closed when it is done
	joined   map[uint64]struct{} // hashes of large presence channels that it has joined, see firstJoin

	debt atomic.Int32 // tokens that joins cost, to be charged with the next message

	hooks lifecycle.Tasks // memberships of which a hook is still to be called
}

// user is who a connection belongs to. It is kept apart since many applications have none.
type user struct {
	value any
	id    string
}

// ID returns the connection's id.
func (c *Conn) ID() string { return c.id }

// User returns the value that was passed to Connect.
func (c *Conn) User() any {
	if c.user == nil {
		return nil
	}
	return c.user.value
}

// UserID returns the user id that was passed to Connect, or "".
func (c *Conn) UserID() string {
	if c.user == nil {
		return ""
	}
	return c.user.id
}

// Host returns the value of Config.HostConn for the connection.
func (c *Conn) Host() any { return c.host }

// Hub returns the node that the connection is on.
func (c *Conn) Hub() *Hub { return c.hub }

// Transport returns the name of the connection's transport.
func (c *Conn) Transport() string { return c.session.Protocol() }

// Context returns a context that is canceled when the connection ends.
func (c *Conn) Context() context.Context { return c.ctx }

// Channels returns the names of the channels that the connection is in, sorted.
func (c *Conn) Channels() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, m := range c.members.values() {
		if m.isMember() {
			names = append(names, m.name)
		}
	}
	slices.Sort(names)
	return names
}

// Send queues an event for the connection alone. It returns ErrClosed if the
// connection has ended.
func (c *Conn) Send(e *Event) error {
	if !c.out.Send(c.hub.frame(e)) {
		return ErrClosed
	}
	return nil
}

// Allow charges the connection's rate for a message read at a time. It is called
// by the reader. A client that has long been over its rate is disconnected.
func (c *Conn) Allow(now time.Time) limit.Verdict {
	if debt := c.debt.Load(); debt > 0 {
		c.debt.Add(-debt)
		c.budget.Charge(int(debt))
	}
	verdict := c.budget.Spend(now, c.hub.cfg.Limits.Rate, c.hub.cfg.Limits.Burst)
	switch verdict {
	case limit.Over:
		c.logRate("commands refused: too many requests")
	case limit.Abuse:
		c.logRate("connection closed: too many requests")
		c.end(CloseAbuse, "too many requests")
	}
	return verdict
}

func (c *Conn) logRate(kind string) {
	limits := c.hub.cfg.Limits
	c.hub.cfg.Notices.Warn(kind, "",
		slog.String("conn", c.id),
		slog.String("hint", fmt.Sprintf("Options.Limits.CommandRate is %d messages a second and CommandBurst is %d; "+
			"joins of presence channels count by their size", limits.Rate, limits.Burst)))
}

// Close ends the connection with a close code and reason. Only the first call has an
// effect. It does not wait.
func (c *Conn) Close(code int, reason string) { c.end(code, reason) }

// end begins the connection's end; the reader does the rest. The first caller's
// code and reason stand. It does not block and may be called under the locks of
// a channel: a fan-out may be what finds a client too slow.
func (c *Conn) end(code int, reason string) {
	c.endAs(code, c.sentCode(code), reason)
}

// sentCode returns what a close code is sent as.
func (c *Conn) sentCode(code int) int {
	if code == CloseShutdown {
		return c.session.ShutdownCode()
	}
	return code
}

// endAs is end with the code that is sent.
func (c *Conn) endAs(code, sent int, reason string) {
	c.mu.Lock()
	if c.code == 0 {
		c.code, c.reason = uint16(code), reason
	}
	if int(c.code) != code { // another call was first
		code = int(c.code)
		sent = c.sentCode(code)
	}
	reason = c.reason
	c.mu.Unlock()
	if code == codeLost {
		c.out.Discard()
		c.session.Abort()
	} else {
		c.out.Close(sent, reason)
	}
	c.session.Stop()
	c.cancel()
}

// abort closes the connection without a close frame.
func (c *Conn) abort(code int, reason string) {
	c.end(code, reason)
	c.out.Discard()
	c.session.Abort()
}

// serve begins the connection. Its reader is one goroutine at a time, from here
// to the end of its last read.
func (c *Conn) serve() {
	// A client that knows its id may have it used at once, so it receives the id
	// only when the Connect hook has returned; what the hook sends comes after.
	c.out.Hold()
	c.session.Start(c.out)
	_ = c.Send(&Event{Kind: Connected, Conn: c}) // one that has ended needs no greeting
	if connect := c.hub.cfg.Hooks.Connect; connect != nil {
		connect(c)
	}
	c.mu.Lock()
	c.greeted = true
	c.mu.Unlock()
	c.out.Release()
	go c.read()
}

// A connection is chatty while its messages, after the first few, come closer
// together than this.
const (
	chatty      = 50 * time.Millisecond
	chattyAfter = 8
)

// read answers messages. Unless they come in quick succession it hands over to
// a new goroutine after each: a stack that a command has grown does not shrink
// to the smallest again, and while a connection waits its stack is most of what
// it costs.
//
// A command that ends its goroutine ends this one with it: a new one reads on.
func (c *Conn) read() {
	handling := false
	defer func() {
		if handling {
			go c.read()
		}
	}()
	message, err := c.session.Receive()
	for ; err == nil; message, err = c.session.Receive() {
		now := time.Now()
		few := c.early < chattyAfter || now.Sub(c.budget.Last()) > chatty
		c.early = min(c.early+1, chattyAfter)
		handling = true
		c.hub.cfg.Protocol.Handle(c, message, now)
		handling = false
		if few {
			go c.read()
			return
		}
	}
	defer c.hub.tasks.End()
	c.ended(err)
	c.finish()
	defer context.AfterFunc(c.hub.cutOff, c.session.Abort)()
	c.session.Linger()
}

// ended turns why Receive stopped into the connection's end.
func (c *Conn) ended(err error) {
	var why *session.CloseError
	switch {
	case !errors.As(err, &why), why.Cause == session.Lost:
		c.end(codeLost, err.Error())
	case why.Cause == session.Stopped:
		// end was called, and has the reason.
	default:
		if fault := c.hub.cfg.Hooks.Fault; fault != nil && why.Cause == session.Fault {
			fault(c, why.Code)
		}
		c.endAs(why.Code, why.Code, why.Reason) // the peer's own code is its answer
	}
}

// finish is the one clean-up: it leaves every channel, removes the connection
// and runs the Disconnect hook. The reader calls it; Shutdown does for a reader
// that a command holds up past its deadline. The second caller waits for the
// first, on a channel: a mutex would hold up the fake time of a test.
func (c *Conn) finish() {
	c.mu.Lock()
	if done := c.finished; done != nil {
		c.mu.Unlock()
		<-done
		return
	}
	c.finished = make(chan struct{})
	defer close(c.finished)
	c.closed = true
	if c.code == 0 {
		c.code = codeLost
	}
	code, reason := int(c.code), c.reason
	members := c.members.values()
	c.mu.Unlock()
	c.cancel()
	c.hub.leaveAll(members)
	select { // Disconnect is the last hook, though others run in other goroutines
	case <-c.hooks.Close():
	case <-c.hub.cutOff.Done():
	}
	c.hub.admission.remove(c)
	if disconnect := c.hub.cfg.Hooks.Disconnect; disconnect != nil {
		disconnect(c, code, reason)
	}
}
