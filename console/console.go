// Package console is a page on which an operator sees what the Servers of a cluster do, and can
// remove users and publish events. It is an http.Handler that is embedded in the program: it loads
// nothing from other origins, and nothing has to be built.
//
//	page, err := console.New(srv, console.Options{Authorize: operator})
//	if err != nil {
//		log.Fatal(err)
//	}
//	mux.Handle("/console/", page)
//
// The page shows all nodes that share a Broker. Each of these programs must call New, because the
// nodes ask each other for their figures; a node that has not called it is shown as a node without
// a console. While the page is visible it requests the figures every 2 s. A Server determines them
// at most once in that time for all pages and nodes that show them, so the cost depends neither on
// the number of pages nor, apart from one look at each queue, on the number of connections.
//
// A person who can open the console sees the names of channels, the ids and the data of users, and, of a
// connection that is being watched, the content of events. So Authorize must let in only operators.
package console

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/seam"
)

// Options configure a console.
type Options struct {
	// Authorize decides who can use the console. It is called for each request, also for those of
	// the page every 2 s, from many goroutines. who names the operator in the log and on the page.
	// If it returns an error, the request is refused with status 403, or, for pushy.ErrNeedAuth,
	// with 401, after which browsers ask for a name and a password (Request.BasicAuth). Authorize
	// must not be nil.
	Authorize func(r *http.Request) (who string, err error)
	// ReadOnly refuses all actions, with status 403: kick, remove and publish. Connections can be
	// watched.
	ReadOnly bool
	// Hosts are the names under which the console is reached, without a port, such as
	// "ops.example.com". Requests for another host are refused with status 421, because a page of
	// another site can make a browser send requests to this program under the site's own name (DNS
	// rebinding). IP addresses and localhost are always accepted. Default: only those.
	Hosts []string
}

// Console is the handler that New returns.
type console struct {
	srv     *pushy.Server
	log     *slog.Logger
	agent   *agent
	options Options
	hosts   map[string]bool
	protect *http.CrossOriginProtection
	shown   shared[[]byte] // the figures of all nodes, see data
	routes  map[string]route
}

type route struct {
	method string
	serve  func(w http.ResponseWriter, r *http.Request, who string)
}

// New returns the console of a Server. The pattern under which it is mounted must end in "/", and
// behind http.StripPrefix at least "/" of the path must remain. Several consoles of one Server can
// exist, for example one that is ReadOnly. The error says which option is invalid.
func New(srv *pushy.Server, o Options) (http.Handler, error) {
	switch {
	case srv == nil:
		return nil, errors.New("console: the Server is nil")
	case o.Authorize == nil:
		return nil, errors.New("console: Options.Authorize is nil: it must decide who can use the console")
	}
	c := &console{
		srv:     srv,
		log:     seam.Of(srv).Log,
		agent:   agentOf(srv),
		options: o,
		hosts:   map[string]bool{},
		shown:   newShared[[]byte](),
		protect: http.NewCrossOriginProtection(),
	}
	for _, host := range o.Hosts {
		if host == "" || strings.ContainsAny(host, ":/*@ ") {
			return nil, fmt.Errorf("console: Options.Hosts: %q is not the name of a host without a port", host)
		}
		c.hosts[strings.ToLower(host)] = true
	}
	c.routes = map[string]route{
		"data":        {http.MethodGet, c.data},
		"channels":    {http.MethodGet, c.channels},
		"connections": {http.MethodGet, c.connections},
		"connection":  {http.MethodGet, c.connection},
		"members":     {http.MethodGet, c.members},
		"ends":        {http.MethodGet, c.ended},
		"decisions":   {http.MethodGet, c.decisions},
		"watch":       {http.MethodPost, c.watch}, // it changes nothing for the clients
		"kick":        c.action("kick", c.kick),
		"remove":      c.action("remove", c.remove),
		"publish":     c.action("publish", c.publish),
	}
	for name, file := range files {
		c.routes[name] = route{http.MethodGet, file.serve}
	}
	return c, nil
}

// policy lets the page load only its own files, and no page show it in a frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

func (c *console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", policy)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Cache-Control", "no-store")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Referrer-Policy", "no-referrer")
	to, known := c.routes[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
	switch {
	case !c.knows(r.Host):
		httperror.Write(w, http.StatusMisdirectedRequest, "the console does not know the host "+httperror.Shown(r.Host)+
			": if this is its name, add it to console.Options.Hosts")
		return
	case !fromHere(r), c.protect.Check(r) != nil:
		httperror.Write(w, http.StatusForbidden, "the request comes from a page of another origin")
		return
	}
	who, err := c.options.Authorize(r)
	switch {
	case errors.Is(err, pushy.ErrNeedAuth):
		head.Set("WWW-Authenticate", `Basic realm="pushy console", charset="UTF-8"`)
		httperror.Write(w, http.StatusUnauthorized, "authentication needed")
	case err != nil:
		httperror.Write(w, http.StatusForbidden, "not allowed")
	case !known:
		httperror.Write(w, http.StatusNotFound, "not found")
	case r.Method != to.method:
		head.Set("Allow", to.method)
		httperror.Write(w, http.StatusMethodNotAllowed, "the method must be "+to.method)
	default:
		to.serve(w, r, who)
	}
}

// knows reports whether a request for that host can be meant for the console.
func (c *console) knows(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return host == "localhost" || c.hosts[host]
}

// fromHere reports whether a browser sends the request for a page of the console itself, or because
// its user opens the console. Browsers say so; other programs say nothing.
func fromHere(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" &&
		r.Header.Get("Sec-Fetch-Dest") == "document" && strings.HasSuffix(r.URL.Path, "/")
}
