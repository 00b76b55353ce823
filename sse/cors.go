package sse

import (
	"net/http"
	"strings"

	"github.com/gopushy/pushy/internal/origin"
	"github.com/gopushy/pushy/internal/seam"
)

const allowedMethods = "GET, HEAD, OPTIONS"

// exposed are the header fields of refusals that pages of other origins may read: htmx obeys the
// first one.
const exposed = "HX-Reswap, Retry-After"

// allowPage lets the page of another origin read the response.
func allowPage(head http.Header, r *http.Request, from seam.Origin) {
	if r.Header.Get("Origin") == "" {
		return
	}
	if from.Any {
		head.Set("Access-Control-Allow-Origin", "*") // without cookies
	} else {
		origin.AllowCORS(head, r)
	}
	head.Set("Access-Control-Expose-Headers", exposed)
}

// preflight answers which header fields the scripts of a page of another origin may send.
func preflight(head http.Header, r *http.Request) {
	head.Add("Vary", "Access-Control-Request-Headers")
	head.Set("Access-Control-Allow-Methods", "GET")
	head.Set("Access-Control-Max-Age", "3600")
	var allowed []string
	asked := strings.Join(r.Header.Values("Access-Control-Request-Headers"), ",")
	for name := range strings.SplitSeq(asked, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		if allowedHeader(name) {
			allowed = append(allowed, name)
		}
	}
	if len(allowed) > 0 {
		head.Set("Access-Control-Allow-Headers", strings.Join(allowed, ", "))
	}
}

// allowedHeader reports whether a page may send a header field, whose name is in lower case. htmx
// and Datastar send some of their own, which mean nothing here.
func allowedHeader(name string) bool {
	switch name {
	case "authorization", "cache-control", "content-type", "last-event-id", "datastar-request":
		return true
	}
	rest, is := strings.CutPrefix(name, "hx-")
	return is && rest != "" && !strings.ContainsFunc(rest, func(c rune) bool { return (c < 'a' || c > 'z') && c != '-' })
}
