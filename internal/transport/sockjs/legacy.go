package sockjs

import (
	"html"
	"mime"
	"net/http"
	"net/url"
	"strings"

	igm "github.com/igm/sockjs-go/v3/sockjs"
)

// sendForm is send for a form that jsonp's client posts: ["…"] in its field d.
// Other bodies are taken as they are.
func (h *Handler) sendForm(w http.ResponseWriter, r *http.Request, id string) {
	limit := frameLimit(h.cfg.MaxMessage)
	payload := func(body []byte) []byte { return body }
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if mediaType == "application/x-www-form-urlencoded" {
		limit = formLimit(h.cfg.MaxMessage)
		payload = func(body []byte) []byte {
			form, _ := url.ParseQuery(string(body)) // what can be read of it
			return []byte(form.Get("d"))
		}
	}
	if h.accept(w, r, id, limit, payload) {
		_, _ = w.Write([]byte("ok")) // Konqueror does odd things on 204
	}
}

// newIframe returns what serves the page that sockjs-client puts into an iframe
// of another site's page, with sockjs-client from scriptURL in it; nil without.
func newIframe(scriptURL string) http.Handler {
	if scriptURL == "" {
		return nil
	}
	return igm.NewHandler("", igm.Options{SockJSURL: html.EscapeString(scriptURL)}, nil)
}

// isIframe reports whether path is the iframe page's, in any version.
func isIframe(path string) bool {
	return strings.HasPrefix(path, "/iframe") && strings.HasSuffix(path, ".html") && strings.Count(path, "/") == 1
}

// serveIframe serves GET of the iframe page alone; no session is behind it.
func (h *Handler) serveIframe(w http.ResponseWriter, r *http.Request, path string) {
	if h.iframe == nil {
		notFound(w)
		return
	}
	if !h.allowMethod(w, r, http.MethodGet) {
		return
	}
	// Nothing of the request but what the page depends on.
	page := &http.Request{
		Method: http.MethodGet,
		URL:    &url.URL{Path: path},
		Header: http.Header{},
	}
	if etag := r.Header.Get("If-None-Match"); etag != "" {
		page.Header.Set("If-None-Match", etag)
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h.iframe.ServeHTTP(w, page)
}
