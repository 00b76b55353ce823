package pushy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/gopushy/pushy/internal/httperror"
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
// else, at every one of these endpoints.
func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request, path string) {
	page, ok := s.fromAllowedOrigin(w, r)
	if !ok {
		return
	}
	if s.opts.AllowOrigin != nil {
		w.Header().Add("Vary", "Referer") // an iframe's page is known by it
	}
	if page == "" {
		s.origins.Frame(w.Header())
	} else {
		s.origins.Frame(w.Header(), page)
	}
	s.sockets.ServeSockJS(w, r, path)
}

// fromAllowedOrigin applies the origin rule (PROTOCOL.md, section 9). It says
// in the answer that it depends on the origin, and lets the page read it. page
// is the origin that Options.AllowOrigin has allowed, if it had to be asked. A
// request that is refused has been answered.
func (s *Server) fromAllowedOrigin(w http.ResponseWriter, r *http.Request) (page string, ok bool) {
	w.Header().Add("Vary", "Origin")
	page, ok = s.origins.Check(r)
	switch {
	case ok:
		page = ""
	case s.opts.AllowOrigin != nil && page != "" && len(r.Header.Values("Origin")) < 2:
		s.decide(w, "Options.AllowOrigin", func() { ok = s.opts.AllowOrigin(r, page) })
	}
	if !ok {
		s.door.Refuse(refusedOrigin)
		s.refuseOrigin(w, r, page)
		return "", false
	}
	origin.AllowCORS(w.Header(), r)
	return page, true
}

// maxListed is how many of the listed origins a log line has.
const maxListed = 10

func (s *Server) refuseOrigin(w http.ResponseWriter, r *http.Request, page string) {
	shown, host := httperror.Shown(page), httperror.Shown(r.Host)
	hint := "request's Host is " + host + "; behind a proxy pass Host on, or list the origin in Options.Origins"
	message := "Origin " + shown + " is not allowed: " + hint
	switch {
	case len(r.Header.Values("Origin")) > 1:
		hint = "a request has one Origin header; this one has " + strconv.Itoa(len(r.Header.Values("Origin")))
		message = "Origin is not allowed: " + hint
	case page == "":
		hint = "a page of another site made the request, and its browser does not say which; " + hint
		message = "Origin is not allowed: " + hint
	case page == "null":
		hint = "pages in sandboxed iframes and local files have the origin null, which any page can have; " +
			"Options.AllowOrigin can allow it; request's Host is " + host
		message = "Origin null is not allowed: " + hint
	}
	listed := s.origins.Listed()
	if len(listed) > maxListed {
		listed = append(listed[:maxListed], "…")
	}
	s.notices.Warn("origin refused", shown,
		slog.String("origin", shown),
		slog.String("host", host),
		slog.String("listed", strings.Join(listed, " ")),
		slog.String("endpoint", httperror.Shown(s.endpoint(r))),
		slog.String("hint", hint))
	httperror.Write(w, http.StatusForbidden, message)
}

// endpoint is r's path as it is logged: without the id of a SockJS session,
// which is a secret.
func (s *Server) endpoint(r *http.Request) string {
	path := r.URL.EscapedPath()
	if rest, ok := s.socketPath(path); ok && strings.Count(rest, "/") > 1 {
		return s.opts.SockJS.Prefix + "/…" + rest[strings.LastIndexByte(rest, '/'):]
	}
	return path
}

// decide runs a func of the host's that decides about a request. A panic of it
// is logged, at most once a minute, and decides nothing. If it ends the goroutine,
// by runtime.Goexit, w gets an answer first, unless it is nil.
func (s *Server) decide(w http.ResponseWriter, name string, run func()) {
	returned := false
	defer func() {
		if p := recover(); p != nil {
			s.notices.Warn(name+" panicked", "",
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		} else if !returned {
			s.notices.Warn(name+" called runtime.Goexit", "")
			if w != nil {
				httperror.Unfinished(w)
			}
		}
	}()
	run()
	returned = true
}

// admit decides whether r may open a session, before there is one. It answers
// those that may not. A Ticket holds a place among the connections until it is
// used or given back.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) (*transport.Ticket, bool) {
	from := s.network(w, r)
	if refused := s.door.Reserve(from); refused != "" {
		s.refusePlace(w, r, refused)
		return nil, false
	}
	held := true // also if Accept ends the goroutine
	defer func() {
		if held {
			s.door.GiveBack(from)
		}
	}()
	var user any
	if s.opts.Accept != nil {
		var err error
		if user, err = s.accept(w, r); err != nil {
			s.door.Refuse(refusedByAccept)
			s.refuseAccept(w, r, err)
			return nil, false
		}
	}
	held = false
	return &transport.Ticket{
		Start:    func(session transport.Session) { s.connect(session, user, from) },
		GiveBack: func() { s.door.GiveBack(from) },
	}, true
}

