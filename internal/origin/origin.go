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
		// Browsers leave Origin out of some requests, but say so when another
		// site's page makes one. Other clients say neither.
		site := r.Header.Get("Sec-Fetch-Site")
		return site != "cross-site" && site != "same-site"
	}
	u, err := url.Parse(values[0])
	if err != nil || len(values) > 1 || u.Host == "" {
		return false // "null" among them: any page can make itself a null origin
	}
	host := hostPort(u.Scheme, u.Host)
	// The scheme is not compared: behind a proxy that ends TLS it differs.
	return host == hostPort(u.Scheme, r.Host) || slices.Contains(p.listed, u.Scheme+"://"+host)
}

// Foreign returns the Origin of a request that another origin's page made, and
// "" for one that came from the host's own page or from none.
func Foreign(r *http.Request) string {
	value := r.Header.Get("Origin")
	if u, err := url.Parse(value); err == nil && hostPort(u.Scheme, u.Host) == hostPort(u.Scheme, r.Host) {
		return ""
	}
	return value
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
