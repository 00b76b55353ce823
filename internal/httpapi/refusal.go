package httpapi

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// Refusal is the response to a request that is refused or has failed. All endpoints of this
// package use it.
type Refusal struct {
	Status  int
	Code    string // if it is "", the status is the code
	Message string
	// Hint replaces Message in the log, unless it is "".
	Hint string
	// Retry is the time for Retry-After in whole seconds, or 0.
	Retry time.Duration
	// Header is the name and value of an additional header field, or empty.
	Header [2]string
	// Answer has the other members of the response, such as what was done before the
	// failure, or is nil.
	Answer jsvalue.Object
}

// Refuse returns a Refusal whose code is the status.
func Refuse(status int, message string) *Refusal {
	return &Refusal{
		Status:  status,
		Message: message,
	}
}

// RefuseRetry returns a Refusal with status 503.
func RefuseRetry(after time.Duration, message string) *Refusal {
	refused := Refuse(http.StatusServiceUnavailable, message)
	refused.Retry = after
	return refused
}

// Unavailable returns the Refusal if the broker cannot be reached now.
func Unavailable() *Refusal { return RefuseRetry(time.Second, "Service unavailable") }

// RefuseEvents returns the Refusal of events that are too many for the server. retry is the time
// after which they are allowed.
func RefuseEvents(retry time.Duration) *Refusal {
	refused := Refuse(http.StatusTooManyRequests, "Too many events")
	refused.Retry = max(retry, time.Second)
	return refused
}

// Fault reports whether the request was at fault (4xx), and returns the code and the reason
// for the log.
func (r *Refusal) Fault() (code, reason string, ok bool) {
	if r.Status < 400 || r.Status >= 500 {
		return "", "", false
	}
	return r.code(), cmp.Or(r.Hint, r.Message), true
}

func (r *Refusal) code() string { return cmp.Or(r.Code, strconv.Itoa(r.Status)) }

// Write writes the response.
func (r *Refusal) Write(w http.ResponseWriter) {
	if r.Header[0] != "" {
		w.Header().Set(r.Header[0], r.Header[1])
	}
	if r.Retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((r.Retry+time.Second-1)/time.Second)))
	}
	if r.Answer == nil {
		httperror.WriteCode(w, r.Status, r.code(), r.Message)
		return
	}
	fault := jsvalue.Object(nil).Text("code", r.code()).Text("message", r.Message)
	head := w.Header()
	head.Set("Content-Type", "application/json")
	head.Set("Cache-Control", "no-store")
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.Answer.Raw("error", fault))
}

func bad(message string) *Refusal { return Refuse(http.StatusBadRequest, message) }

// bodyTooLarge returns the Refusal of a body that exceeds the limit. size describes the size of
// the body, and cure what to do, for the log.
func bodyTooLarge(size string, limit int, cure string) *Refusal {
	refused := Refuse(http.StatusRequestEntityTooLarge, "Body too large")
	refused.Hint = fmt.Sprintf("a body of %s is over the limit of %d: %s", size, limit, cure)
	return refused
}
