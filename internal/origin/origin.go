// Package origin decides which pages may use a server (PROTOCOL.md, section 9), and sets the
// headers of CORS and framing.
package origin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Policy allows pages of the origin of the request itself, and of the listed origins. The
// zero value lists none. A Policy is immutable.
type Policy struct {
	any    bool
	listed []entry
}

// New returns a Policy for origins such as "https://app.example.com",
// "https://*.example.com" and "file://"; "*" allows any origin. New converts them to the form
// that browsers send. The error says why no browser can send an origin.
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

// Check reports whether r is allowed, and returns the origin of the page that made it, in
// the form that browsers send. If the Origin header is not an origin, for example "null",
// page is its value. If the page is not known, page is "".
func (p Policy) Check(r *http.Request) (page string, allowed bool) {
	page, allowed = p.checkNamed(r)
	return page, allowed || p.any
}

// ByStar reports whether only the "*" of p allows r.
func (p Policy) ByStar(r *http.Request) bool {
	_, named := p.checkNamed(r)
	return p.any && !named
}

// checkNamed is Check without the "*".
func (p Policy) checkNamed(r *http.Request) (page string, allowed bool) {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		page, allowed = p.checkWithoutOrigin(r)
	} else {
		page, allowed = p.checkPage(values[0], r.Host)
		allowed = allowed && len(values) == 1
	}
	return page, allowed
}

// checkWithoutOrigin is Check for a request without an Origin header. Browsers omit the
// header if a page embeds the response as a script or in an iframe, but then
// Sec-Fetch-Site says whether the page is of another site. The Referer header has the page,
// which can hide it but cannot choose it. Clients that are not browsers send none of these.
func (p Policy) checkWithoutOrigin(r *http.Request) (page string, allowed bool) {
	referer := r.Referer()
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return "", true
	case "cross-site", "same-site": // also a page of the own origin whose script was redirected
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

// checkPage reports whether the page at that URL has a listed origin or that host.
func (p Policy) checkPage(at, host string) (page string, allowed bool) {
	scheme, name, ok := split(at)
	if !ok {
		return at, false // also for "null", because any page can make its origin null
	}
	page = scheme + "://" + name
	// The scheme is not compared, because it differs behind a proxy that terminates TLS.
	if name != "" && name == hostPort(scheme, host) {
		return page, true
	}
	bare, port, err := splitPort(name)
	return page, err == nil && slices.ContainsFunc(p.listed, func(e entry) bool { return e.allows(scheme, bare, port) })
}

// split returns the scheme, and the host with the port, of the URL of a page.
func split(page string) (scheme, name string, ok bool) {
	u, err := url.Parse(page)
	if err != nil || u.Scheme == "" || u.Host == "" && (u.Scheme != "file" || !strings.HasPrefix(page, "file://")) {
		return "", "", false
	}
	return u.Scheme, hostPort(u.Scheme, u.Host), true
}

// Frame sets a Content-Security-Policy with frame-ancestors, so that only pages of the own
// origin, of the listed origins and of pages can load the response in an iframe. This
// prevents clickjacking, and misuse of the iframe page of SockJS.
func (p Policy) Frame(h http.Header, pages ...string) {
	if p.any {
		return
	}
	sources := append([]string{"frame-ancestors 'self'"}, p.Listed()...)
	for _, page := range pages {
		// Skip values that could be read as other sources or directives.
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

// Page returns the origin of the page that made r, or "" if it is the origin of the server
// itself. known is false if r has no header with the page.
func Page(r *http.Request) (page string, known bool) {
	if r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		return "", true // also if a proxy has changed the Host header
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
		return value, true // for example "null"
	case name != "" && name == hostPort(scheme, r.Host):
		return "", true
	}
	return scheme + "://" + name, true
}

// hostPort returns host in lower case, without the default port of the scheme.
func hostPort(scheme, host string) string {
	host = strings.ToLower(host)
	if port := defaultPorts[scheme]; port != "" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return host
}

// AllowCORS sets the CORS headers with which the page that made r can read the response. Its
// origin must be allowed.
func AllowCORS(h http.Header, r *http.Request) {
	if origin := r.Header.Get("Origin"); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}

const (
	// maxAskedHeaders limits the bytes of the header names that a preflight requests.
	maxAskedHeaders = 2 << 10
	// headerNames are the characters that a list of header names can have. The star is not
	// among them, because it is a wildcard in the response.
	headerNames = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!#$&'+^`|~, \t"
)

// Preflight sets the headers for a CORS preflight request r of an allowed origin. It allows
// methods and the header names that r requests; if r requests none, or invalid ones, it
// allows unasked.
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
