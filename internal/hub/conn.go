package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/lifecycle"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/session"
)

// Conn is the connection of one client. All methods are safe for concurrent use. Those that
// need the broker, or room for a large answer, block: Join, History, ListMembers, AwaitRoom, and
// the methods that set a state.
type Conn struct {
	hub     *Hub
	id      string
	user    atomic.Pointer[user] // nil if there is none
	since   int64                // when it began, in milliseconds since 1970
	host    any                  // see Config.HostConn
	network limit.Network
	address string
	agent   unique.Handle[string]
	session session.Session
	out     *fanout.Outbox
	ctx     connContext

	budget limit.Budget // only the reader uses it

	// These are small, and share two words, because a server can have very many connections.
	debt         atomic.Int32 // tokens for large answers, which are charged with the next message
	early        uint8        // the number of messages so far, at most chattyAfter; only the reader uses it
	version      uint8        // see Client; it does not change
	lane         uint8        // of Hub.received; it does not change
	foreign      uint8        // see Client.Foreign; it does not change
	returnWithin uint16       // see ReturnWithin, in milliseconds; under mu, like the next four
	code         uint16       // the close code; 0 until the connection ends
	by           Ender        // who has ended it; 0 until then
	greeted      bool         // the Connect hook has returned
	closed       bool         // no membership is added any more

	mu      sync.Mutex // guards the fields from returnWithin to few, without itself
	members memberships
	joins   limit.Bucket
	few     *few // nil while none of its fields is set

	hooks lifecycle.Tasks // memberships with a hook that is still to be called
}

// few has the fields of a Conn that only few connections need, and those of its end. They are
// separate to save memory in idle connections. Conn.mu guards them.
type few struct {
	reason   string              // of the close code
	finished chan struct{}       // set when the clean-up starts, closed when it is complete
	ending   bool                // endWithin was called
	attached any                 // see Attach
	joined   map[uint64]struct{} // hashes of the channels with large answers that it has joined, see firstJoin

	presenter
}

// fewLocked returns the few of c, which has one from now on. The caller has locked c.mu.
func (c *Conn) fewLocked() *few {
	if c.few == nil {
		c.few = &few{}
	}
	return c.few
}

// reasonLocked returns the reason with which the connection has ended, or "".
func (c *Conn) reasonLocked() string {
	if c.few == nil {
		return ""
	}
	return c.few.reason
}

// Client describes the client of a connection.
type Client struct {
	User    any
	UserID  string
	ID      string // the id of the connection; "" for one that Config.NewConnID makes
	Foreign uint8  // the protocol that AddForeign returned, or 0 for Config.Protocol
	Version uint8  // of the protocol, as the client said; 1 if it said nothing
	Network limit.Network
	Address string                // as it is shown
	Agent   unique.Handle[string] // the User-Agent header
}

// Connect creates a connection for a session and starts its reader. The caller has
// reserved a place for it. The result is nil if the Hub has begun to shut down; then the session
// has been aborted.
func (h *Hub) Connect(s session.Session, from Client) *Conn {
	c := &Conn{
		hub:     h,
		id:      from.ID,
		foreign: from.Foreign,
		since:   h.cfg.Now().UnixMilli(),
		version: from.Version,
		lane:    h.counts.received.Lane(),
		network: from.Network,
		address: from.Address,
		agent:   from.Agent,
		session: s,
	}
	if c.id == "" {
		c.id = h.cfg.NewConnID()
	}
	if from.User != nil || from.UserID != "" {
		c.user.Store(&user{
			value: from.User,
			id:    from.UserID,
		})
	}
	window := c.setReturnWithin()
	c.host = h.cfg.HostConn(c)
	c.out = h.cfg.Engine.NewOutbox(s, c.end)
	if !h.admission.add(c, h.tasks.Start) {
		c.ctx.cancel()
		c.out.Discard()
		s.Abort()
		return nil
	}
	if id := c.UserID(); id != "" {
		// A ban that came after the Accept and before add has not found the connection.
		if reason, banned := h.banned(id, ""); banned {
			c.end(CloseRemoved, reason)
		}
	}
	if h.cfg.Hooks.Connect == nil {
		c.serve() // it does not block
	} else {
		go c.serve()
	}
	h.windowIs(window)
	return c
}

