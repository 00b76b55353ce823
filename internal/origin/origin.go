// Package origin is the rule for which pages may reach a server (PROTOCOL.md,
// section 9).
package origin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Policy allows a request's own origin and those it lists. Its zero value lists
// none. It is immutable.
type Policy struct {
	any    bool
	listed []entry
}

// New returns a Policy for origins such as "https://app.example.com",
// "https://*.example.com" and "file://"; "*" is any. They are brought to the form
// that browsers send. One that no browser can send is an error with the reason.
func New(origins []string) (Policy, error) {
	var p Policy
	for _, origin := range origins {
		if origin == "*" {
			p.any = true
			continue
		}
		e, err := parseEntry(origin)
		if err != nil {
			return Policy{}, fmt.Errorf("%q: %w", origin, err)
		}
		p.listed = append(p.listed, e)
	}
	return p, nil
}

// Any reports whether p allows every origin.
func (p Policy) Any() bool { return p.any }

// Listed returns the listed origins in the form that browsers send.
func (p Policy) Listed() []string {
	all := make([]string, len(p.listed))
	for i, e := range p.listed {
		all[i] = e.String()
	}
	return all
}

// Check reports whether r may come in, and the origin of the page that made it:
// as browsers send it, the header's own value if that is no origin, such as
// "null", or "" if nothing says which page it is.
func (p Policy) Check(r *http.Request) (page string, allowed bool) {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		page, allowed = p.checkUnsaid(r)
	} else {
		page, allowed = p.checkPage(values[0], r.Host)
		allowed = allowed && len(values) == 1
	}
	return page, allowed || p.any
}

// checkUnsaid is Check without an Origin. Browsers leave it out where a page
// embeds an answer, as a script or in an iframe, but say that another site's
// page does. Which page is in Referer, if that page does not hide it; it cannot
// choose what is there. Clients that are no browsers say none of it.
func (p Policy) checkUnsaid(r *http.Request) (page string, allowed bool) {
	referer := r.Referer()
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return "", true
	case "cross-site", "same-site": // the own page among them, if its script was redirected
		if referer == "" {
			return "", false
		}
		return p.checkPage(referer, "")
	}
	if referer == "" {
		return "", true
	}
	return p.checkPage(referer, r.Host)
}

// checkPage reports whether the page at that URL is listed, or of that host.
func (p Policy) checkPage(at, host string) (page string, allowed bool) {
	scheme, name, ok := split(at)
	if !ok {
		return at, false // "null" among them: any page can make itself a null origin
	}
	page = scheme + "://" + name
	// The scheme is not compared: behind a proxy that ends TLS it differs.
	if name != "" && name == hostPort(scheme, host) {
		return page, true
	}
	bare, port, err := splitPort(name)
	return page, err == nil && slices.ContainsFunc(p.listed, func(e entry) bool { return e.allows(scheme, bare, port) })
}

// split returns the scheme, and the host and port, of the page at a URL.
func split(page string) (scheme, name string, ok bool) {
	u, err := url.Parse(page)
	if err != nil || u.Scheme == "" || u.Host == "" && (u.Scheme != "file" || !strings.HasPrefix(page, "file://")) {
		return "", "", false
	}
	return u.Scheme, hostPort(u.Scheme, u.Host), true
}

// Frame tells browsers that pages of other origins may not put the answer into
// an iframe, where they could lead the visitor's clicks, or SockJS's iframe page.
// pages may do so beside those that are listed.
func (p Policy) Frame(h http.Header, pages ...string) {
	if p.any {
		return
	}
	sources := append([]string{"frame-ancestors 'self'"}, p.Listed()...)
	for _, page := range pages {
		// Nothing that could be another source, or another directive.
		if e, err := parseEntry(page); err == nil && !e.star {
			sources = append(sources, e.String())
		}
	}
	for i, source := range sources {
		if source == "file://" {
			sources[i] = "file:"
		}
	}
	h.Set("Content-Security-Policy", strings.Join(sources, " "))
}

// Page returns the origin of the page that made r, "" for one of the host's own,
// and whether r says so at all.
func Page(r *http.Request) (page string, said bool) {
	if r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		return "", true // also where a proxy has changed the Host
	}
	value := r.Header.Get("Origin")
	if value == "" {
		value = r.Referer()
	}
	if value == "" {
		return "", false
	}
	scheme, name, ok := split(value)
	switch {
	case !ok:
		return value, true // "null", for one
	case name != "" && name == hostPort(scheme, r.Host):
		return "", true
	}
	return scheme + "://" + name, true
}

// hostPort returns host in lower case, without its scheme's own port.
func hostPort(scheme, host string) string {
	host = strings.ToLower(host)
	if port := defaultPorts[scheme]; port != "" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return host
}

// AllowCORS lets the page that made r, whose origin is allowed, read the answer.
func AllowCORS(h http.Header, r *http.Request) {
	if origin := r.Header.Get("Origin"); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}

const (
	// maxAskedHeaders bounds what a preflight may ask for, in bytes.
	maxAskedHeaders = 2 << 10
	// headerNames are the characters of a list of header names, without those
	// that stand for more than themselves in the answer, such as the star.
	headerNames = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!#$&'+^`|~, \t"
)

// Preflight allows the methods given, and the headers that r, a CORS preflight
// of an allowed origin, asks for; unasked if it asks for none.
func Preflight(h http.Header, r *http.Request, methods, unasked string) {
	h.Add("Vary", "Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", methods)
	asked := strings.Join(r.Header.Values("Access-Control-Request-Headers"), ", ")
	odd := strings.ContainsFunc(asked, func(c rune) bool { return !strings.ContainsRune(headerNames, c) })
	if asked == "" || len(asked) > maxAskedHeaders || odd {
		asked = unasked
	}
	if asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
}
