// Package trigger publishes events from Go processes that do not have a pushy.Server. It uses
// the signed HTTP trigger of a server (PROTOCOL.md, section 7).
//
//	publisher, err := trigger.New(trigger.Options{
//		URL:       "https://rt.example.com/pushy",
//		SecretKey: os.Getenv("PUSHY_SECRET_KEY"),
//	})
//	…
//	delivered, err := publisher.Publish(ctx, "news", "headline", headline)
//
// # Tries
//
// The Client retries after temporary failures: if a connection cannot be made or fails, if
// there is no response, and after the statuses 408, 425, 429 and 5xx other than 501 and 505.
// Before a retry it waits for a random time, at least as long as Retry-After says. The maximum
// of the random time is 100 ms at first, and doubles with each retry up to 5 s. All tries of
// an event have the same id, with which the server recognizes a retry, so an event is
// delivered once.
//
// There are two limits. A server keeps ids in memory only: if it restarts between the delivery
// and the second try, or if another server behind the same load balancer receives the second
// try, the event is delivered again. And if the Client gives up after a try without a
// response, the outcome is unknown: the error is [ErrOutcomeUnknown]. If Options.Tries is 1,
// delivery is at most once. Clients that must not process an event twice, or miss one, need
// ids in the data.
package trigger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/sign"
)

// Options configure a Client. URL and SecretKey must be set. A zero value of the other fields
// means the default.
type Options struct {
	// URL is the URL at which pushy is mounted, including its prefix, such as
	// "https://rt.example.com/pushy".
	URL string
	// SecretKey is the secret key of the server.
	SecretKey string
	// HTTPClient makes the requests. The default keeps up to 64 connections to the server
	// open. The Client never follows redirects.
	HTTPClient *http.Client
	// Timeout limits the time of a Publish with all its tries. Default 30 s. The maximum is 9
	// minutes, because the signature expires.
	Timeout time.Duration
	// TryTimeout is how long one try waits for its response. Default 10 s.
	TryTimeout time.Duration
	// Tries is the maximum number of times that an event is sent. Default: as many
	// as Timeout allows.
	Tries int
}

const (
	// maxTimeout keeps all tries within the 600 s for which the server accepts their
	// timestamp, with a margin for clocks that differ.
	maxTimeout  = 9 * time.Minute
	firstPause  = 100 * time.Millisecond
	longestWait = 5 * time.Second
)

// Client publishes to one server, or to several behind one load balancer. It is safe for
// concurrent use.
type Client struct {
	opts Options
	base string
	http http.Client
}

// New returns a Client. It connects when the first event is published. The error says
// which option is wrong.
func New(options Options) (*Client, error) {
	u, err := url.Parse(options.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("trigger: Options.URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("trigger: Options.URL %q is not like https://rt.example.com/pushy", options.URL)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, errors.New("trigger: Options.URL must have no query, fragment or user")
	case options.SecretKey == "":
		return nil, errors.New("trigger: Options.SecretKey is empty")
	case options.Timeout < 0 || options.TryTimeout < 0 || options.Tries < 0:
		return nil, errors.New("trigger: Timeout, TryTimeout and Tries must not be negative")
	}
	c := &Client{
		opts: options,
		base: strings.TrimSuffix(u.String(), "/") + "/channel/",
	}
	if c.opts.Timeout == 0 {
		c.opts.Timeout = 30 * time.Second
	}
	c.opts.Timeout = min(c.opts.Timeout, maxTimeout)
	if c.opts.TryTimeout == 0 {
		c.opts.TryTimeout = 10 * time.Second
	}
	if options.HTTPClient != nil {
		c.http = *options.HTTPClient
	} else if standard, ok := http.DefaultTransport.(*http.Transport); ok {
		transport := standard.Clone()
		transport.MaxIdleConnsPerHost = 64
		c.http.Transport = transport
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// CloseIdleConnections closes the connections that are kept open for later events.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// PublishOption changes one Publish.
type PublishOption func(url.Values)

// Except excludes one connection from an event. connID is the connection's
// socketId, which the page has sent to the publisher.
func Except(connID string) PublishOption {
	return func(query url.Values) { query.Set("socket_id", connID) }
}

// Publish sends an event to all subscribers of a channel. data is encoded with encoding/json,
// and the result must be an object or an array; nil is encoded as {}.
//
// delivered reports whether the channel had a subscriber when the server accepted the event.
// For errors.Is and errors.As, the error wraps an *Error if the server refused the event,
// ErrOutcomeUnknown, the error of ctx, or a network error. If an argument is not valid, the
// error says which one, and nothing is sent.
func (c *Client) Publish(
	ctx context.Context, channel, event string, data any, options ...PublishOption,
) (delivered bool, err error) {
	m, err := c.message(channel, event, data, options)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return false, fmt.Errorf("trigger: publish %q on %q: %w", event, channel, err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	unknown := false
	for try := 1; ; try++ {
		a := c.try(ctx, m)
		if a.err == nil {
			return a.delivered, nil
		}
		unknown = unknown || a.unknown
		final := !a.again || try == c.opts.Tries
		if !final {
			if err := pause(ctx, max(backoff(try), a.wait)); err != nil {
				a.err = fmt.Errorf("%w; no time for another try: %w", a.err, err)
				final = true
			}
		}
		if final {
			err := fmt.Errorf("trigger: publish %q on %q, try %d: %w", event, channel, try, a.err)
			if unknown {
				err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
			}
			return false, err
		}
	}
}

// message is the request for an event. All tries send the same bytes.
type message struct {
	url  string
	body []byte
}

func (c *Client) message(channel, event string, data any, options []PublishOption) (message, error) {
	body := []byte("{}")
	if data != nil {
		var err error
		if body, err = jsvalue.Encode(data); err != nil {
			return message{}, err
		}
	}
	if body[0] != '{' && body[0] != '[' {
		return message{}, errors.New("data must encode as an object or an array")
	}
	now := time.Now().Unix()
	key, err := sign.TriggerKey(c.opts.SecretKey, channel, event, now, body)
	if err != nil {
		return message{}, err
	}
	query := url.Values{
		"event":     {event},
		"timestamp": {strconv.FormatInt(now, 10)},
		"auth_key":  {key},
		"id":        {names.RandomHex(16)},
	}
	for _, option := range options {
		option(query)
	}
	return message{c.base + url.PathEscape(channel) + "/trigger?" + query.Encode(), body}, nil
}

// backoff returns the time to wait after a try; the first try is 1. The time is random, so that
// many publishers that a server has refused do not all retry at the same moment.
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
