package trigger

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// The kinds of an *Error, for errors.Is.
var (
	ErrBadRequest = errors.New("trigger: bad request")    // 400: a name, or data nested too deep
	ErrDenied     = errors.New("trigger: not allowed")    // 403: another secret key, or a clock that is 10 minutes off
	ErrTooLarge   = errors.New("trigger: data too large") // 413: over the server's Limits.TriggerBytes
)

// ErrOutcomeUnknown means that the event may have been published: it was sent, and no response
// says whether it was published.
var ErrOutcomeUnknown = errors.New("trigger: the event may have been published")

// Error is a response of the server other than success.
type Error struct {
	Status  int    // the HTTP status
	Code    string // the server's error code, such as "501" for a timestamp out of bounds; can be ""
	Message string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("the server responded with status %d: %s", e.Status, e.Message)
	if e.Code != "" && e.Code != strconv.Itoa(e.Status) {
		s += " (code " + e.Code + ")"
	}
	return s
}

// Is makes errors.Is find ErrBadRequest, ErrDenied and ErrTooLarge.
func (e *Error) Is(target error) bool {
	switch e.Status {
	case http.StatusBadRequest:
		return target == ErrBadRequest
	case http.StatusForbidden:
		return target == ErrDenied
	case http.StatusRequestEntityTooLarge:
		return target == ErrTooLarge
	}
	return false
}

// attempt is the result of one try.
type attempt struct {
	delivered bool
	err       error
	unknown   bool          // the event may have been published despite the error
	again     bool          // another try may succeed
	wait      time.Duration // the server's Retry-After
}

func (c *Client) try(ctx context.Context, m message) attempt {
	ctx, cancel := context.WithTimeout(ctx, c.opts.TryTimeout)
	defer cancel()
	var asked, got atomic.Bool // whether net/http requested a connection, and received one
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url, bytes.NewReader(m.body))
	if err != nil {
		return attempt{err: unsigned(err)}
	}
	req.Header.Set("Content-Type", "application/json")
	// The id makes the request idempotent, so net/http may retry it on another connection if
	// the server has closed the one that was kept open. A nil value allows this without
	// sending the header.
	req.Header["Idempotency-Key"] = nil
	resp, err := c.http.Do(req)
	if err != nil {
		a := broken(err)
		a.unknown = got.Load() || !asked.Load() // a RoundTripper without httptrace may have sent the request
		return a
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return broken(err)
	}
	return answered(resp, body)
}

const (
	maxAnswer  = 64 << 10
	maxMessage = 200 // the largest number of bytes of a server's message in an Error
)

// broken returns the result of a try without a response.
func broken(err error) attempt {
	a := attempt{
		err:     unsigned(err),
		unknown: true,
		again:   true,
	}
	var cert *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	if errors.As(err, &cert) || errors.As(err, &header) {
		a.again = false // it is not the right server, and a retry does not change that
	}
	return a
}

// unsigned removes the signed URL from an error, because anyone who reads it in a log could
// publish the event again.
func unsigned(err error) error {
	var with *url.Error
	if errors.As(err, &with) {
		return with.Err
	}
	return err
}

// answered returns the result of a try with a response.
func answered(resp *http.Response, body []byte) attempt {
	var said struct {
		Status struct{ Code int }
		Error  struct{ Code, Message string }
	}
	ours := json.Unmarshal(body, &said) == nil
	status := resp.StatusCode
	if ours && said.Status.Code == status && (status == http.StatusOK || status == http.StatusCreated) {
		return attempt{delivered: status == http.StatusCreated}
	}
	e := &Error{
		Status:  status,
		Code:    said.Error.Code,
		Message: said.Error.Message,
	}
	if e.Message == "" {
		e.Message = http.StatusText(status)
	}
	a := attempt{err: e}
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests:
		a.again = true
	case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported:
	case status >= 500:
		a.again = true
		// A proxy does not know the outcome, and a broker can deliver an event despite an
		// error.
		a.unknown = true
	case status >= 300 && status < 400:
		e.Message = "redirects to " + resp.Header.Get("Location") + "; Options.URL must be the URL of that server"
	case status == http.StatusNotFound && said.Error.Message == "":
		// A pushy server would say in its message what it has not found.
		e.Message += "; check that Options.URL has the prefix of the server"
	case status < 300:
		e.Message = "not a response of a pushy server; check Options.URL"
	}
	if len(e.Message) > maxMessage {
		e.Message = strings.ToValidUTF8(e.Message[:maxMessage], "") + "…"
	}
	if a.again {
		a.wait = retryAfter(resp.Header.Get("Retry-After"))
	}
	return a
}

// retryAfter parses the header, which has seconds or a date.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}
