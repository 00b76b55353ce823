package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/lifecycle"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/roster"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/wire"
)

// ErrClosed is returned for a connection that has ended, and by a Server that
// has begun to shut down.
var ErrClosed = errors.New("pushy: closed")

// Conn is one client's connection, whatever transport carries it. All methods
// are safe for concurrent use and none blocks on the client.
//
// Each command gets a *Conn of its own, which always belongs to that command:
// Reply and ReplyError carry the command's id, from any goroutine and also after
// the command has returned. A *Conn from anywhere else, such as a hook,
// Server.Conn or Channel.Conns, belongs to no command. Compare connections by ID,
// not by pointer.
type Conn struct {
	*connection
	command *Channels // of the command it answers; nil if it answers none
}

// connection is what all *Conn of one client share.
type connection struct {
	plain   Conn // answers no command
	srv     *Server
	id      string
	user    any
	session session.Session
	out     *fanout.Outbox
	ctx     context.Context
	cancel  context.CancelFunc

	// The reader's alone.
	budget limit.Budget
	early  uint8 // the first messages, counted

	// Under mu, together with what follows it: so ordered for the size, as there
	// may be very many of these.
	greeted  bool   // the Connect hook has run
	closed   bool   // no subscription is added any more
	code     uint16 // why it ended; 0 while it has not
	mu       sync.Mutex
	subs     roster.Small[*subscription] // by channel
	reason   string
	finished chan struct{}       // set when the clean-up begins, closed when it is done
	joined   map[uint64]struct{} // hashes of large presence channels that it has joined, see firstJoin

	debt atomic.Int32 // tokens that joins cost, to be charged with the next message

	hooks lifecycle.Tasks // memberships that a hook is still to be told of
}

// ID returns the connection's id, its socketId in the protocol: a UUID v4 that
// tokens are signed over and that no other client is shown.
func (c *Conn) ID() string { return c.id }

// User returns what Options.Accept returned for this connection, or nil.
func (c *Conn) User() any { return c.user }

// Protocol returns the transport's name, such as "websocket".
func (c *Conn) Protocol() string { return c.session.Protocol() }

// Context returns a context that is cancelled when the connection ends. It
// carries no values of the HTTP request: what is needed of that, Accept keeps.
func (c *Conn) Context() context.Context { return c.ctx }

// Channels returns the names of the channels the connection is in, sorted.
func (c *Conn) Channels() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, sub := range c.subs.Values() {
		if sub.member() {
			names = append(names, sub.name)
		}
	}
	slices.Sort(names)
	return names
}

// Send queues a direct message, {"event":…,"data":…}. data is encoded as
// encoding/json does, a json.RawMessage without its blanks. The error is ErrClosed
// or says why data cannot be encoded. It does not wait for the client: if more than
// Limits.ConnBuffer bytes are queued for one that does not read, the connection is
// closed with CloseSlowConsumer.
func (c *Conn) Send(event string, data any) error { return c.send(event, data, nil) }

// Reply is Send for the answer to the command that c belongs to: if the client
// gave the command an id, the message carries it back (PROTOCOL.md, section 3).
// It may be called at any time, also after the command has returned. A Conn that
// belongs to no command sends data as it is.
func (c *Conn) Reply(event string, data any) error { return c.send(event, data, c.requestID()) }

// ReplyError answers the command that c belongs to with pushy:error.
func (c *Conn) ReplyError(e *Error) error {
	data := wire.Object(nil).Text("message", e.Message).Text("code", e.Code)
	return c.queue(replyFrame(eventError, data, c.requestID()))
}

func (c *Conn) send(event string, data any, id json.RawMessage) error {
	if event == "" || !utf8.ValidString(event) {
		return fmt.Errorf("pushy: send: event name %q", event)
	}
	raw, err := wire.Encode(data)
	if err != nil {
		return fmt.Errorf("pushy: %w", err)
	}
	return c.queue(replyFrame(event, raw, id))
}

func (c *Conn) queue(f *fanout.Frame) error {
	if !c.out.Send(f) {
		return ErrClosed
	}
	return nil
}

func (c *Conn) requestID() json.RawMessage {
	if c.command == nil {
		return nil
	}
	return c.command.id
}

