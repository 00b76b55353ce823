package sse

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/transport"
)

// againUnavailable is the reason of a busy answer while something that a stream needs does not work.
const againUnavailable = "unavailable"

func unavailable(message string) *seam.Refusal {
	return &seam.Refusal{
		Status:  http.StatusServiceUnavailable,
		Message: message,
		Again:   againUnavailable,
	}
}

func draining() *seam.Refusal {
	return &seam.Refusal{
		Status:  http.StatusServiceUnavailable,
		Message: "the server is shutting down",
		Again:   seam.Draining,
	}
}

// Times after which clients return that are refused because of a load, and because their address has
// too many connections.
const (
	minReturn     = 5 * time.Second
	maxReturn     = 10 * time.Second
	addressReturn = 30 * time.Second
	// minDrainReturn is the shortest time while the server shuts down: another one may not be
	// there yet, and a client should not ask more than once a second. EventSource waits for the same
	// time after each attempt to connect that fails, and htmx 4 subtracts up to 30 % at random.
	minDrainReturn = 1500 * time.Millisecond
)

// returnIn returns the time after which a client that is refused for a reason is to return.
func (h *handler) returnIn(reason string) time.Duration {
	switch reason {
	case seam.Draining:
		return minDrainReturn + rand.N(h.server.Hub.ReturnWindow())
	case seam.OfAddress:
		return addressReturn
	}
	return minReturn + rand.N(maxReturn-minReturn)
}

// refuse answers a request that is refused. If the client can try again, and reads events, that is
// an event: after another answer EventSource stops for good, and htmx forgets its positions.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, f *seam.Refusal) {
	if f.Again != "" {
		after := h.returnIn(f.Again)
		if readsEvents(r) && h.mayBeBusy() && h.middleware.CheckStream(w, cannotStream) {
			h.busy(w, r, f.Again, after)
		}
		seconds := (max(after, f.After) + time.Second - 1) / time.Second
		w.Header().Set("Retry-After", strconv.Itoa(int(seconds)))
	}
	head := w.Header()
	head.Set("Content-Type", "text/plain; charset=utf-8")
	head.Set("Cache-Control", "no-store")
	head.Set("HX-Reswap", "none") // otherwise htmx 4 shows the message in place of what the page shows
	w.WriteHeader(f.Status)
	_, _ = w.Write([]byte(strings.Join(strings.Fields(f.Message), " ") + "\n"))
}

func readsEvents(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(strings.ToLower(r.Header.Get("Accept")), "text/event-stream")
}

// mayBeBusy counts a busy answer towards a tenth of Limits.AcceptRate. Other clients get an answer
// that costs less.
func (h *handler) mayBeBusy() bool {
	if h.busyRate == nil {
		return true
	}
	_, ok := h.busyRate.Take(time.Now(), 1)
	return ok
}

// busy sends the event that says when to return, and aborts the response: it is the only answer
// after which all clients reconnect and keep their positions.
func (h *handler) busy(w http.ResponseWriter, r *http.Request, reason string, after time.Duration) {
	out := transport.NewStream(w, h.server.WriteTimeout)
	lastHeader(out, r)
	streamHeader(w.Header())
	data := jsvalue.Object(nil).Text("reason", reason).Raw("returnIn", strconv.AppendInt(nil, after.Milliseconds(), 10))
	_ = out.Do(true, func() error {
		if _, err := w.Write(append(appendOwn(nil, first, eventBusy, after, data), '\n')); err != nil {
			return err
		}
		return out.Flush()
	})
	linger(r.Context(), nil)
	panic(http.ErrAbortHandler)
}

// refusal returns the answer for an error of hub.Conn.JoinAll.
func refusal(err error) *seam.Refusal {
	var of *hub.JoinAllError
	var refused *hub.RefusedError
	channel := ""
	if errors.As(err, &of) {
		channel = "channel " + of.Channel + ": "
	}
	f := &seam.Refusal{Status: http.StatusForbidden}
	var temporary *hub.UnavailableError
	switch {
	case errors.As(err, &temporary), errors.Is(err, hub.ErrClosed):
		return unavailable(channel + "temporarily unavailable")
	case errors.Is(err, hub.ErrChannelFull):
		return &seam.Refusal{
			Status:  http.StatusServiceUnavailable,
			Message: channel + "the channel is full",
			Again:   seam.Full,
		}
	case errors.Is(err, hub.ErrTooManyChannels), errors.Is(err, hub.ErrTooManyJoins):
		f.Status = http.StatusBadRequest
		f.Message = err.Error()
	case errors.Is(err, hub.ErrNeedAuth):
		f.Status = http.StatusUnauthorized
		f.Message = channel + "authentication needed"
	default:
		f.Message = channel + "invalid credentials"
	}
	if errors.As(err, &refused) && refused.Reason != "" {
		f.Message = channel + refused.Reason
		if status, _ := strconv.Atoi(refused.Code); status >= 400 && status < 500 {
			f.Status = status
		}
	}
	return f
}
