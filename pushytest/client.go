package pushytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// Event is a message from the Server. Channel is "" for a direct message.
type Event struct {
	Channel string          `json:"channel"`
	Event   string          `json:"event"`
	Data    json.RawMessage `json:"data"`
	// From is the memberId of the client that has sent the event, or "" for an event of the app.
	From string `json:"from,omitempty"`
	// Offset is the place of an event in a channel that keeps events, or 0.
	Offset uint64 `json:"offset,omitempty"`
	// ID is the id of the command that a direct message answers, as JSON, if Data
	// cannot carry it: because it is no object, or has an id of its own.
	ID json.RawMessage `json:"id,omitempty"`
}

func (e Event) String() string {
	if e.Channel == "" {
		return fmt.Sprintf("%s %s", e.Event, e.Data)
	}
	return fmt.Sprintf("%s on %s %s", e.Event, e.Channel, e.Data)
}

// Client is an in-memory client.
type Client struct {
	kit     *Kit
	name    string // for messages
	id      string
	edit    []func(*http.Request)
	request *http.Request // that it connected with
	pipe    *inmem.Client
	asked   int             // ids given to commands
	read    <-chan struct{} // closed when there is nothing more to read

	mu      sync.Mutex
	stays   map[string]*stay // by channel: what the client has subscribed to
	former  []string         // ids of earlier connections, for "was"
	waiting []Event          // arrived, and no Expect has taken them
	log     []string
	ended   *session.CloseError // how the connection ended
	changed chan struct{}       // closed by the next change
}

// ID returns the connection's id, which the page calls socketId.
func (c *Client) ID() string { return c.id }

// Conn returns the Server's side of the connection.
func (c *Client) Conn() *pushy.Conn {
	c.kit.t.Helper()
	conn, ok := c.kit.srv.Conn(c.id)
	if !ok {
		c.fail("the Server no longer has the connection %s", c.name)
	}
	return conn
}

// readAll takes what comes as it comes: a test that looks elsewhere for a while
// must not be a client that does not read.
func (c *Client) readAll(pipe *inmem.Client, read chan<- struct{}) {
	defer close(read)
	for {
		text, err := pipe.Receive(context.Background())
		c.mu.Lock()
		var end *session.CloseError
		switch {
		case errors.As(err, &end):
			c.ended = end
			c.log = append(c.log, "the connection ended: "+end.Error())
		default:
			var e Event
			if err := json.Unmarshal([]byte(text), &e); err != nil {
				e.Event = "what is not JSON: " + text
			}
			c.waiting = append(c.waiting, e)
			c.follow(e)
			if !strings.Contains(text, `"`+fenceID) {
				c.log = append(c.log, e.String())
			}
		}
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
		if end != nil {
			return
		}
	}
}

// take waits for the first event that matches, in the order of arrival, and takes
// it out of those that wait.
func (c *Client) take(matches func(Event) bool) (Event, bool) {
	timeout := time.NewTimer(c.kit.Patience)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		if i := slices.IndexFunc(c.waiting, matches); i >= 0 {
			e := c.waiting[i]
			copy(c.waiting[1:], c.waiting[:i]) // most often none
			c.waiting = c.waiting[1:]
			c.mu.Unlock()
			return e, true
		}
		ended, changed := c.ended, c.changed
		c.mu.Unlock()
		if ended != nil {
			return Event{}, false
		}
		select {
		case <-changed:
		case <-timeout.C:
			return Event{}, false
		}
	}
}

// shownEvents is how many of the last events a failure shows.
const shownEvents = 30

// fail ends the test, with what has arrived.
func (c *Client) fail(format string, args ...any) {
	c.kit.t.Helper()
	c.mu.Lock()
	log := c.log
	var waiting []string
	for _, e := range c.waiting {
		waiting = append(waiting, e.String())
	}
	c.mu.Unlock()
	c.kit.t.Fatalf("pushytest: %s: %s\n%s%s", c.name, fmt.Sprintf(format, args...),
		listed("it has received", log), listed("not matched by an Expect call", waiting))
}

func listed(title string, all []string) string {
	if len(all) == 0 {
		return title + ": nothing\n"
	}
	left := ""
	if more := len(all) - shownEvents; more > 0 {
		left = fmt.Sprintf("\n  … %d earlier ones", more)
		all = all[more:]
	}
	return title + ":" + left + "\n  " + strings.Join(all, "\n  ") + "\n"
}

// ExpectEvent waits for an event of that name on that channel and returns the first one
// that no earlier call has returned. channel is "" for direct messages. The data is decoded
// into the variable that into points to, unless into is nil. Other events remain for later
// calls: to check the order of events, expect the same name several times.
func (c *Client) ExpectEvent(channel, event string, into any) Event {
	c.kit.t.Helper()
	channel = lower(channel)
	e, ok := c.take(func(e Event) bool { return e.Channel == channel && e.Event == event })
	if !ok {
		c.fail("no %s arrived", Event{Channel: channel, Event: event})
	}
	c.decode(e.Data, into)
	return e
}

// ExpectNone fails if an event of that name on that channel has arrived that no ExpectEvent
// has returned, or was queued for this client before the call. It sends a command to the
// Server and waits for the answer, so the effects of the client's own commands are
// included. Events that other goroutines of the app have not published yet are not: in a
// bubble, call synctest.Wait first.
func (c *Client) ExpectNone(channel, event string) {
	c.kit.t.Helper()
	channel = lower(channel)
	c.fence()
	c.mu.Lock()
	var found *Event
	for _, e := range c.waiting {
		if e.Channel == channel && e.Event == event {
			found = &e
			break
		}
	}
	c.mu.Unlock()
	if found != nil {
		c.fail("unexpected event: %s", found)
	}
}

