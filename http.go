package pushy

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/client"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/lifecycle"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/transport/sockjs"
)

// ServeHTTP serves everything under Options.Prefix: the SockJS endpoints, the
// signed API, the trigger, and the browser client's pushy.js, more.js, pushy.mjs and pushy.d.ts.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header["Upgrade"] != nil {
		lifecycle.GrowStack() // a WebSocket is opened in this goroutine
	}
	w.Header()["X-Content-Type-Options"] = []string{"nosniff"} // the key has its canonical form

	if r.Body == nil { // net/http never does that, but middleware may
		r.Body = http.NoBody
	}
	s.boundBody(w, r)
	r, release := s.countBody(r)
	defer release()
	path := r.URL.EscapedPath()
	rest, ok := under(path, s.opts.Prefix)
	if name, is := apiName(rest); ok && is {
		if _, _, socket := s.socketPath(path); !socket { // SockJS.Prefix may be below /api/
			s.serveAPI(w, r, name)
			return
		}
	}
	triggers := ok && !s.opts.DisableTrigger && !s.opts.DisableV1
	if name, is := triggerName(rest); triggers && is && !strings.Contains(name, "/") {
		if name, err := url.PathUnescape(name); err == nil {
			s.serveTrigger(w, r, name)
			return
		}
	}
	if ok && client.Serve(w, r, rest) {
		return
	}
	if _, socket, ok := s.socketPath(path); ok {
		s.serveSocket(w, r, socket)
		return
	}
	s.serveNothing(w, r, path)
}

// boundBody bounds the time for a body that no handler may look at: the server
// reads it before it answers, however slowly it comes. Where no deadline can be
// set, the host's http.Server has to see to that.
func (s *Server) boundBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		until := time.Now().Add(limit.Or(s.opts.BodyTimeout, forever))
		_ = http.NewResponseController(w).SetReadDeadline(until)
	}
}

// under returns what follows prefix in path.
func under(path, prefix string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, prefix)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// triggerName returns the channel's name, still escaped, from the path of a
// trigger under the prefix.
func triggerName(rest string) (name string, ok bool) {
	if name, ok = strings.CutPrefix(rest, "/channel/"); ok {
		name, ok = strings.CutSuffix(strings.TrimSuffix(name, "/"), "/trigger")
	}
	return name, ok
}

// socketBases returns the paths under which SockJS is served. The browser client
// takes the URL of the prefix or of the socket: to one that does not end in /socket
// it appends that. So where SockJS.Prefix does not end in /socket, and where
// Options.Prefix itself does, what the client makes of them is served, too.
func (o *Options) socketBases() []string {
	bases := []string{o.SockJS.Prefix}
	if !strings.HasSuffix(o.SockJS.Prefix, "/socket") {
		bases = append(bases, o.SockJS.Prefix+"/socket")
	}
	if strings.HasSuffix(o.Prefix, "/socket") && o.SockJS.Prefix == o.Prefix+"/socket" {
		bases = append(bases, o.Prefix)
	}
	return bases
}

// socketPath returns which of the bases path is under, and what follows it. Two of
// them differ by one "/socket", which may also be the server in a session's URL. What
// follows decides: no endpoint of SockJS is another one with "/socket" before it.
func (s *Server) socketPath(path string) (base, rest string, ok bool) {
	for _, base := range s.socketBases {
		if rest, ok := under(path, base); ok && sockjs.IsEndpoint(rest) {
			return base, rest, true
		}
	}
	// SockJS has an answer of its own for what is under its prefix and nothing.
	rest, ok = under(path, s.opts.SockJS.Prefix)
	if inside, is := under(path, s.opts.Prefix); is {
		_, trigger := triggerName(inside)
		ok = ok && !trigger
	}
	return s.opts.SockJS.Prefix, rest, ok
}

// serveNothing answers a request for a path at which nothing is, which most
// often is a server mounted in another way than its Options say.
func (s *Server) serveNothing(w http.ResponseWriter, r *http.Request, path string) {
	kind, message := s.whyNothing(r, path)
	page := sentOrigin(r)
	s.notices.Warn(kind, page,
		slog.String("path", httperror.Shown(path)),
		slog.String("prefix", shownPrefix(s.opts.Prefix)),
		slog.String("origin", page),
		slog.String("hint", message))
	httperror.Write(w, http.StatusNotFound, message)
}