// TurnAway closes a session, with a close code and reason, without creating a connection for it.
// The frames of last precede the close frame. It does not wait. It calls ended when the session
// has ended.
func (h *Hub) TurnAway(s session.Session, code int, reason string, ended func(), last ...*fanout.Frame) {
	out := h.cfg.Engine.NewOutbox(s, func(int, string) {})
	if !h.tasks.Start() {
		out.Discard()
		s.Abort()
		ended()
		return
	}
	go func() {
		defer h.tasks.End()
		defer ended()
		defer context.AfterFunc(h.aborting, s.Abort)()
		s.Start(out)
		for _, f := range last {
			out.Send(f)
		}
		out.Close(code, reason)
		s.Stop()
		for {
			if _, err := s.Receive(); err != nil {
				break
			}
		}
		s.Linger()
	}()
}

// ID returns the connection's id.
func (c *Conn) ID() string { return c.id }

// Version returns the version of the protocol that the client uses. Keys that old clients
// do not know are sent only from version 2 on (PROTOCOL.md, section 2).
func (c *Conn) Version() int { return int(c.version) }

// Host returns the value of Config.HostConn for the connection.
func (c *Conn) Host() any { return c.host }

// Hub returns the node that the connection is on.
func (c *Conn) Hub() *Hub { return c.hub }

// Transport returns the name of the connection's transport.
func (c *Conn) Transport() string { return c.session.Protocol() }

// protocolName is what Protocol returns for the connections of pushy's own protocol.
const protocolName = "pushy"

// Protocol returns the name of the protocol that the client uses.
func (c *Conn) Protocol() string {
	if other, ok := c.session.(interface{ Speaks() string }); ok {
		return other.Speaks()
	}
	return protocolName
}

// Context returns a context that is canceled when the connection ends.
func (c *Conn) Context() context.Context { return c.ctx.real() }

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

// answerToken is the number of bytes of an answer that count as one more message of the client.
const answerToken = 32 << 10

// chargeBytes charges the client's rate for bytes that the server sends at its request: a token
// for each token bytes, at most half of the burst. It is charged with the next message.
func (c *Conn) chargeBytes(bytes, token int64) {
	limits := c.hub.cfg.Limits
	if limits.Rate > 0 {
		c.debt.Add(int32(min(bytes/token, int64(limits.Burst/2))))
	}
}

// Allow charges the connection's rate for a message that was read at the time now. Only the
// reader calls it. A client that exceeds its rate for too long is disconnected.
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
			"large answers count by their size", limits.Rate, limits.Burst)))
}

// Close ends the connection with a close code and reason. Only the first call has an
// effect. It does not wait.
func (c *Conn) Close(code int, reason string) { c.end(code, reason) }

// end starts to close the connection; the reader does the rest. The code and reason of the
// first call are used. end does not block and can be called under the locks of a channel,
// because a fan-out can find that a client is too slow.
func (c *Conn) end(code int, reason string) {
	by := ByServer
	if code == codeLost {
		by = ByNetwork
	}
	c.endAs(code, c.sentCode(code), reason, by)
}

// sentCode returns the close code that the transport sends for code.
func (c *Conn) sentCode(code int) int {
	if foreign := c.foreignOf(); foreign != nil {
		return foreign.CloseCode(code)
	}
	if code == CloseShutdown {
		return c.session.ShutdownCode()
	}
	return code
}

// endAs is end with the code that is to be sent, which can differ from the code for the
// hooks. It reports whether this call was the first one.
func (c *Conn) endAs(code, sent int, reason string, by Ender) (first bool) {
	first, as, reason := c.markEnd(code, reason, by)
	if as != code { // another call was first
		sent = c.sentCode(as)
	}
	if as == codeLost {
		c.out.Discard()
		c.session.Abort()
	} else {
		c.sendFarewell(first, by, sent, reason)
		c.out.Close(sent, reason)
	}
	c.session.Stop()
	c.ctx.cancel()
	return first
}

// markEnd records how the connection ends, unless it is ending already. It returns the code and the
// reason of the first call.
func (c *Conn) markEnd(code int, reason string, by Ender) (first bool, as int, because string) {
	c.mu.Lock()
	first = c.code == 0
	if first {
		c.code = uint16(code)
		c.fewLocked().reason = reason
		c.by = by
	}
	as = int(c.code)
	because = c.reasonLocked()
	c.mu.Unlock()
	if report := c.Watcher(); report != nil && first {
		report(Decision{
			Kind:   DecidedClosed,
			Code:   strconv.Itoa(as),
			Reason: because,
		})
	}
	return first, as, because
}

// isLost reports whether the connection has ended without a close frame.
func (c *Conn) isLost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code == codeLost
}

