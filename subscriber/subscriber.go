// Package subscriber is a client of pushy servers for Go processes: it receives the events of
// channels and calls commands, over a WebSocket (PROTOCOL.md). Processes that only publish use
// package backend, and code of the process that serves pushy uses Server.Subscribe.
//
//	c, err := subscriber.Dial(ctx, "wss://rt.example.com/pushy", subscriber.Options{
//		Token: subscriber.SignWith(secretKey),
//	})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	orders, err := c.Subscribe(ctx, "private-orders", &subscriber.SubscribeOptions{Since: saved})
//	if err != nil {
//		return err
//	}
//	for e, err := range orders.Events() {
//		if err != nil {
//			return err
//		}
//		…
//		save(orders.Position())
//	}
//
// # Lost connections
//
// When the connection is lost, the Client connects again, and subscribes again to its channels. In
// channels that keep events, the loop goes on where it was, or receives an Event with KindGap and the
// reason why events may be missing (PROTOCOL.md, section 14). In other channels a KindGap follows
// each reconnect.
//
// The first attempt is made at a random time within what the server asked for (returnWithin,
// pushy:drain), so that the clients of a server that has failed do not all come back at once. The
// others wait for a random time of up to 1 s, which doubles with each failure up to
// Options.MaxDelay. After a connection that lasted 30 s the count begins again. Retry-After is added,
// at most 60 s.
//
// The Client ends, and every loop with it, if the server answers 401 or 403, or closes the connection
// with a code after which a client does not reconnect (the table of PROTOCOL.md, section 3; *CloseError),
// and if it breaks the protocol (ErrProtocol).
//
// # Slow loops
//
// Each Subscription has a bounded queue of its own. A loop that is too slow delays neither the
// others nor the server, see OnFull.
package subscriber

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Errors of a Client. The others are *Error, *CloseError and those of contexts.
var (
	// ErrClosed is the error after Close, and of the loop of a Subscription that has ended.
	ErrClosed = errors.New("subscriber: closed")
	// ErrSlowConsumer ends a loop whose queue was full, see EndWhenFull.
	ErrSlowConsumer = errors.New("subscriber: slow consumer: the queue of the Subscription is full")
	// ErrUncertain is wrapped by the error of a call that was sent and whose answer did not arrive:
	// the server may have carried it out. The Client never sends it again.
	ErrUncertain = errors.New("subscriber: it is not known whether the command was carried out")
	// ErrDenied is returned by Options.Token, or is the Token.Err, for channels that the user may not
	// enter. It ends their subscriptions; after other errors Token is called again.
	ErrDenied = errors.New("subscriber: denied")
	// ErrProtocol is wrapped by the error that ends a Client whose server broke the protocol, for
	// example with a message over 16 MiB.
	ErrProtocol = errors.New("subscriber: the server broke the protocol")
)

// Error is an error that the server has sent (pushy:error, or pushy:subscription-failed with its
// reason as Message). The codes are those of PROTOCOL.md, section 3, and those of the host; Code can
// be "".
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string {
	if e.Code == "" {
		return "subscriber: " + e.Message
	}
	return "subscriber: " + e.Message + " (" + e.Code + ")"
}

// CloseError says how the server has ended a connection: with a close code, or with an HTTP status
// instead of a connection.
type CloseError struct {
	Code   int // of the close frame, or 0
	Status int // of HTTP, or 0
	Reason string

	retryAfter time.Duration
}

func (e *CloseError) Error() string {
	s := fmt.Sprintf("subscriber: the server closed the connection: %d ", e.Code)
	if e.Status != 0 {
		s = fmt.Sprintf("subscriber: the server answered %d ", e.Status)
	}
	return strings.TrimSuffix(s+e.Reason, " ")
}

// State is the state of a Client.
type State uint8

const (
	Connecting State = iota + 1
	Connected
	Waiting // until the next attempt to connect
	Closed  // for good
)