// Close ends the connection with a close code and a reason of at most 123
// bytes: code 1000, 1001, 1008, 1011 to 1014, or 3000 to 4999. A bare WebSocket
// gets 1012 for CloseShutdown. What was queued before is still sent, within the
// write timeout. Close does not wait: the Disconnect hook runs when the connection
// has ended. A second Close does nothing.
func (c *Conn) Close(code int, reason string) error {
	switch {
	case code == 1000, code == 1001, code == 1008, code >= 1011 && code <= 1014, code >= 3000 && code <= 4999:
	default:
		return fmt.Errorf("pushy: close: code %d is not one that a server may send", code)
	}
	if len(reason) > 123 || !utf8.ValidString(reason) {
		return errors.New("pushy: close: reason must be valid UTF-8 of at most 123 bytes")
	}
	c.end(code, reason)
	return nil
}

// end begins the connection's end; the reader does the rest. The first caller's
// code and reason stand. It does not block and may be called under the locks of
// a channel: a fan-out may be what finds a client too slow.
func (c *connection) end(code int, reason string) {
	c.endAs(code, c.sentCode(code), reason)
}

// sentCode returns what a close code is sent as. Clients that are not pushy's
// connect again after 1012 and not after 3001, so a bare WebSocket gets that.
func (c *connection) sentCode(code int) int {
	if code == CloseShutdown && c.session.Protocol() == "rawwebsocket" {
		return codeServiceRestart
	}
	return code
}

// endAs is end with the code that is sent.
func (c *connection) endAs(code, sent int, reason string) {
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

// abort cuts the connection without a word.
func (c *connection) abort(code int, reason string) {
	c.end(code, reason)
	c.out.Discard()
	c.session.Abort()
}

// serve begins the connection. Its reader is one goroutine at a time, from here
// to the end of its last read.
func (c *connection) serve() {
	s := c.srv
	// A client that knows its id may have it used at once, so it learns it only
	// when the Connect hook has run; what that sends comes after.
	c.out.Hold()
	c.session.Start(c.out)
	hello := wire.Object(nil).Text("socketId", c.id).Text("protocol", c.session.Protocol())
	c.out.Send(replyFrame(eventConnect, hello, nil))
	if connect := s.opts.Hooks.Connect; connect != nil {
		s.hook("Connect", func() { connect(&c.plain) })
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
func (c *connection) read() {
	s := c.srv
	dispatching := false
	defer func() {
		if dispatching {
			go c.read()
		}
	}()
	message, err := c.session.Receive()
	for ; err == nil; message, err = c.session.Receive() {
		now := time.Now()
		few := c.early < chattyAfter || now.Sub(c.budget.Last()) > chatty
		c.early = min(c.early+1, chattyAfter)
		dispatching = true
		s.dispatch(c, message, now)
		dispatching = false
		if few {
			go c.read()
			return
		}
	}
	defer s.tasks.End()
	c.ended(err)
	c.finish()
	defer context.AfterFunc(s.cutOff, c.session.Abort)()
	c.session.Linger()
}

// ended turns why Receive stopped into the connection's end.
func (c *connection) ended(err error) {
	var why *session.CloseError
	switch {
	case !errors.As(err, &why), why.Cause == session.Lost:
		c.end(codeLost, err.Error())
	case why.Cause == session.Stopped:
		// end was called, and has said why.
	default:
		if why.Cause == session.Fault && why.Code == codeTooBig {
			limit := c.srv.opts.Limits.MessageBytes
			c.srv.notices.Warn("connection closed: a message is too large", "",
				slog.Int("limit", limit),
				slog.String("conn", c.id),
				slog.String("hint", fmt.Sprintf("a message is over the limit of %d bytes: "+
					"send less, or raise Options.Limits.MessageBytes", limit)))
		}
		c.endAs(why.Code, why.Code, why.Reason) // the peer's own code is its answer
	}
}

// finish is the one clean-up: it leaves every channel, forgets the connection
// and runs the Disconnect hook. The reader calls it; Shutdown does for a reader
// that a command holds up past its deadline. The second caller waits for the
// first, on a channel: a mutex would hold up the fake time of a test.
func (c *connection) finish() {
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
	subs := c.subs.Values()
	c.mu.Unlock()
	c.cancel()
	s := c.srv
	s.leaveAll(subs)
	select { // Disconnect is the last hook, though others run in other goroutines
	case <-c.hooks.Close():
	case <-s.cutOff.Done():
	}
	s.door.Leave(c.id)
	if disconnect := s.opts.Hooks.Disconnect; disconnect != nil {
		s.hook("Disconnect", func() { disconnect(&c.plain, code, reason) })
	}
}
