// Package session is what carries one client's messages, as the core sees it:
// the transports implement it, and package hub uses it.
package session

import (
	"fmt"

	"github.com/gopushy/pushy/internal/fanout"
)

// Session is one client's connection.
//
// A Session is used like this: NewOutbox with the Session as its Endpoint, Start,
// Receive until it fails, Close or Discard of the Outbox, Linger. One
// goroutine, the reader, calls Start, Receive and Linger; Stop and Abort may be
// called by any goroutine, any number of times. Every Session whose Receive has
// failed must be given to Linger, which frees what it holds.
type Session interface {
	// A Session is a fanout.Writer or a fanout.Puller; what those have is for
	// the Session's Outbox alone.
	fanout.Endpoint
	// Protocol is the transport's name as pushy:connect announces it.
	Protocol() string
	// ShutdownCode is the close code that the client understands as the server's
	// shutting down (PROTOCOL.md, section 3).
	ShutdownCode() int
	// Start is called once, before Receive. It queues the transport's opening
	// and starts its heartbeats, which go through out.
	Start(out *fanout.Outbox)
	// Receive returns the client's next message, valid until the next call. It
	// may be empty, which is no message of pushy's. The error is a *CloseError,
	// and the same one from then on.
	Receive() ([]byte, error)
	// Stop makes Receive return promptly, also when it is called later. It
	// never blocks, and does nothing once Receive has failed.
	Stop()
	// Linger ends the Session after Receive has failed and the Outbox was
	// closed or discarded. It lets the goodbye go out, waits for the peer's,
	// discarding what comes before it, and cuts the connection: within
	// WriteTimeout and CloseTimeout, and at once if there is nobody to wait for.
	Linger()
	// Abort cuts the connection; Receive, Write, Finish and Linger return soon.
	// Of Stop and Abort, Receive reports which came first.
	Abort()
}

// Close codes of the Sessions' own.
const (
	CloseShutdown = 3001 // the ShutdownCode of SockJS's transports
	CloseRestart  = 1012 // the ShutdownCode of bare WebSockets (RFC 6455's registry)
	CloseLost     = 1006 // of a Session that is Lost; never sent
)

// Cause says why Receive ended, and so what is left to do.
type Cause uint8

const (
	// Closed: the peer said goodbye with Code and Reason. Closing the Outbox
	// with them echoes it.
	Closed Cause = iota + 1
	// Fault: the peer broke a rule or a limit. Code and Reason are what to
	// close the Outbox with.
	Fault
	// Lost: the connection broke, went silent or was aborted; Code is CloseLost.
	// There is nobody to say goodbye to.
	Lost
	// Stopped: Stop was called; Code is 0. Who called it knows the reason.
	Stopped
)

func (c Cause) String() string {
	switch c {
	case Closed:
		return "closed by peer"
	case Fault:
		return "fault of peer"
	case Lost:
		return "connection lost"
	case Stopped:
		return "stopped"
	}
	return fmt.Sprintf("Cause(%d)", uint8(c))
}

// CloseError is why a Session's Receive ended.
type CloseError struct {
	Cause  Cause
	Code   int // the peer's close code, 1005 if it gave none; see Cause
	Reason string
	Err    error // what broke a Lost connection, and the rule behind a Fault; may be nil
}

// LostError is the end of a Session that is Lost.
func LostError(err error) *CloseError {
	return &CloseError{
		Cause: Lost,
		Code:  CloseLost,
		Err:   err,
	}
}

func (e *CloseError) Error() string {
	s := e.Cause.String()
	if e.Code != 0 {
		s += fmt.Sprintf(" (%d)", e.Code)
	}
	if e.Err != nil {
		return s + ": " + e.Err.Error()
	}
	if e.Reason != "" {
		return s + ": " + e.Reason
	}
	return s
}

func (e *CloseError) Unwrap() error { return e.Err }
