package backend

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// The kinds of an *Error, for errors.Is. An error has the kind of the last try.
var (
	// ErrBadRequest is the status 400: a name or a value. The message names the place.
	ErrBadRequest = errors.New("backend: bad request")
	// ErrDenied is the status 401 or 403: another secret key, or a proxy that removes the signature.
	ErrDenied = errors.New("backend: not allowed")
	// ErrClock is the status 403 with the code "501": the clocks differ by more than 300 s.
	ErrClock = errors.New("backend: clock is off")
	// ErrNotFound is the status 404: another URL, a version of the server without the call, or, for
	// History and Position, a channel that keeps no events.
	ErrNotFound = errors.New("backend: not found")
	// ErrConflict is the status 409: the id was used for a request with other content.
	ErrConflict = errors.New("backend: id is taken")
	// ErrTooLarge is the status 413.
	ErrTooLarge = errors.New("backend: request too large")
	// ErrUnavailable is a status 5xx or 429.
	ErrUnavailable = errors.New("backend: unavailable")
)

// ErrOutcomeUnknown means that the call may have been carried out, in whole or in part: it was
// sent, and no response says that it was not. The same call with the same id finds out. It does
// not say why the tries have failed, so an error can wrap both ErrOutcomeUnknown and a kind:
// with ErrUnavailable alone, nothing was done; with both, a try has ended without a response, or
// with a status 5xx, which a proxy sends in place of an answer that is lost, and a server whose
// Broker has failed in the middle. The errors of calls that change nothing never wrap it.
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
