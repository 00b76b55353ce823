package sockjs

import (
	"html"
	"mime"
	"net/http"
	"net/url"
	"strings"

	igm "github.com/igm/sockjs-go/v3/sockjs"
)

// sendForm is send for the form that the jsonp client posts, which has the frame ["…"] in
// its field d. A body that is not a form is the frame itself.
func (h *Handler) sendForm(w http.ResponseWriter, r *http.Request, id string) {
	limit := frameLimit(h.cfg.MaxMessage)
	payload := func(body []byte) []byte { return body }
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if mediaType == "application/x-www-form-urlencoded" {
		limit = formLimit(h.cfg.MaxMessage)
		payload = func(body []byte) []byte {
			form, _ := url.ParseQuery(string(body)) // use the fields that are valid
			return []byte(form.Get("d"))
		}
	}
	if h.accept(w, r, id, limit, payload) {
		_, _ = w.Write([]byte("ok")) // Konqueror does not handle 204 correctly
	}
}

// newIframe returns a handler for the page that sockjs-client loads into an iframe on a
// page of another site. The page loads sockjs-client from scriptURL. If scriptURL is "",
// newIframe returns nil.
func newIframe(scriptURL string) http.Handler {
	if scriptURL == "" {
		return nil
	}
	return igm.NewHandler("", igm.Options{SockJSURL: html.EscapeString(scriptURL)}, nil)
}

// isIframe reports whether path is that of the iframe page, in any version.
func isIframe(path string) bool {
	return strings.HasPrefix(path, "/iframe") && strings.HasSuffix(path, ".html") && strings.Count(path, "/") == 1
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
	// Pass on only the parts of the request that the page depends on.
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