// fence waits for the answer to a command that nobody has: commands run in order,
// and what was queued before their answer comes before it.
func (c *Client) fence() {
	c.kit.t.Helper()
	if c.end() != nil {
		return // then all has come
	}
	if _, ok := c.ask("pushytest:fence", nil, fenceID); !ok && c.end() == nil {
		c.fail("the Server does not answer: a command does not return")
	}
}

// What the ids of commands begin with.
const (
	commandID = "pushytest-"
	fenceID   = "pushytest-fence-"
)

// Send sends a command without an id and does not wait. data is encoded as encoding/json
// does; nil sends no data.
func (c *Client) Send(command string, data any) {
	c.kit.t.Helper()
	c.send(command, data, "")
}

// SendEvent sends an event to the other members of a channel and does not wait
// (pushy.ChannelOptions.ClientEvent). event is a name such as "client-typing". If the Server
// refuses it, pushy:error arrives; if the channel does not allow such events, nothing happens.
func (c *Client) SendEvent(channel, event string, data any) {
	c.kit.t.Helper()
	text, err := json.Marshal(struct {
		Event   string `json:"event"`
		Channel string `json:"channel"`
		Data    any    `json:"data"`
	}{event, channel, data})
	if err != nil {
		c.fail("cannot encode the data of %s: %v", event, err)
	}
	c.SendText(string(text))
}

// SendText sends a message unchanged, for example one that is not a command.
func (c *Client) SendText(text string) {
	c.kit.t.Helper()
	sent := make(chan error, 1)
	go func() { sent <- c.pipe.Send(text) }()
	timeout := time.NewTimer(c.kit.Patience)
	defer timeout.Stop()
	select {
	case err := <-sent:
		if err != nil {
			c.fail("cannot send %s: %v", text, err)
		}
	case <-timeout.C:
		c.fail("the Server does not read %s: a command does not return", text)
	}
}

func (c *Client) send(command string, data any, id string) {
	c.kit.t.Helper()
	text, err := json.Marshal(struct {
		Command string `json:"command"`
		Data    any    `json:"data,omitempty"`
		ID      string `json:"id,omitempty"`
	}{command, data, id})
	if err != nil {
		c.fail("cannot encode the data of %s: %v", command, err)
	}
	c.SendText(string(text))
}

// ask sends a command with an id and waits for the message that carries it back.
func (c *Client) ask(command string, data any, prefix string) (Event, bool) {
	c.kit.t.Helper()
	c.asked++
	id := prefix + strconv.Itoa(c.asked)
	c.send(command, data, id)
	return c.take(func(e Event) bool {
		return e.Channel == "" && e.answers(id)
	})
}

// answers reports whether e is the answer to the command of that id: the message's
// own id counts first, then the one in its data.
func (e Event) answers(id string) bool {
	var own any
	if e.ID != nil {
		return json.Unmarshal(e.ID, &own) == nil && own == id
	}
	var data struct{ ID any }
	return json.Unmarshal(e.Data, &data) == nil && data.ID == id
}

// Exec runs a command, as exec in a page does, and waits for its answer. The value that a
// command of pushy.Handle returned, or that another command passed to Conn.Reply, is
// decoded into the variable that into points to, unless into is nil. If the command was
// refused, the error is a *pushy.Error. For a command without an answer use Send.
func (c *Client) Exec(command string, data, into any) error {
	c.kit.t.Helper()
	e, ok := c.ask(command, data, commandID)
	if !ok {
		c.fail("%s was not answered", command)
	}
	switch e.Event {
	case "pushy:error":
		return c.refusal(e)
	case "pushy:reply":
		var answer struct{ Data json.RawMessage }
		c.decode(e.Data, &answer)
		c.decode(answer.Data, into)
	default:
		c.decode(e.Data, into)
	}
	return nil
}

func (c *Client) refusal(e Event) error {
	c.kit.t.Helper()
	var refused pushy.Error
	c.decode(e.Data, &refused)
	return &refused
}

func (c *Client) decode(data json.RawMessage, into any) {
	c.kit.t.Helper()
	if into == nil {
		return
	}
	if err := json.Unmarshal(data, into); err != nil {
		c.fail("cannot decode %s: %v", data, err)
	}
}

// Drop ends the connection without a close frame, as a lost network does, and returns
// when the Disconnect hook has returned.
func (c *Client) Drop() {
	c.kit.t.Helper()
	c.pipe.Abort()
	c.await("the Server still holds it", c.pipe.Done())
}

// Close ends the connection with a close code, such as 1001, which a browser sends when
// the user leaves the page. It returns when the Disconnect hook has returned.
func (c *Client) Close(code int) {
	c.kit.t.Helper()
	c.pipe.Close(code, "")
	c.await("the Server still holds it", c.pipe.Done())
}

// ExpectClose waits for the Server to end the connection. Without a close frame the
// code is 1006.
func (c *Client) ExpectClose() (code int, reason string) {
	c.kit.t.Helper()
	c.await("the Server does not end the connection", c.read)
	end := c.end()
	return end.Code, end.Reason
}

func (c *Client) end() *session.CloseError {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

func (c *Client) await(otherwise string, done <-chan struct{}) {
	c.kit.t.Helper()
	timeout := time.NewTimer(c.kit.Patience)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
		c.fail("%s\n%s", otherwise, c.kit.goroutines())
	}
}
