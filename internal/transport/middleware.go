package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/ratelog"
)

// The abilities of the server's ResponseWriter that the transports need.
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

// Middleware finds out what the middleware around a handler prevents, and logs it once.
type Middleware struct {
	Log *ratelog.Logger

	checked   sync.Map  // the types of ResponseWriter that have been logged
	deadlines sync.Once // for the log line that the deadline of a context has ended a response
}

// CheckSockJS logs, once for each type of ResponseWriter, that middleware hides abilities
// that SockJS needs. It checks all abilities for a WebSocket, too, although that needs only
// Hijack; otherwise the problem would appear only when the first client falls back to HTTP.
// It reports whether the connection can be hijacked.
func (m *Middleware) CheckSockJS(w http.ResponseWriter) (hijackable bool) {
	missing, end := hidden(w)
	hijackable = !slices.Contains(missing, canHijack)
	fails := "clients that cannot use WebSockets will fail"
	if !hijackable {
		fails = "WebSockets will fail"
	}
	m.logHidden(missing, end, fails)
	return hijackable
}

// CanHijack reports whether the connection can be hijacked.
func (m *Middleware) CanHijack(w http.ResponseWriter) bool {
	missing, _ := hidden(w)
	return !slices.Contains(missing, canHijack)
}

// CheckStream reports whether a response can be streamed, and logs, once for each type of
// ResponseWriter, that middleware prevents it. what is the consequence for the log.
func (m *Middleware) CheckStream(w http.ResponseWriter, what string) bool {
	missing, end := hidden(w)
	missing = slices.DeleteFunc(missing, func(ability string) bool { return ability == canHijack })
	m.logHidden(missing, end, what)
	return len(missing) == 0
}

func (m *Middleware) logHidden(missing []string, end http.ResponseWriter, fails string) {
	if len(missing) == 0 {
		return
	}
	// The number of types is small. There can be several, because pushy can be mounted at
	// several places with different middleware.
	if _, logged := m.checked.LoadOrStore(reflect.TypeOf(end), true); logged {
		return
	}
	m.Log.Warn("the server's ResponseWriter is hidden by middleware", fmt.Sprintf("%T", end),
		slog.String("writer", fmt.Sprintf("%T", end)),
		slog.String("missing", strings.Join(missing, " ")),
		slog.String("hint", fails+": give this type a method Unwrap() http.ResponseWriter, "+
			"or mount pushy outside of that middleware; under http.TimeoutHandler it cannot work"))
}

// TimedOut reports whether a request has ended because of a deadline that the host has set,
// for example with the Timeout middleware of chi. Clients then send another request.
func (m *Middleware) TimedOut(ctx context.Context, protocol string) bool {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return false
	}
	m.deadlines.Do(func() {
		m.Log.Warn("a deadline of the request's context ends responses that wait", "",
			slog.String("transport", protocol),
			slog.String("hint", "each client must then send a new request: "+
				"mount pushy outside of the middleware that sets the timeout"))
	})
	return true
}
