package backend

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// The kinds of an *Error, for errors.Is.
var (
	ErrBadRequest  = errors.New("backend: bad request")       // 400: a name or value; the message names the place
	ErrDenied      = errors.New("backend: not allowed")       // 401, 403: another secret key, or a proxy that removes the signature
	ErrClock       = errors.New("backend: clock is off")      // 403 "501": the clocks differ by more than 300 s
	ErrNotFound    = errors.New("backend: not found")         // 404: another URL, or a version of the server without the call
	ErrConflict    = errors.New("backend: id is taken")       // 409: the id was used for a request with other content
	ErrTooLarge    = errors.New("backend: request too large") // 413
	ErrUnavailable = errors.New("backend: unavailable")       // 5xx and 429, in all tries
)

// ErrOutcomeUnknown means that the call may have been carried out: it was sent, and no response
// says whether it was. The same call with the same id finds out.
var ErrOutcomeUnknown = errors.New("backend: the request may have been carried out")

// Error is a response of the server other than success.
type Error struct {
	Status  int    // the HTTP status
	Code    string // the server's error code, such as "501" for a clock that is off; can be ""
	Message string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("the server responded with status %d: %s", e.Status, e.Message)
	if e.Code != "" && e.Code != strconv.Itoa(e.Status) {
		s += " (code " + e.Code + ")"
	}
	return s
}

// Is makes errors.Is find the kind of e.
func (e *Error) Is(target error) bool { return target == e.kind() }

// codeClock is the code of the status 403 for a timestamp that is out of bounds.
const codeClock = "501"

func (e *Error) kind() error {
	switch {
	case e.Status == http.StatusForbidden && e.Code == codeClock:
		return ErrClock
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return ErrDenied
	case e.Status == http.StatusBadRequest:
		return ErrBadRequest
	case e.Status == http.StatusNotFound:
		return ErrNotFound
	case e.Status == http.StatusConflict:
		return ErrConflict
	case e.Status == http.StatusRequestEntityTooLarge:
		return ErrTooLarge
	case e.Status == http.StatusTooManyRequests, e.Status >= 500:
		return ErrUnavailable
	}
	return nil
}
