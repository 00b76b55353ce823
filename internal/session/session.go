// Package session is the interface between the core and the transports: it carries the
// messages of one client. The transports implement it, and package hub uses it.
package session

import (
	"fmt"
	"strconv"

	"github.com/gopushy/pushy/internal/fanout"
)

// Session is the connection of one client.
//
// It is used in this order: NewOutbox with the Session as its Endpoint, Start, Receive
// until it fails, Close or Discard of the Outbox, Linger. One goroutine, the reader, calls
// Start, Receive and Linger. Any goroutine can call Stop and Abort, any number of times.
// When Receive has failed, Linger must be called, because it releases the resources of the
// Session.
type Session interface {
	// A Session is a fanout.Writer or a fanout.Puller. Only the Session's Outbox calls the
	// methods of those interfaces.
	fanout.Endpoint
	// Protocol returns the transport's name as it is in pushy:connect.
	Protocol() string
	// ShutdownCode returns the close code that the client understands as a shutdown of the
	// server (PROTOCOL.md, section 3).
	ShutdownCode() int
	// Start is called once, before Receive. It queues the opening frame of the transport
	// and starts its heartbeats, which are written through out.
	Start(out *fanout.Outbox)
	// Receive returns the client's next message, which is valid until the next call. A
	// message can be empty; then it is not a message of the pushy protocol. The error is a
	// *CloseError, and later calls return the same error.
	Receive() ([]byte, error)
	// Stop makes Receive return promptly, including later calls. It never blocks, and has
	// no effect after Receive has failed.
	Stop()
	// Linger ends the Session after Receive has failed and the Outbox was closed or
	// discarded. It waits until the close frame is written, waits for the close frame of
	// the peer, discards what arrives before it, and closes the connection. This takes at
	// most WriteTimeout and CloseTimeout. If no close frame is expected, Linger closes the
	// connection at once.
	Linger()
	// Abort closes the connection; Receive, Write, Finish and Linger return soon. If Stop
	// was called, too, Receive reports the first of the two.
	Abort()
}

// Parker is implemented by a Session whose reader needs no goroutine while it waits for messages: the
// stack of a goroutine would be the largest part of the memory of an idle connection.
type Parker interface {
	// Park returns true if the Session waits for the reader: then it calls r.Resume once, in a
	// goroutine of its own, when Receive can return something, also because Stop or Abort was
	// called. Meanwhile there is no reader, and the last result of Receive is not valid any more. If
	// Park returns false, the reader has to call Receive.
	Park(r Reader) bool
}

// Reader is the reader of a Session.
type Reader interface{ Resume() }

// Close codes of the Sessions' own.
const (
	CloseShutdown = 3001 // the ShutdownCode of SockJS's transports
	CloseRestart  = 1012 // the ShutdownCode of bare WebSockets (RFC 6455's registry)
	CloseSlow     = 3008 // of a peer that does not read; package fanout chooses it
	CloseLost     = 1006 // of a Session that is Lost; never sent
)

// Cause says why Receive ended.
type Cause uint8

const (
	// Closed: the peer sent a close frame with Code and Reason. Closing the Outbox with the
	// same values answers it.
	Closed Cause = iota + 1
	// Fault: the peer violated a rule or a limit. The Outbox is to be closed with Code and
	// Reason.
	Fault
	// Lost: the connection failed, was silent for too long or was aborted; Code is
	// CloseLost. A close frame cannot be sent.
	Lost
	// Stopped: Stop was called; Code is 0. The caller of Stop knows the reason.
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

// CloseError is the error with which Receive of a Session ends.
type CloseError struct {
	Cause  Cause
	Code   int // the peer's close code, 1005 if it gave none; see Cause
	Reason string
	Err    error // what broke a Lost connection, and the rule behind a Fault; may be nil
}

// LostError returns the error of a Session that is Lost.
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
		s += " (" + strconv.Itoa(e.Code) + ")"
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