func (s *Server) whyNothing(r *http.Request, path string) (kind, message string) {
	prefix, shown := shownPrefix(s.opts.Prefix), httperror.Shown(path)
	rest, ok := under(path, s.opts.Prefix)
	asked, _, _ := strings.Cut(r.RequestURI, "?") // as the client sent it
	if u, err := url.ParseRequestURI(asked); err == nil {
		asked = u.EscapedPath()
	}
	switch {
	case !ok && !strings.HasPrefix(path, "/"):
		return "path without a slash at its beginning", "path " + shown + " does not begin with a slash: " +
			`give http.StripPrefix a prefix that does not end in a slash, and set Options.Prefix to "/"`
	case !ok && asked != path && strings.HasSuffix(asked, path):
		return "path outside Options.Prefix", "path " + httperror.Shown(asked) + " was shortened to " + shown +
			" before it came to pushy, and Options.Prefix is " + prefix + `: behind http.StripPrefix set Options.Prefix to "/"`
	case !ok:
		return "path outside Options.Prefix", "path " + shown + " is outside Options.Prefix, which is " + prefix +
			": set it to the path that the server is mounted under, or use URLs that begin with " + prefix
	}
	if name, is := triggerName(rest); is {
		if s.opts.DisableV1 {
			return "trigger while version 1 is disabled", "triggers are disabled here: Options.DisableV1 is set; " +
				"POST a signed request to " + s.opts.Prefix + "/api/publish"
		}
		if s.opts.DisableTrigger {
			return "trigger while triggers are disabled", "triggers are disabled here: Options.DisableTrigger is set"
		}
		return "trigger with a slash in the channel's name", "path " + shown +
			" has the channel name " + httperror.Shown(name) + ", in which a slash must be escaped as %2F; " +
			"if it was, a proxy has decoded it, and must forward the path unchanged"
	}
	if rest == "/events" {
		return "events that are not served", "Server-Sent Events are not served here: " +
			"mount sse.New at this path; in pushy-server, set the key events"
	}
	if rest == "/auth" {
		return "auth endpoint that is not served", "no tokens are given at " + shown +
			", the default of the browser client: mount Server.AuthHandler there, or name your endpoint on the page, " +
			`as in new Pushy(url, { auth: "/auth" })`
	}
	if rest == "" && prefix != "/" {
		return "path that is not served", "nothing is served at " + shown + " itself: use URLs that begin with " + prefix +
			"/, and mount the server there, with the slash at the end"
	}
	return "path that is not served", "nothing is served at " + shown + ": there are " + s.opts.SockJS.Prefix + "/…, " +
		s.opts.Prefix + "/channel/{name}/trigger, " + s.opts.Prefix + "/api/{call} and " +
		s.opts.Prefix + "/pushy.js (Options.Prefix is " + prefix + ")"
}

// shownPrefix is a prefix as Options have it.
func shownPrefix(prefix string) string {
	if prefix == "" {
		return "/"
	}
	return prefix
}

// sentOrigin is r's Origin as it is logged, "" without one.
func sentOrigin(r *http.Request) string {
	value := r.Header.Get("Origin")
	if value != "" {
		value = httperror.Shown(value)
	}
	return value
}

// visible returns the *Error in err, which a client may see, or nil.
func visible(err error) *Error {
	var seen *Error
	if errors.As(err, &seen) {
		return seen
	}
	return nil
}

// refusedStatus is the status of the answer to a client that the host has refused
// with err: the Code of the *Error in it, if that is a status from 400 to 499, else
// 401 for ErrNeedAuth and 403.
func refusedStatus(err error) int {
	if seen := visible(err); seen != nil && len(seen.Code) == 3 {
		if n, err := strconv.Atoi(seen.Code); err == nil && n >= 400 && n < 500 {
			return n
		}
	}
	if errors.Is(err, ErrNeedAuth) {
		return http.StatusUnauthorized
	}
	return http.StatusForbidden
}