// refusePlace answers a connection for which there is no place.
func (s *Server) refusePlace(w http.ResponseWriter, r *http.Request, reason string) {
	message := "the server is shutting down"
	address, limit := r.RemoteAddr, 0
	switch reason {
	case lifecycle.Full:
		limit = s.opts.Limits.Connections
		message = "no more connections now: Options.Limits.Connections is " + strconv.Itoa(limit)
	case lifecycle.Crowded:
		limit = s.opts.Limits.PerAddress
		address = httperror.Shown(s.address(w, r))
		message = "no more connections of this address now: Options.Limits.PerAddress is " + strconv.Itoa(limit) +
			" and the address is " + address + "; behind a proxy set Options.Address"
	}
	if limit > 0 {
		s.notices.Warn("connection refused: a limit is reached", reason,
			slog.String("limit", reason),
			slog.Int("value", limit),
			slog.String("address", address),
			slog.String("hint", message))
	}
	w.Header().Set("Retry-After", "5")
	httperror.Write(w, http.StatusServiceUnavailable, message)
}

// refuseAccept answers a connection that Accept refused with err. Of that the
// client sees an *Error only; the log has all of it.
func (s *Server) refuseAccept(w http.ResponseWriter, r *http.Request, err error) {
	status, code, message := http.StatusForbidden, "", ""
	if errors.Is(err, ErrNeedAuth) {
		status = http.StatusUnauthorized
	}
	if seen := visible(err); seen != nil {
		status, code, message = seen.httpStatus(status), seen.Code, seen.Message
	} else {
		message = "Options.Accept refused this connection; the server's log says why"
		if status == http.StatusUnauthorized {
			message = "Options.Accept wants this client to log in first"
		}
	}
	if code == "" {
		code = strconv.Itoa(status)
	}
	if !errors.Is(err, errAcceptPanicked) { // that is logged
		page := sentOrigin(r)
		s.notices.Warn("connection refused by Options.Accept", strconv.Itoa(status)+page,
			slog.Int("status", status),
			slog.String("error", fmt.Sprint(err)), // whose Error may panic
			slog.String("origin", page),
			slog.String("host", httperror.Shown(r.Host)),
			slog.String("hint", "to let such clients in, Options.Accept must return nil as its error"))
	}
	httperror.WriteCode(w, status, code, message)
}

var errAcceptPanicked = errors.New("pushy: Accept panicked")

func (s *Server) accept(w http.ResponseWriter, r *http.Request) (user any, err error) {
	err = errAcceptPanicked // unless it returns
	s.decide(w, "Options.Accept", func() { user, err = s.opts.Accept(r) })
	return user, err
}

// address is the client's, as Options.Address or else the connection says.
func (s *Server) address(w http.ResponseWriter, r *http.Request) string {
	if s.opts.Address == nil {
		return r.RemoteAddr
	}
	address := ""
	s.decide(w, "Options.Address", func() { address = strings.TrimSpace(s.opts.Address(r)) })
	return address
}

// network is what Limits.PerAddress counts r's client as. What Options.Address
// returns may come from a header: if it is no address, the connection's own
// counts instead, so that nobody gets around the limit with it.
func (s *Server) network(w http.ResponseWriter, r *http.Request) lifecycle.Network {
	if s.opts.Limits.PerAddress <= 0 {
		return 0
	}
	address := s.address(w, r)
	from := lifecycle.NetworkOf(address)
	switch {
	case from != 0:
	case s.opts.Address == nil:
		s.unaddressed.Do(func() {
			s.notices.Warn("Limits.PerAddress counts nobody: the connections have no IP address", "",
				slog.String("address", httperror.Shown(address)),
				slog.String("hint", "behind a Unix socket set Options.Address, so that it returns the client's address from the proxy's header"))
		})
	default:
		s.notices.Warn("Options.Address returned what is no IP address", "",
			slog.String("address", httperror.Shown(address)),
			slog.String("remoteAddr", httperror.Shown(r.RemoteAddr)),
			slog.String("hint", "the connection's own address counts instead; does the proxy set the header that Options.Address reads?"))
		from = max(lifecycle.NetworkOf(r.RemoteAddr), lifecycle.Unknown)
	}
	return from
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
