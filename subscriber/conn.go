package subscriber

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/gobwas/ws"
)

// conn is one connection to the server, after its pushy:connect.
type conn struct {
	c     *Client
	link  *link
	id    string
	began time.Time
	done  chan struct{} // closed when it has ended

	// Client.mu guards these.
	calls    map[string]*call // by id, as JSON
	lastID   int
	within   time.Duration  // returnWithin; 0 if the server has sent none
	returnIn *time.Duration // of pushy:drain
}

// call is a command whose answer is awaited.
type call struct {
	size int
	// answer is called once, with Client.mu locked. err is not nil if there is no answer.
	answer func(m *message, err error)
}

// message is a message of the server.
type message struct {
	Event   string          `json:"event"`
	Channel string          `json:"channel"`
	Data    json.RawMessage `json:"data"`
	Offset  uint64          `json:"offset"`
	From    string          `json:"from"`
	ID      json.RawMessage `json:"id"`

	fields fields // of Data
}

// fields has the fields of the data of the protocol's own events.
type fields struct {
	ID        json.RawMessage   `json:"id"`
	Data      json.RawMessage   `json:"data"`
	Channel   string            `json:"channel"`
	Code      string            `json:"code"`
	Message   string            `json:"message"`
	Reason    string            `json:"reason"`
	SocketID  string            `json:"socketId"`
	MemberID  string            `json:"memberId"`
	Key       string            `json:"key"`
	Epoch     string            `json:"epoch"`
	Offset    uint64            `json:"offset"`
	Recovered bool              `json:"recovered"`
	Replay    int               `json:"replay"`
	Expires   int64             `json:"expires"`
	Again     bool              `json:"again"`
	Count     int               `json:"count"`
	Presence  []json.RawMessage `json:"presence"`
	Member    json.RawMessage   `json:"member"`

	ReturnWithin milliseconds `json:"returnWithin"`
	ReturnIn     milliseconds `json:"returnIn"`
}

func parseMessage(text []byte) (*message, error) {
	m := &message{}
	if err := json.Unmarshal(text, m); err != nil || m.Event == "" {
		return nil, fmt.Errorf("%w: it sends %.60q", ErrProtocol, text)
	}
	if strings.HasPrefix(m.Event, "pushy:") {
		_ = json.Unmarshal(m.Data, &m.fields) // a field of another type counts as absent
	} else if m.Channel == "" && m.ID == nil {
		var id struct{ ID json.RawMessage }
		_ = json.Unmarshal(m.Data, &id)
		m.fields.ID = id.ID
	}
	if m.ID == nil {
		m.ID = m.fields.ID
	}
	return m, nil
}

// err returns the error of a pushy:error.
func (m *message) err() error {
	return &Error{
		Code:    m.fields.Code,
		Message: cmp.Or(m.fields.Message, m.fields.Reason),
	}
}

// run connects again and again until the Client ends.
func (c *Client) run() {
	defer close(c.ended)
	defer c.tasks.Wait()
	b := backoff{
		min: c.o.MinDelay,
		max: c.o.MaxDelay,
	}
	dialled := false
	for {
		c.setState(Connecting)
		k, err := c.connect()
		e := ending{}
		if err == nil {
			dialled = true
			err = c.serve(k)
			e.lasted = time.Since(k.began)
			e.within, e.returnIn = k.within, k.returnIn
		}
		if c.ctx.Err() != nil {
			return
		}
		if isFinal(err, dialled) {
			c.mu.Lock()
			c.endLocked(err)
			c.mu.Unlock()
			return
		}
		errors.As(err, &e.closed)
		pause := b.next(e)
		c.o.Logger.Info("pushy: no connection; the next attempt follows",
			"url", c.url, "error", err, "pause", pause)
		c.setState(Waiting)
		select {
		case <-time.After(pause):
		case <-c.ctx.Done():
			return
		}
	}
}

// isFinal reports whether a Client whose connection has ended, or was refused, does not try again.
func isFinal(err error, dialled bool) bool {
	var e *CloseError
	switch {
	case errors.Is(err, ErrProtocol):
		return true
	case !errors.As(err, &e):
		return false
	case e.Status == 400, e.Status == 404:
		return !dialled // later, it is a proxy that does not know the server just then
	case e.Status != 0:
		return e.Status == 401 || e.Status == 403
	}
	switch e.Code {
	case 1002, 1003, 1007, 1008, 1010:
		return true
	}
	return e.Code >= 3500 && e.Code < 4000
}

// connect returns a connection whose server has sent pushy:connect.
func (c *Client) connect() (*conn, error) {
	l, err := c.dialLink(c.ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.ctx, dialTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Conn.Close() })
	m, err := l.receiveMessage()
	if err == nil && m.Event != "pushy:connect" {
		err = l.broken(ws.StatusProtocolError, "its first message is "+m.Event)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		l.end(isClose(err))
		return nil, err
	}
	k := &conn{
		c:     c,
		link:  l,
		id:    m.fields.SocketID,
		began: time.Now(),
		done:  make(chan struct{}),
		calls: map[string]*call{},
	}
	k.setWithin(&m.fields)
	return k, nil
}

// isClose reports whether a close frame was queued because of err.
func isClose(err error) bool {
	var e *CloseError
	return errors.As(err, &e) || errors.Is(err, ErrProtocol)
}