// abort closes the connection without a close frame, unless one is being written already.
func (c *Conn) abort(code int, reason string) {
	c.markEnd(code, reason, ByServer)
	c.out.Discard() // before anything that would let the flusher write a close frame
	c.session.Abort()
	c.session.Stop()
	c.ctx.cancel()
}

// serve starts the session, runs the Connect hook and starts the reader. At any time, only
// one goroutine is the reader.
func (c *Conn) serve() {
	// A client can use its id at once, for example in a trigger. So the client receives the
	// id only when the Connect hook has returned, and before the messages of the hook.
	c.out.Hold()
	c.session.Start(c.out)
	_ = c.Send(&Event{Kind: Connected, Conn: c}) // it fails only if the connection has ended
	if connect := c.hub.cfg.Hooks.Connect; connect != nil {
		connect(c)
	}
	c.hub.observers.opened(c)
	c.mu.Lock()
	c.greeted = true
	c.mu.Unlock()
	c.out.ReleaseNow()
	c.awaitMessage()
}

// A connection is chatty while the time between its messages, after the first chattyAfter,
// is at most chatty.
const (
	chatty      = 50 * time.Millisecond
	chattyAfter = 8
)

// awaitMessage continues to read without the goroutine of the caller, whose stack can be large:
// without a goroutine at all until there is a message, if the session can do that.
func (c *Conn) awaitMessage() {
	if p, ok := c.session.(session.Parker); ok && p.Park(c) {
		return
	}
	go c.read()
}

// Resume continues to read, see session.Parker.
func (c *Conn) Resume() {
	lifecycle.GrowStack()
	c.read()
}

// read handles messages. Unless the connection is chatty, it ends after each message, see
// awaitMessage: a stack that a command has grown does not shrink to the minimum again, and the stack
// is most of the memory of an idle connection.
//
// If a command ends its goroutine (runtime.Goexit), read continues in a new one.
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
		c.hub.counts.received.Add(c.lane, len(message))
		few := c.early < chattyAfter || c.budget.Pause(now) > chatty
		c.early = min(c.early+1, chattyAfter)
		handling = true
		if c.foreign == 0 {
			c.hub.cfg.Protocol.Handle(c, message, now)
		} else {
			c.foreignOf().Handle(c, message, now)
		}
		handling = false
		if few {
			c.awaitMessage()
			return
		}
	}
	defer c.hub.tasks.End()
	c.ended(err)
	c.finish()
	if !c.isLost() { // otherwise the session has been aborted
		defer context.AfterFunc(c.hub.aborting, c.session.Abort)()
	}
	c.session.Linger()
}

// ended closes the connection for the reason that Receive has returned.
func (c *Conn) ended(err error) {
	var why *session.CloseError
	switch {
	case !errors.As(err, &why), why.Cause == session.Lost:
		c.end(codeLost, err.Error())
	case why.Cause == session.Stopped:
		// end was called, with the reason.
	default:
		by := ByClient
		if why.Cause == session.Fault {
			by = ByServer
			if fault := c.hub.cfg.Hooks.Fault; fault != nil {
				fault(c, why.Code)
			}
		}
		c.endAs(why.Code, why.Code, why.Reason, by) // a peer that closes receives its own code
	}
}

// finish cleans up: it leaves every channel, removes the connection and runs the Disconnect
// hook. The reader calls it. If a command blocks the reader past the deadline of Shutdown,
// Shutdown calls it, too. A second call waits for the first. It waits on a channel because
// a goroutine that waits for a mutex would stop the fake time of testing/synctest.
func (c *Conn) finish() {
	c.mu.Lock()
	few := c.fewLocked()
	if done := few.finished; done != nil {
		c.mu.Unlock()
		<-done
		return
	}
	few.finished = make(chan struct{})
	defer close(few.finished)
	c.closed = true
	if c.code == 0 {
		c.code = codeLost
		c.by = ByNetwork
	}
	code, reason := int(c.code), few.reason
	members := c.members.values()
	c.mu.Unlock()
	c.ctx.cancel()
	c.hub.leaveAll(c, members, c.hasGrace(code))
	select { // other hooks can still run in other goroutines, and Disconnect must be the last
	case <-c.hooks.Close():
	case <-c.hub.aborting.Done():
	}
	c.hub.admission.remove(c)
	c.hub.counts.ended(code, c.endedBy())
	if disconnect := c.hub.cfg.Hooks.Disconnect; disconnect != nil {
		disconnect(c, code, reason)
	}
	if ended := c.hub.cfg.Hooks.Ended; ended != nil {
		ended(c.ending())
	}
	c.hub.observers.closed(c, code, reason)
}
