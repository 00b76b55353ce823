package pushy

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/origin"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
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
	page, refused := s.allowedPage(r)
	if refused != nil {
		writeRefusal(w, refused)
		return "", false
	}
	origin.AllowCORS(w.Header(), r)
	return page, true
}

// allowedPage is fromAllowedOrigin without an answer.
func (s *Server) allowedPage(r *http.Request) (page string, refused *seam.Refusal) {
	page, ok := s.origins.Check(r)
	switch {
	case ok:
		return "", nil
	case s.opts.AllowOrigin != nil && page != "" && len(r.Header.Values("Origin")) < 2:
		s.decide("Options.AllowOrigin", func() { ok = s.opts.AllowOrigin(r, page) })
	}
	if !ok {
		s.hub.Admission().Refuse(hub.RefusedOrigin)
		return "", s.refuseOrigin(r, page)
	}
	return page, nil
}

// checkOrigin is seam.Server.Origin.
func (s *Server) checkOrigin(r *http.Request) (seam.Origin, *seam.Refusal) {
	_, refused := s.allowedPage(r)
	return seam.Origin{Any: refused == nil && s.origins.ByStar(r)}, refused
}

// writeRefusal answers a request that is refused.
func writeRefusal(w http.ResponseWriter, f *seam.Refusal) {
	if f.After > 0 {
		w.Header().Set("Retry-After", retryAfter(f.After))
		w.Header().Set("Access-Control-Expose-Headers", "Retry-After") // for pages of other origins
	}
	httperror.WriteCode(w, f.Status, cmp.Or(f.Code, strconv.Itoa(f.Status)), f.Message)
}

// retryAfter returns a time as the header Retry-After has it: in seconds, rounded up.
func retryAfter(after time.Duration) string {
	return strconv.Itoa(int((after + time.Second - 1) / time.Second))
}

// maxListed is how many of the listed origins a log line has.
const maxListed = 10

func (s *Server) refuseOrigin(r *http.Request, page string) *seam.Refusal {
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
	return &seam.Refusal{
		Status:  http.StatusForbidden,
		Message: message,
	}
}

// endpoint is r's path as it is logged: without the id of a SockJS session,
// which is a secret.
func (s *Server) endpoint(r *http.Request) string {
	path := r.URL.EscapedPath()
	if base, rest, ok := s.socketPath(path); ok && strings.Count(rest, "/") > 1 {
		return base + "/…" + rest[strings.LastIndexByte(rest, '/'):]
	}
	return path
}

// admit decides whether r may open a session, before there is one. It answers
// those that may not. A Ticket holds a place among the connections until it is
// used or given back. socket means that the session will be a WebSocket.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, socket bool) (*transport.Ticket, bool) {
	place, refused := s.reserve(r, socket, hub.Client{Version: version(r)})
	if refused != nil {
		writeRefusal(w, refused)
		return nil, false
	}
	return &transport.Ticket{
		Start:    func(session session.Session) { place.Connect(session) },
		GiveBack: place.GiveBack,
	}, true
}

// reserve is admit without an answer. The Version, and what another protocol has set, of as are used. Its
// UserID is used if there is no Options.Accept.
func (s *Server) reserve(r *http.Request, socket bool, as hub.Client) (*seam.Place, *seam.Refusal) {
	client := s.count(r)
	from := client.network
	if refused := s.connectAllowed(r, client); refused != nil {
		return nil, refused
	}
	if reason := s.hub.Admission().Reserve(from); reason != "" {
		return nil, s.refusePlace(r, reason, client)
	}
	giveBack := func() { s.hub.Admission().GiveBack(from) }
	if _, ok := s.rates.accepted.Take(time.Now(), 1); !ok {
		return s.overAcceptRate(socket, giveBack)
	}
	var user any
	userID := as.UserID
	if s.opts.Accept != nil {
		var err error
		if user, userID, err = s.accept(r); err != nil {
			giveBack()
			s.hub.Admission().Refuse(hub.RefusedByAccept)
			return nil, s.refuseAccept(r, err)
		}
	}
	if reason, banned := s.banned(userID, ""); banned && userID != "" {
		giveBack()
		s.hub.Admission().Refuse(hub.RefusedBanned)
		s.notices.Warn("connection refused: the user is banned", "",
			slog.String("user", httperror.Shown(userID)),
			slog.String("reason", reason),
			slog.String("hint", "Server.Bans lists the bans, and Server.Unban ends one"))
		return nil, &seam.Refusal{
			Status:  http.StatusForbidden,
			Code:    codeBanned,
			Message: reason,
		}
	}
	as.User = user
	as.UserID = userID
	as.Network = from
	as.Address = shownAddress(r, client)
	as.Agent = agentOf(r)
	return &seam.Place{
		Connect: func(session session.Session) *hub.Conn {
			return s.hub.Connect(session, as)
		},
		GiveBack: giveBack,
	}, nil
}

