package sockjs

import (
	"mime"
	"net/http"
	"net/url"
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
