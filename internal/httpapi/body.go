package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/gopushy/pushy/internal/httperror"
)

// bodyRules say which bodies an endpoint accepts.
type bodyRules struct {
	max     int                      // bytes; if it is not positive, there is no limit
	cure    string                   // what to do about a body that is too large
	allowed func(header string) bool // whether a Content-Type is accepted for a body that is not empty
	unknown string                   // the message for other types
}

// readBody reads the body of r. The caller has set a deadline for it.
func readBody(w http.ResponseWriter, r *http.Request, rules bodyRules) ([]byte, *Refusal) {
	allowed := rules.allowed(r.Header.Get("Content-Type"))
	encoding := r.Header.Get("Content-Encoding")
	if r.ContentLength != 0 && encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, Refuse(http.StatusUnsupportedMediaType, "Content-Encoding "+clip(encoding)+" is not supported")
	}
	if r.ContentLength > 0 && !allowed {
		return nil, Refuse(http.StatusUnsupportedMediaType, rules.unknown)
	}
	if rules.max > 0 {
		if r.ContentLength > int64(rules.max) {
			return nil, bodyTooLarge(fmt.Sprintf("%d bytes", r.ContentLength), rules.max, rules.cure)
		}
		r.Body = http.MaxBytesReader(w, r.Body, int64(rules.max))
	}
	// Allocate memory for the bytes that arrive, not for the length that a header announces.
	var b bytes.Buffer
	b.Grow(int(min(max(r.ContentLength, 0), 8<<10)) + bytes.MinRead)
	_, err := b.ReadFrom(r.Body)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		refused := bodyTooLarge(fmt.Sprintf("more than %d bytes", over.Limit), rules.max, rules.cure)
		if rules.max <= 0 || over.Limit < int64(rules.max) {
			refused.Hint = httperror.OverMiddleware(over)
		}
		return nil, refused
	case err != nil:
		return nil, Refuse(http.StatusRequestTimeout, "Cannot read the body")
	case b.Len() > 0 && !allowed: // the body is chunked, so its length was not known before
		return nil, Refuse(http.StatusUnsupportedMediaType, rules.unknown)
	}
	return b.Bytes(), nil
}

// bodyType says what a Content-Type means for a trigger and for the signed API.
func bodyType(header string) (isJSON, isForm bool) {
	media, _, err := mime.ParseMediaType(header)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return false, false
	}
	isJSON = media == "application/json" || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")
	return isJSON, media == "application/x-www-form-urlencoded"
}
