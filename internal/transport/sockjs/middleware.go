package sockjs

import (
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

// What is needed of the server's ResponseWriter.
const (
	canHijack           = "Hijack"
	canFlush            = "Flush"
	canSetReadDeadline  = "SetReadDeadline"
	canSetWriteDeadline = "SetWriteDeadline"
)

// maxWrappers ends the search in a ResponseWriter that unwraps to itself.
const maxWrappers = 100

// hidden returns what http.ResponseController cannot reach through w, looking
// as it does and calling nothing, and the ResponseWriter at which the way ends.
func hidden(w http.ResponseWriter) (missing []string, end http.ResponseWriter) {
	var hijack, flush, read, write bool
	for range maxWrappers {
		end = w
		_, is := w.(http.Hijacker)
		hijack = hijack || is
		_, is = w.(http.Flusher)
		_, withError := w.(interface{ FlushError() error })
		flush = flush || is || withError
		_, is = w.(interface{ SetReadDeadline(time.Time) error })
		read = read || is
		_, is = w.(interface{ SetWriteDeadline(time.Time) error })
		write = write || is
		wrapper, is := w.(interface{ Unwrap() http.ResponseWriter })
		if !is {
			break
		}
		w = wrapper.Unwrap()
	}
	for _, ability := range []struct {
		name string
		ok   bool
	}{
		{canHijack, hijack}, {canFlush, flush}, {canSetReadDeadline, read}, {canSetWriteDeadline, write},
	} {
		if !ability.ok {
			missing = append(missing, ability.name)
		}
	}
	return missing, end
}

// checkWriter logs, once for each type of ResponseWriter, that middleware hides
// what SockJS needs. It looks at WebSockets too, that need Hijack alone: nobody
// would notice before the first client falls back to HTTP. It reports whether
// the connection can be hijacked.
func (h *Handler) checkWriter(w http.ResponseWriter) (hijackable bool) {
	missing, end := hidden(w)
	if len(missing) == 0 {
		return true
	}
	hijackable = !slices.Contains(missing, canHijack)
	// The program's types are few; two places may have different middleware.
	if _, logged := h.checked.LoadOrStore(reflect.TypeOf(end), true); logged {
		return hijackable
	}
	fails := "clients that cannot use WebSockets will fail"
	if !hijackable {
		fails = "WebSockets will fail"
	}
	h.notices.Warn("the server's ResponseWriter is hidden by middleware", fmt.Sprintf("%T", end),
		slog.String("writer", fmt.Sprintf("%T", end)),
		slog.String("missing", strings.Join(missing, " ")),
		slog.String("hint", fails+": give this type a method Unwrap() http.ResponseWriter, "+
			"or mount pushy outside of that middleware; under http.TimeoutHandler it cannot work"))
	return hijackable
}
