// Package transport has what the transports share. Each transport is a package in this
// directory: websocket, sockjs, and inmem for tests. A transport carries the messages of
// pushy: each client connection is a session.Session. A Session splits what the client
// sends into single messages, implements the rules of its transport (limits, heartbeats,
// the closing handshake), and writes the frames of its fanout.Outbox. Transports do not
// depend on channels or commands, and do not check origins.
package transport

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/session"
)

// Config has the limits of a Session. All fields must be set, except Heartbeat, Reading,
// RespondFirst and Deflate.
type Config struct {
	MaxMessage   int           // bytes of one message, with fragments joined and SockJS escapes decoded
	Heartbeat    time.Duration // the interval of heartbeats; if not positive, there are none
	WriteTimeout time.Duration // for the handshake response, and in Linger for the queued frames
	CloseTimeout time.Duration // in Linger, for the close frame of the peer
	// RespondFirst makes Upgrade of package websocket write the response to the handshake. Otherwise
	// it is written together with the first frames, which needs one system call less, but can be
	// late if these wait for the host.
	RespondFirst bool
	// Reading counts the bytes of messages that have arrived in part, or that wait for the
	// commands before them. It can be nil.
	Reading *atomic.Int64
	// Deflate negotiates permessage-deflate (RFC 7692) with WebSockets that offer it. It can be nil.
	Deflate *Deflate
}

// Deflate has what WebSockets need of package internal/deflate, which only hosts link that use it.
type Deflate struct {
	// Negotiate returns the value of Sec-WebSocket-Extensions that accepts an offer, or "".
	Negotiate func(header http.Header) string
	// Inflate decompresses the payload of a message. If it would have more than max bytes, the result
	// has more than max bytes, but not many more.
	Inflate func(payload []byte, max int) ([]byte, error)
}

// A Ticket is a reserved place for one session. Exactly one of its funcs is called, once.
type Ticket struct {
	Start    func(session.Session) // uses the place for the Session, and does not block
	GiveBack func()                // gives up the place
}

// Refusal is a request that is answered with an HTTP error.
type Refusal struct {
	Status int
	Text   string
	Plain  bool      // the body is Text only, as SockJS and the handshake require; otherwise see httperror
	Header [2]string // the name and value of an additional header field, or empty
}

// Write writes the response.
func (f *Refusal) Write(w http.ResponseWriter) {
	if f.Header[0] != "" {
		w.Header().Set(f.Header[0], f.Header[1])
	}
	if !f.Plain {
		httperror.Write(w, f.Status, f.Text)
		return
	}
	w.WriteHeader(f.Status)
	_, _ = w.Write([]byte(f.Text))
}