func (l *link) receiveMessage() (*message, error) {
	text, err := l.receive()
	if err != nil {
		return nil, err
	}
	m, err := parseMessage(text)
	if err != nil {
		l.close(ws.StatusProtocolError)
	}
	return m, err
}

// serve handles the messages of a connection until it ends.
func (c *Client) serve(k *conn) error {
	c.mu.Lock()
	closed := c.err != nil
	if !closed {
		c.conn = k
		c.setStateLocked(Connected)
		c.changeLocked()
		c.askAllLocked()
	}
	c.mu.Unlock()
	var err error
	if closed {
		k.link.close(1000)
	}
	for err == nil {
		var m *message
		if m, err = k.link.receiveMessage(); err == nil {
			c.mu.Lock()
			k.handleLocked(m)
			c.mu.Unlock()
		}
	}
	c.mu.Lock()
	c.disconnectedLocked(k, err)
	c.mu.Unlock()
	k.link.end(isClose(err))
	return err
}

// call sends a command. answer is called with its answer.
func (k *conn) callLocked(command string, data any, answer func(m *message, err error)) (id string) {
	k.lastID++
	id = strconv.Quote("~" + strconv.Itoa(k.lastID)) // no id that the data of a host would have
	text, err := json.Marshal(struct {
		Command string          `json:"command"`
		ID      json.RawMessage `json:"id"`
		Data    any             `json:"data,omitempty"`
	}{command, json.RawMessage(id), data})
	if err != nil {
		answer(nil, fmt.Errorf("subscriber: %s: %w", command, err))
		return id
	}
	k.calls[id] = &call{
		size:   len(text),
		answer: answer,
	}
	k.link.send(ws.NewTextFrame(text))
	return id
}

// failLocked ends the calls without an answer, after the connection has ended with err. After 1009
// the largest call is the reason, and repeating it would have the same result.
func (k *conn) failLocked(err error) {
	var e *CloseError
	var largest *call
	if errors.As(err, &e) && e.Code == int(ws.StatusMessageTooBig) {
		for _, waiting := range k.calls {
			if largest == nil || waiting.size > largest.size {
				largest = waiting
			}
		}
	}
	calls := k.calls
	k.calls = nil
	for _, waiting := range calls {
		if waiting == largest {
			waiting.answer(nil, e)
		} else {
			waiting.answer(nil, ErrUncertain)
		}
	}
}

func (k *conn) setWithin(f *fields) {
	if f.ReturnWithin.given {
		k.within = min(max(f.ReturnWithin.time, time.Second), maxReturn)
	}
}

// maxReturn limits what a server can ask for.
const maxReturn = time.Minute

// milliseconds is a time that the server sends. A value of another type, or below 0, counts as absent.
type milliseconds struct {
	time  time.Duration
	given bool
}

func (ms *milliseconds) UnmarshalJSON(text []byte) error {
	var n *float64
	if json.Unmarshal(text, &n) == nil && n != nil && *n >= 0 {
		ms.time = time.Duration(min(*n, 1e9)) * time.Millisecond
		ms.given = true
	}
	return nil
}

func (k *conn) handleLocked(m *message) {
	if k.c.err != nil {
		return // only the close frame is awaited
	}
	if m.Channel != "" {
		if s := k.c.subs[m.Channel]; s != nil {
			s.receiveLocked(m)
		}
		return
	}
	if waiting := k.calls[string(m.ID)]; waiting != nil {
		delete(k.calls, string(m.ID))
		waiting.answer(m, nil)
		return
	}
	switch m.Event {
	case "pushy:return":
		k.setWithin(&m.fields)
	case "pushy:drain":
		if in := m.fields.ReturnIn; in.given {
			d := min(in.time, maxReturn)
			k.returnIn = &d
		}
	case "pushy:subscription-end":
		if s := k.c.subs[m.fields.Channel]; s != nil {
			s.endedLocked(m)
		}
	}
}

// ending is how a connection has ended, or an attempt has failed.
type ending struct {
	lasted   time.Duration  // 0 for an attempt that has failed
	closed   *CloseError    // nil if it was lost without a close frame
	within   time.Duration  // of the server, or 0
	returnIn *time.Duration // of the server, or nil
}

// backoff decides how long a Client waits before it connects.
type backoff struct {
	min, max time.Duration
	failures int // attempts in a row, and connections that did not last
}

const (
	// lasting is how long a connection lasts that is no failure.
	lasting = 30 * time.Second
	// maxLost is the longest wait for a server that may not have failed, because only this
	// connection was lost.
	maxLost = 5 * time.Second
	// busy is the number of failures for which a 1013 counts.
	busy = 4
)

func (b *backoff) next(e ending) time.Duration {
	b.failures++
	if e.lasted >= lasting {
		b.failures = 1
	}
	if e.closed != nil && e.closed.Code == 1013 {
		b.failures = max(b.failures, busy)
	}
	if e.returnIn != nil {
		return *e.returnIn
	}
	most := b.bound(b.failures)
	if e.lasted > 0 && e.within > 0 {
		within := e.within
		if e.closed == nil {
			within = min(within, maxLost)
		}
		if b.failures == 1 {
			most = within
		}
		most = max(most, within)
	}
	pause := rand.N(most)
	if e.closed != nil {
		pause += e.closed.retryAfter
	}
	return pause
}

// bound returns the longest wait after that many failures.
func (b *backoff) bound(failures int) time.Duration {
	most := b.min
	for range failures {
		if most *= 2; most >= b.max {
			return b.max
		}
	}
	return most
}
