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

// The abilities of the server's ResponseWriter that SockJS needs.
const (
	canHijack           = "Hijack"
	canFlush            = "Flush"
	canSetReadDeadline  = "SetReadDeadline"
	canSetWriteDeadline = "SetWriteDeadline"
)

// maxWrappers limits the search, because a faulty ResponseWriter can unwrap to itself.
const maxWrappers = 100

// hidden returns the abilities that http.ResponseController cannot reach through w, and the
// innermost ResponseWriter that it can reach. It searches like ResponseController, but calls
// only Unwrap.
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

// checkWriter logs, once for each type of ResponseWriter, that middleware hides abilities
// that SockJS needs. It checks all abilities for a WebSocket, too, although that needs only
// Hijack; otherwise the problem would appear only when the first client falls back to HTTP.
// It reports whether the connection can be hijacked.
func (h *Handler) checkWriter(w http.ResponseWriter) (hijackable bool) {
	missing, end := hidden(w)
	if len(missing) == 0 {
		return true
	}
	hijackable = !slices.Contains(missing, canHijack)
	// The number of types is small. There can be several, because pushy can be mounted at
	// several places with different middleware.
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
