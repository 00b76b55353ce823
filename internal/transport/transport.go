// Package transport is what the transports share, of which each is a package in this
// directory: websocket, sockjs, and inmem for tests. A transport carries pushy's
// messages: each client connection is a session.Session, whatever it runs over, which
// decodes what the client sends into single messages, keeps the rules of its transport
// (limits, heartbeats, the closing handshake) and writes what its fanout.Outbox hands
// it. Transports know nothing of channels or commands, and do not check origins.
package transport

import (
	"net/http"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/session"
)

// Config holds a Session's bounds; each must be set but Heartbeat.
type Config struct {
	MaxMessage   int           // bytes of one message, fragments joined and SockJS's escapes undone
	Heartbeat    time.Duration // between heartbeats; none if not above zero
	WriteTimeout time.Duration // for the handshake's answer, and in Linger for what still waits
	CloseTimeout time.Duration // in Linger, for the peer's answer to our goodbye
}

// A Ticket is a place for one session. One of its funcs is called, once.
type Ticket struct {
	Start    func(session.Session) // takes the Session, and returns soon
	GiveBack func()
}

// Refusal is a request that is answered with an HTTP error.
type Refusal struct {
	Status int
	Text   string
	Plain  bool      // SockJS's own words, and those about a handshake: the text alone is the body
	Header [2]string // one more, or none
}

// Write answers the request.
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