// String returns the name of the state in lower case.
func (s State) String() string {
	switch s {
	case Connecting:
		return "connecting"
	case Connected:
		return "connected"
	case Waiting:
		return "waiting"
	case Closed:
		return "closed"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Options configure a Client. The zero value is valid.
type Options struct {
	Header    http.Header // of the handshake, such as Cookie or Authorization
	TLSConfig *tls.Config
	// NetDial makes the connection to "host:port". Default: that of a net.Dialer.
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Token returns tokens for private channels: see SignWith and AuthURL. Default: no tokens.
	Token TokenFunc
	// OnState is called after each change of the state, in a goroutine of its own, one call at a
	// time and in order. If it is slow, it gets only the latest state.
	OnState func(State)
	// Logger receives a line for each connection that is lost, and each failure of Token. Default:
	// none.
	Logger *slog.Logger
	// MinDelay is half of the longest wait before the first attempt after a failure, and MaxDelay the
	// longest wait before any. Default 500 ms and 20 s.
	MinDelay time.Duration
	MaxDelay time.Duration
	// Heartbeat is the time without a byte of the server after which it is sent a ping. If nothing
	// arrives for the same time again, the connection is lost. Default 25 s.
	Heartbeat time.Duration
	// MaxEvents and MaxBytes limit the queue of each Subscription. An event counts with its data, its
	// name and 250 bytes; one always fits into an empty queue. Default 1,024 and 1 MiB.
	MaxEvents int
	MaxBytes  int
	// OnFull says what happens when a queue is full. Default EndWhenFull.
	OnFull OnFull
}

func (o *Options) setDefaults() error {
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"MinDelay", &o.MinDelay, 500 * time.Millisecond},
		{"MaxDelay", &o.MaxDelay, 20 * time.Second},
		{"Heartbeat", &o.Heartbeat, 25 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
		if *d.value < 0 {
			return fmt.Errorf("option %s is %v, it must be positive", d.name, *d.value)
		}
	}
	if o.MaxEvents == 0 {
		o.MaxEvents = 1024
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.MaxEvents < 0:
		return fmt.Errorf("option MaxEvents is %d, it must be positive", o.MaxEvents)
	case o.MaxBytes < 0:
		return fmt.Errorf("option MaxBytes is %d, it must be positive", o.MaxBytes)
	case o.OnFull > SkipWhenFull:
		return fmt.Errorf("option OnFull is %d, it must be EndWhenFull or SkipWhenFull", o.OnFull)
	}
	return nil
}

// Client is a client of a pushy server. All methods are safe for concurrent use, and can be called in
// loops over events, in OnState and in Token.
type Client struct {
	url    string
	o      Options
	ctx    context.Context // ends with the Client
	cancel context.CancelFunc
	ended  chan struct{}  // closed when all goroutines have ended, except those that run funcs of the caller
	states chan struct{}  // has an element after a change of the state
	tasks  sync.WaitGroup // started with the lock, while the Client has not ended

	mu      sync.Mutex
	state   State
	conn    *conn         // nil while there is none
	err     error         // why the Client has ended
	changed chan struct{} // closed when conn or err changes, and replaced
	subs    map[string]*Subscription
	former  []string // ids of the last connections, oldest first
}

// Dial connects to a server: rawURL is the URL of its prefix, such as "wss://rt.example.com/pushy" (ws,
// wss, http or https), or that of its WebSocket, which ends in "/websocket". It repeats attempts that
// fail for the time being until ctx ends. A URL that is not valid, the statuses 400, 401, 403 and 404,
// and the close codes after which a client does not reconnect are errors at once. After Dial has
// returned, the end of ctx has no effect.
func Dial(ctx context.Context, rawURL string, o Options) (*Client, error) {
	socket, err := socketURL(rawURL)
	if err == nil {
		err = o.setDefaults()
	}
	if err != nil {
		return nil, fmt.Errorf("subscriber: dial: %w", err)
	}
	c := &Client{
		url:     socket,
		o:       o,
		ended:   make(chan struct{}),
		states:  make(chan struct{}, 1),
		changed: make(chan struct{}),
		subs:    map[string]*Subscription{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if o.OnState != nil {
		go c.reportStates()
	}
	go c.run()
	_, err = c.await(ctx)
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// socketURL returns the URL of the WebSocket.
func socketURL(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", err
	}
	switch u.Scheme {
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	case "ws", "wss":
	default:
		return "", fmt.Errorf("the URL %q must begin with ws, wss, http or https", rawURL)
	}
	if u.Host == "" {
		return "", fmt.Errorf("the URL %q has no host", rawURL)
	}
	if !strings.HasSuffix(u.Path, "/websocket") {
		u = u.JoinPath("socket", "websocket")
	}
	q := u.Query()
	q.Set("v", "2")
	u.RawQuery = q.Encode()
	u.Fragment = ""
	return u.String(), nil
}

// State returns the present state.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// ConnID returns the id of the present connection, the socketId of PROTOCOL.md, or "" while there is
// none.
func (c *Client) ConnID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return ""
	}
	return c.conn.id
}

// Close ends the Client. It closes the connection with 1000, after what was sent before, and waits until
// the goroutines have ended, but not for an OnState or a Token that runs. Loops end with ErrClosed.
func (c *Client) Close() {
	c.mu.Lock()
	c.endLocked(ErrClosed)
	k := c.conn
	c.mu.Unlock()
	if k != nil {
		k.link.close(1000)
	}
	<-c.ended
}

// endLocked ends the Client, if it has not ended.
func (c *Client) endLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	for _, s := range c.subs {
		s.endLocked(err)
	}
	c.setStateLocked(Closed)
	c.changeLocked()
	c.cancel()
}

// changeLocked wakes up those that wait for a connection.
func (c *Client) changeLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Client) setStateLocked(s State) {
	if c.state == Closed {
		return
	}
	c.state = s
	select {
	case c.states <- struct{}{}:
	default:
	}
}

func (c *Client) setState(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setStateLocked(s)
}

// reportStates calls OnState. It ends after the state Closed.
func (c *Client) reportStates() {
	last := State(0)
	for range c.states {
		now := c.State()
		if now != last {
			c.o.OnState(now)
		}
		last = now
		if now == Closed {
			return
		}
	}
}

// await returns the present connection, and waits for one until ctx ends.
func (c *Client) await(ctx context.Context) (*conn, error) {
	for {
		c.mu.Lock()
		k, err, changed := c.conn, c.err, c.changed
		c.mu.Unlock()
		switch {
		case err != nil:
			return nil, err
		case k != nil:
			return k, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("subscriber: no connection: %w", context.Cause(ctx))
		}
	}
}

// maxFormer is the number of former connections that a server accepts in a subscribe command.
const maxFormer = 8

// disconnectedLocked ends the use of a connection that is lost.
func (c *Client) disconnectedLocked(k *conn, err error) {
	close(k.done)
	if c.conn == k {
		c.conn = nil
		c.changeLocked()
	}
	c.former = append(c.former, k.id)
	if len(c.former) > maxFormer {
		c.former = slices.Delete(c.former, 0, 1)
	}
	k.failLocked(err) // also ends a Subscription whose command was too large
	for _, s := range c.subs {
		s.disconnectedLocked()
	}
}

// isPrivate reports whether a channel needs a token, unless the server's host decides otherwise.
func isPrivate(lower string) bool {
	return strings.HasPrefix(lower, "private-") || strings.HasPrefix(lower, "presence-")
}
