package backend

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/sign"
)

const (
	firstPause  = 100 * time.Millisecond
	longestWait = 5 * time.Second
	maxAnswer   = 32 << 20 // bytes
	maxMessage  = 400      // the largest number of bytes of a server's message in an Error
	maxClock    = 300 * time.Second
)

// request is one call. All its tries send the same bytes under the same id.
type request struct {
	what  string // for errors, such as "publish"
	path  string // such as "/api/publish"
	id    string
	body  []byte
	query bool // it changes nothing, so no outcome is unknown
}

func failed(call string, err error) error { return fmt.Errorf("backend: %s: %w", call, err) }

// do encodes body and sends the request until it succeeds or finally fails. partial, unless it
// is nil, receives the body of each response that is an error.
func (c *Client) do(ctx context.Context, r request, body, answer any, partial func(body []byte)) error {
	raw, err := jsvalue.Encode(body)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return failed(r.what, err)
	}
	r.body = raw
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	unknown := false
	for try := 1; ; try++ {
		a := c.try(ctx, r)
		if a.err == nil {
			a.err = decode(a.body, answer)
			a.unknown = true // it was carried out, and the answer is lost
		}
		if a.err == nil {
			return nil
		}
		if partial != nil {
			partial(a.body)
		}
		unknown = unknown || a.unknown && !r.query
		final := !a.again || try == c.opts.Tries
		if !final {
			if err := pause(ctx, max(backoff(try), a.wait)); err != nil {
				a.err = fmt.Errorf("%w; no time for another try: %w", a.err, err)
				final = true
			}
		}
		if !final {
			continue
		}
		err := fmt.Errorf("%s, try %d: %w", r.what, try, a.err)
		if unknown {
			return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		}
		return fmt.Errorf("backend: %w", err)
	}
}

func decode(body []byte, answer any) error {
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("cannot decode the answer: %w", err)
	}
	return nil
}

// attempt is the result of one try.
type attempt struct {
	body    []byte // of a response of a pushy server, otherwise nil
	err     error
	unknown bool          // the call may have been carried out despite the error
	again   bool          // another try may succeed
	wait    time.Duration // the server's Retry-After
}

func (c *Client) try(ctx context.Context, r request) attempt {
	ctx, cancel := context.WithTimeout(ctx, c.opts.TryTimeout)
	defer cancel()
	var asked, got atomic.Bool // whether net/http requested a connection, and received one
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+r.path, bytes.NewReader(r.body))
	if err != nil {
		return attempt{err: cause(err)}
	}
	now := time.Now().Unix()
	signature := sign.Request(c.opts.SecretKey, c.keyID, now, r.id, r.path, r.body)
	req.Header.Set("Pushy-Signature", fmt.Sprintf("v2 %s %d %s %s", c.keyID, now, r.id, signature))
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
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return broken(err)
	case len(body) > maxAnswer:
		return attempt{
			err:     fmt.Errorf("the answer has more than %d MiB", maxAnswer>>20),
			unknown: true,
		}
	}
	return answered(resp, body)
}

// broken returns the result of a try without a response.
func broken(err error) attempt {
	a := attempt{
		err:     cause(err),
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

// cause removes the method and the URL from an error of net/http, which repeats them.
func cause(err error) error {
	var with *url.Error
	if errors.As(err, &with) {
		return with.Err
	}
	return err
}

// answered returns the result of a try with a response.
func answered(resp *http.Response, body []byte) attempt {
	var said struct {
		Error struct{ Code, Message string }
	}
	status := resp.StatusCode
	ours := isObject(body) && json.Unmarshal(body, &said) == nil
	if status == http.StatusOK && ours {
		return attempt{body: body}
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
	if ours {
		a.body = body
	}
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests:
		a.again = true
	case status == http.StatusForbidden && e.Code == codeClock:
		// If the clocks agree, this server has started in the meantime, and refuses what was
		// signed before. A request that is signed now is accepted.
		date, err := http.ParseTime(resp.Header.Get("Date"))
		a.again = err == nil && time.Since(date).Abs() < maxClock
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
	e.Message = shortened(e.Message)
	if a.again {
		a.wait = retryAfter(resp.Header.Get("Retry-After"))
	}
	return a
}

// isObject reports whether body can be a JSON object.
func isObject(body []byte) bool {
	body = bytes.TrimLeft(body, " \t\r\n")
	return len(body) > 0 && body[0] == '{'
}

func shortened(s string) string {
	if len(s) > maxMessage {
		return strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return s
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

// backoff returns the time to wait after a try; the first try is 1. The time is random, so that
// many clients that a server has refused do not all retry at the same moment.
func backoff(try int) time.Duration {
	most := min(firstPause<<min(try-1, 10), longestWait)
	return rand.N(most) + time.Millisecond
}

// pause waits. If ctx ends or its deadline is before the end of the wait, pause returns an error
// at once.
func pause(ctx context.Context, wait time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
