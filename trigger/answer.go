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

// ErrOutcomeUnknown means that the event may or may not have been published: it
// was sent, and no try got an answer that says which.
var ErrOutcomeUnknown = errors.New("trigger: the event may have been published")

// Error is an answer of the server other than success.
type Error struct {
	Status  int
	Code    string // the server's own, such as "501" for a timestamp out of bounds; may be ""
	Message string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("the server answers %d: %s", e.Status, e.Message)
	if e.Code != "" && e.Code != strconv.Itoa(e.Status) {
		s += " (code " + e.Code + ")"
	}
	return s
}

// Is tells ErrBadRequest, ErrDenied and ErrTooLarge apart.
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

// attempt is what came of one try.
type attempt struct {
	delivered bool
	err       error
	unknown   bool          // the event may have been published for all that
	again     bool          // another try may go better
	wait      time.Duration // that the server asks for
}

func (c *Client) try(ctx context.Context, m message) attempt {
	ctx, cancel := context.WithTimeout(ctx, c.opts.TryTimeout)
	defer cancel()
	var asked, got atomic.Bool // for a connection
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url, bytes.NewReader(m.body))
	if err != nil {
		return attempt{err: unsigned(err)}
	}
	req.Header.Set("Content-Type", "application/json")
	// With the id the request may be repeated, and so net/http does by itself on a
	// kept connection that the server has closed. The header is not sent.
	req.Header["Idempotency-Key"] = nil
	resp, err := c.http.Do(req)
	if err != nil {
		a := broken(err)
		a.unknown = got.Load() || !asked.Load() // a RoundTripper that tells nothing may have sent it
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
	maxMessage = 200 // bytes shown of what a server says
)

// broken judges a try without an answer.
func broken(err error) attempt {
	a := attempt{err: unsigned(err), unknown: true, again: true}
	var cert *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	if errors.As(err, &cert) || errors.As(err, &header) {
		a.again = false // it is another server, and will stay one
	}
	return a
}

// unsigned takes the URL out of an error: whoever reads it in a log could publish
// the event once more.
func unsigned(err error) error {
	var with *url.Error
	if errors.As(err, &with) {
		return with.Err
	}
	return err
}

// answered judges an answer.
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
	e := &Error{Status: status, Code: said.Error.Code, Message: said.Error.Message}
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
		// A proxy's word says nothing, and a broker that failed may have sent it on.
		a.unknown = true
	case status >= 300 && status < 400:
		e.Message = "redirects to " + resp.Header.Get("Location") + "; Options.URL must be that server's own"
	case status == http.StatusNotFound && said.Error.Message == "":
		// Else the server itself says what it did not find.
		e.Message += "; is the prefix in Options.URL the server's?"
	case status < 300:
		e.Message = "which is not what a pushy server answers; is Options.URL right?"
	}
	if len(e.Message) > maxMessage {
		e.Message = strings.ToValidUTF8(e.Message[:maxMessage], "") + "…"
	}
	if a.again {
		a.wait = retryAfter(resp.Header.Get("Retry-After"))
	}
	return a
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}
