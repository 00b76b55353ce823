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
	listed []string
}

// New returns a Policy for origins such as "https://app.example.com"; "*" is any.
func New(origins []string) (Policy, error) {
	var p Policy
	for _, origin := range origins {
		if origin == "*" {
			p.any = true
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || strings.Contains(u.Host, "*") || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return Policy{}, fmt.Errorf(`%q must be like "https://app.example.com", or "*"`, origin)
		}
		p.listed = append(p.listed, u.Scheme+"://"+hostPort(u.Scheme, u.Host))
	}
	return p, nil
}

// Allows reports whether r may come in.
func (p Policy) Allows(r *http.Request) bool {
	if p.any {
		return true
	}
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return p.allowsUnsaid(r)
	}
	return len(values) == 1 && p.allowsPage(values[0], r.Host)
}

// allowsUnsaid is Allows without an Origin. Browsers leave it out where a page
// embeds an answer, as a script or in an iframe, but say that another site's
// page does. Which page is in Referer, if that page does not hide it; it cannot
// choose what is there. Clients that are no browsers say none of it.
func (p Policy) allowsUnsaid(r *http.Request) bool {
	page := r.Referer()
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "cross-site", "same-site": // the own page among them, if its script was redirected
		return page != "" && p.allowsPage(page, "")
	}
	return page == "" || p.allowsPage(page, r.Host)
}

// allowsPage reports whether the page at that URL is listed, or of that host.
func (p Policy) allowsPage(page, host string) bool {
	u, err := url.Parse(page)
	if err != nil || u.Host == "" {
		return false // "null" among them: any page can make itself a null origin
	}
	from := hostPort(u.Scheme, u.Host)
	// The scheme is not compared: behind a proxy that ends TLS it differs.
	return from == hostPort(u.Scheme, host) || slices.Contains(p.listed, u.Scheme+"://"+from)
}

// Frame tells browsers that pages of other origins may not put the answer into
// an iframe, where they could lead the visitor's clicks, or SockJS's iframe page.
func (p Policy) Frame(h http.Header) {
	if !p.any {
		h.Set("Content-Security-Policy", strings.Join(append([]string{"frame-ancestors 'self'"}, p.listed...), " "))
	}
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
	u, err := url.Parse(value)
	switch {
	case value == "":
		return "", false
	case err != nil || u.Host == "":
		return value, true // "null", for one
	case hostPort(u.Scheme, u.Host) == hostPort(u.Scheme, r.Host):
		return "", true
	}
	return u.Scheme + "://" + hostPort(u.Scheme, u.Host), true
}

// hostPort returns host in lower case, without its scheme's own port.
func hostPort(scheme, host string) string {
	host = strings.ToLower(host)
	switch scheme {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
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
