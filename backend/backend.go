// Package backend calls pushy servers from Go processes that do not have a pushy.Server. It uses
// the signed API of a server (PROTOCOL.md, section 15).
//
//	client, err := backend.New(backend.Options{
//		URL:       "https://rt.example.com/pushy",
//		SecretKey: os.Getenv("PUSHY_SECRET_KEY"),
//	})
//	…
//	err = client.Publish(ctx, "news", "headline", headline)
//
// A Client publishes, sends messages to users, removes and bans users, and lists channels, members,
// connections, bans and kept events. Its methods and their types have the names that they have in
// package pushy. The server that receives a call asks the others that share its Broker. Results
// name the nodes that did not answer, and never guess what these have. [SignToken] signs tokens for
// clients, for an auth endpoint in such a process.
//
// # Tries
//
// The Client retries after temporary failures: if a connection cannot be made or fails, if
// there is no response, and after the statuses 408, 425, 429 and 5xx other than 501 and 505.
// Before a retry it waits for a random time, at least as long as Retry-After says. The maximum
// of the random time is 100 ms at first, and doubles with each retry up to 5 s.
//
// All tries of a call have the same id, and each is signed with the time at which it is sent.
// The server does nothing if it has carried out a request with this id, and gives the first
// answer again. If the first try has published a part of the events, the next one publishes
// the others. So all tries together have the effect of one. An id that the caller gives
// extends this to several calls, also of other processes: the number of an order, for example,
// if the event says that the order was paid. Queries change nothing, so their ids have no meaning.
//
// There are three limits. Servers remember ids for Options.RepeatWindow, 20 minutes by default;
// servers that share a broker with a Ledger, as those for Redis and NATS are, remember them
// together, and other servers each for itself until it ends. A direct message ([Client.Send]) can
// arrive twice if the server fails in the middle of the first try. And if the Client gives up after
// a try without a response, the outcome is unknown: the error is [ErrOutcomeUnknown]. If
// Options.Tries is 1, a call is carried out at most once.
package backend

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/sign"
)

// Options configure a Client. URL and SecretKey must be set. A zero value of the other fields
// means the default.
type Options struct {
	// URL is the URL at which pushy is mounted, including its prefix, such as
	// "https://rt.example.com/pushy". A proxy may replace the prefix.
	URL string
	// SecretKey is the secret key of the server, or one of its old ones.
	SecretKey string
	// HTTPClient makes the requests. The default keeps up to 64 connections to the server
	// open. The Client never follows redirects.
	HTTPClient *http.Client
	// Timeout limits the time of a call with all its tries. Default 30 s. The maximum is 15
	// minutes, because servers forget ids after 20 minutes, unless Options.RepeatWindow of the
	// server is less; then Timeout should be less, too.
	Timeout time.Duration
	// TryTimeout is how long one try waits for its response. Default 15 s, because a server
	// that is still busy with an earlier try answers after 10 s.
	TryTimeout time.Duration
	// Tries is the maximum number of times that a request is sent. Default: as many as
	// Timeout allows.
	Tries int
}

const (
	defaultTimeout    = 30 * time.Second
	maxTimeout        = 15 * time.Minute
	defaultTryTimeout = 15 * time.Second
	idleConns         = 64
)

// Client calls one server, or several behind one load balancer. It is safe for concurrent
// use.
type Client struct {
	opts  Options
	base  string // the URL without a slash at its end
	keyID string
	http  http.Client
}

// New returns a Client. It connects when the first call is made. The error says which option
// is wrong.
func New(options Options) (*Client, error) {
	u, err := url.Parse(options.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("backend: Options.URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("backend: Options.URL %q is not like https://rt.example.com/pushy", options.URL)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, errors.New("backend: Options.URL must have no query, fragment or user")
	case options.SecretKey == "":
		return nil, errors.New("backend: Options.SecretKey is empty")
	case options.Timeout < 0 || options.TryTimeout < 0 || options.Tries < 0:
		return nil, errors.New("backend: Timeout, TryTimeout and Tries must not be negative")
	}
	c := &Client{
		opts:  options,
		base:  strings.TrimRight(u.String(), "/"),
		keyID: sign.KeyID(options.SecretKey),
	}
	if c.opts.Timeout == 0 {
		c.opts.Timeout = defaultTimeout
	}
	c.opts.Timeout = min(c.opts.Timeout, maxTimeout)
	if c.opts.TryTimeout == 0 {
		c.opts.TryTimeout = defaultTryTimeout
	}
	if options.HTTPClient != nil {
		c.http = *options.HTTPClient
	} else if standard, ok := http.DefaultTransport.(*http.Transport); ok {
		transport := standard.Clone()
		transport.MaxIdleConnsPerHost = idleConns
		c.http.Transport = transport
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// CloseIdleConnections closes the connections that are kept open for later calls.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }
