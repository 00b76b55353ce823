package sockjs

import (
	"crypto/sha256"
	"encoding/hex"
	"html"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The page that sockjs-client loads into an iframe on a page of another site. SockJS's protocol
// specifies it, with the address of the script between the two parts.
//
// It is no template: a program that links text/template keeps all exported methods of all types,
// since a template can call them by name. That is 2 MB more in a host that has no templates.
const (
	iframeBegin = `<!DOCTYPE html>
<html>
<head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
  <script>
    document.domain = document.domain;
    _sockjs_onload = function(){SockJS.bootstrap_iframe();};
  </script>
  <script src="`
	iframeEnd = `"></script>
</head>
<body>
  <h2>Don't panic!</h2>
  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>
</body>
</html>`
)

const iframeAge = 365 * 24 * time.Hour

// iframe is the page with the address of one script.
type iframe struct {
	page, etag string
}

// newIframe returns the iframe page, which loads sockjs-client from scriptURL. If scriptURL is
// "", newIframe returns nil.
func newIframe(scriptURL string) *iframe {
	if scriptURL == "" {
		return nil
	}
	page := iframeBegin + html.EscapeString(scriptURL) + iframeEnd
	sum := sha256.Sum256([]byte(page))
	return &iframe{
		page: page,
		etag: `"` + hex.EncodeToString(sum[:8]) + `"`,
	}
}

// isIframe reports whether path is that of the iframe page, in any version.
func isIframe(path string) bool {
	return strings.HasPrefix(path, "/iframe") && strings.HasSuffix(path, ".html") && strings.Count(path, "/") == 1
}

// isIframeVersion reports whether SockJS allows the part of the path that names a version.
func isIframeVersion(path string) bool {
	version := strings.TrimSuffix(strings.TrimPrefix(path, "/iframe"), ".html")
	return strings.Trim(version, "0123456789-.abcdefghijklmnopqrstuvwxyz_") == ""
}

// serveIframe serves the iframe page, which does not belong to a session.
func (h *Handler) serveIframe(w http.ResponseWriter, r *http.Request, path string) {
	if h.iframe == nil {
		notFound(w)
		return
	}
	if !h.allowMethod(w, r, http.MethodGet) {
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !isIframeVersion(path) {
		notFound(w)
		return
	}
	seconds := strconv.Itoa(int(iframeAge / time.Second))
	w.Header().Set("Cache-Control", "public, max-age="+seconds)
	w.Header().Set("Expires", time.Now().Add(iframeAge).UTC().Format(http.TimeFormat))
	w.Header().Set("Access-Control-Max-Age", seconds)
	if r.Header.Get("If-None-Match") == h.iframe.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	w.Header().Set("ETag", h.iframe.etag)
	_, _ = io.WriteString(w, h.iframe.page)
}
