package pushy

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/gopushy/pushy/internal/lifecycle"
	"github.com/gopushy/pushy/internal/origin"
	"github.com/gopushy/pushy/internal/transport"
)

// Why a connection was refused, as Stats counts it, beside what a Door says.
const (
	refusedOrigin   = "origin"
	refusedByAccept = "accept"
)

// serveSocket serves what browsers connect to. The origin comes before anything
// else, at every one of these doors.
func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request, path string) {
	s.sockets.BoundBody(w, r)
	if !s.fromAllowedOrigin(w, r) {
		http.Error(w, "origin not allowed", http.StatusForbidden)
		return
	}
	s.origins.Frame(w.Header())
	s.sockets.ServeSockJS(w, r, path)
}

// fromAllowedOrigin applies the origin rule (PROTOCOL.md, section 9). It says
// in the answer that it depends on the origin, and lets the page read it.
func (s *Server) fromAllowedOrigin(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Add("Vary", "Origin")
	if !s.origins.Allows(r) {
		s.door.Refuse(refusedOrigin)
		return false
	}
	origin.AllowCORS(w.Header(), r)
	return true
}

// admit decides whether r may open a session, before there is one. It answers
// those that may not. A Ticket holds a place among the connections until it is
// used or given back.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) (*transport.Ticket, bool) {
	from := lifecycle.NetworkOf(r.RemoteAddr)
	if s.door.Reserve(from) != "" {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "no more connections now", http.StatusServiceUnavailable)
		return nil, false
	}
	var user any
	if s.opts.Accept != nil {
		var err error
		if user, err = s.accept(r); err != nil {
			s.door.GiveBack(from)
			s.door.Refuse(refusedByAccept)
			status := http.StatusForbidden
			if errors.Is(err, ErrNeedAuth) {
				status = http.StatusUnauthorized
			}
			http.Error(w, strings.ToLower(http.StatusText(status)), status)
			return nil, false
		}
	}
	return &transport.Ticket{
		Start:    func(session transport.Session) { s.connect(session, user, from) },
		GiveBack: func() { s.door.GiveBack(from) },
	}, true
}

var errAcceptPanicked = errors.New("pushy: Accept panicked")

func (s *Server) accept(r *http.Request) (user any, err error) {
	err = errAcceptPanicked // unless it returns
	s.hook("Accept", func() { user, err = s.opts.Accept(r) })
	return user, err
}

// connect makes an admitted session a connection and starts its reader.
func (s *Server) connect(session transport.Session, user any, from lifecycle.Network) {
	c := &connection{
		srv:     s,
		id:      s.newConnID(),
		user:    user,
		session: session,
	}
	c.plain.connection = c
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.out = s.engine.NewOutbox(session, c.end)
	if !s.door.Enter(c.id, c, from, s.tasks.Start) {
		c.cancel()
		c.out.Discard()
		session.Abort()
		return
	}
	go c.serve()
}