// version returns the version of the protocol that a client names in its URL
// (PROTOCOL.md, section 2).
func version(r *http.Request) uint8 {
	if r.URL.RawQuery != "" && r.URL.Query().Get("v") == "2" {
		return 2
	}
	return 1
}

// refusePlace refuses a connection for which there is no place.
func (s *Server) refusePlace(r *http.Request, reason string, client counted) *seam.Refusal {
	message := "the server is shutting down"
	address, most := r.RemoteAddr, 0
	again := seam.Draining
	switch reason {
	case hub.RefusedMemory:
		again = seam.Memory
		message = "no more connections now: the server lacks memory" // guardMemory logs it
	case hub.RefusedFull:
		again = seam.Full
		most = s.opts.Limits.Connections
		message = "no more connections now: Options.Limits.Connections is " + strconv.Itoa(most)
	case hub.RefusedAddress:
		again = seam.OfAddress
		most = s.opts.Limits.PerAddress
		address = client.address
		message = "no more connections of this address now: Options.Limits.PerAddress is " + strconv.Itoa(most) +
			" and the address is " + client.String()
	}
	if most > 0 {
		s.notices.Warn("connection refused: a limit is reached", reason,
			slog.String("limit", reason),
			slog.Int("value", most),
			slog.String("address", address),
			slog.String("hint", message))
	}
	return &seam.Refusal{
		Status:  http.StatusServiceUnavailable,
		Message: message,
		Again:   again,
		After:   5 * time.Second,
	}
}

// refuseAccept refuses a connection that Accept refused with err. Of that the
// client sees an *Error only; the log has all of it.
func (s *Server) refuseAccept(r *http.Request, err error) *seam.Refusal {
	if errors.Is(err, errAcceptEnded) {
		return &seam.Refusal{
			Status:  http.StatusInternalServerError,
			Message: "Internal error",
		}
	}
	status := refusedStatus(err)
	code := strconv.Itoa(status)
	message := "Options.Accept refused this connection; the server's log says why"
	if status == http.StatusUnauthorized {
		message = "Options.Accept wants this client to log in first"
	}
	if seen := visible(err); seen != nil {
		code = cmp.Or(seen.Code, code)
		message = cmp.Or(seen.Message, message)
	}
	if !errors.Is(err, errAcceptPanicked) { // that is logged
		page := sentOrigin(r)
		s.notices.Warn("connection refused by Options.Accept", strconv.Itoa(status)+page,
			slog.Int("status", status),
			slog.String("error", err.Error()),
			slog.String("origin", page),
			slog.String("host", httperror.Shown(r.Host)),
			slog.String("hint", "to let such clients in, Options.Accept must return nil as its error"))
	}
	return &seam.Refusal{
		Status:  status,
		Code:    code,
		Message: message,
	}
}

// Both are logged.
var (
	errAcceptPanicked = errors.New("pushy: Accept panicked")
	errAcceptEnded    = errors.New("pushy: Accept ended its goroutine")
)

func (s *Server) accept(r *http.Request) (user any, userID string, err error) {
	f := s.decide("Options.Accept", func() {
		u, refused := s.opts.Accept(r)
		user, err = u, readable(refused)
		if err == nil {
			userID = s.userIDOf(u)
		}
	})
	switch {
	case f == nil:
		return user, userID, err
	case f.panicked == nil:
		return nil, "", errAcceptEnded
	}
	return nil, "", errAcceptPanicked
}

// maxUserID bounds a user's id in bytes: other nodes take no member of a longer one.
const maxUserID = 128

func (s *Server) userIDOf(user any) (id string) {
	switch user := user.(type) {
	case string:
		id = user
	case interface{ UserID() string }:
		id = user.UserID()
	}
	if len(id) <= maxUserID && utf8.ValidString(id) {
		return id
	}
	s.notices.Warn("a user has no UserID: it is too long or not UTF-8", "",
		slog.Int("bytes", len(id)),
		slog.Int("limit", maxUserID),
		slog.String("hint", "what Options.Accept returns is an id if it is a string or has a method UserID() string; "+
			"such connections work, and Conn.UserID is empty"))
	return ""
}
