package cluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/ordercheck"
)

// resumer is a client that can lose its connection and return, as the browser client does: it
// resumes from its positions and keeps its memberships. It checks each message.
type resumer struct {
	t    testing.TB
	name string

	mu       sync.Mutex
	turn     int // counts connects and drops
	link     *link
	id       string // of the connection
	was      []string
	ended    string // why the connection has ended, or ""
	endedAt  time.Time
	within   *int // the last returnWithin, in milliseconds
	returnIn *int // of the pushy:drain, if there was one
	more     chan struct{}
	channels map[string]*resumed
	broken   []string
}

// resumed is a channel of a resumer.
type resumed struct {
	kept  *ordercheck.Follower // nil if the channel keeps no events
	holds bool                 // it is private, with presence, and the membership is held

	in       bool
	ended    string // the reason of pushy:subscription-end
	memberID string
	key      string
	again    bool // the last success had "resumed":true
	failed   string
	list     []string // ids of the members
	presence []string // the presence events: their names and members
	resyncs  []string // the reasons of all pushy:resync
	events   []string // the data of the events, if kept is nil
}

// logs has the log of each channel of a test. Tests fill it before they start goroutines.
type logs map[string]*ordercheck.Log

func (l logs) of(channel string) *ordercheck.Log {
	if l[channel] == nil {
		l[channel] = &ordercheck.Log{}
	}
	return l[channel]
}

func newResumer(t testing.TB, name string) *resumer {
	return &resumer{
		t:        t,
		name:     name,
		more:     make(chan struct{}),
		channels: map[string]*resumed{},
	}
}

// follow adds channels, which the client subscribes to with every connection.
func (c *resumer) follow(all logs, channels ...string) *resumer {
	for _, name := range channels {
		ch := &resumed{holds: strings.HasPrefix(name, "private-")}
		if strings.Contains(name, "kept") {
			ch.kept = all.of(name).Follower()
		}
		c.channels[name] = ch
	}
	return c
}

func (c *resumer) brokeLocked(format string, args ...any) {
	if len(c.broken) < 5 { // one fault violates many rules
		c.broken = append(c.broken, c.name+": "+fmt.Sprintf(format, args...))
	}
}

// verdict fails the test if a message broke a rule.
func (c *resumer) verdict() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.broken {
		c.t.Error(b)
	}
	c.broken = nil
}

// connect opens a connection and subscribes to all channels.
func (c *resumer) connect(base string) error {
	c.mu.Lock()
	c.turn++
	turn := c.turn
	c.ended = ""
	c.within, c.returnIn = nil, nil
	if c.id != "" {
		c.was = append(c.was, c.id)
		c.was = c.was[max(0, len(c.was)-8):]
	}
	c.id = ""
	for _, ch := range c.channels {
		ch.in, ch.ended, ch.failed = false, "", ""
	}
	c.mu.Unlock()
	change := func(what func()) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.turn == turn { // otherwise it belongs to an earlier connection
			what()
			close(c.more)
			c.more = make(chan struct{})
		}
	}
	l, err := dialWebSocket(base, "/pushy/socket/websocket?v=2", false,
		func(text []byte) { change(func() { c.gotLocked(text) }) },
		func(err error) { change(func() { c.ended, c.endedAt = err.Error(), time.Now() }) })
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.link = l
	commands := make([]string, 0, len(c.channels))
	for name, ch := range c.channels {
		commands = append(commands, c.subscribeLocked(name, ch))
	}
	c.mu.Unlock()
	if !c.await(func() bool { return c.id != "" || c.ended != "" }) {
		return errors.New("no pushy:connect")
	}
	for _, text := range commands {
		if err := l.send(text); err != nil {
			return err
		}
	}
	answered := c.await(func() bool {
		for _, ch := range c.channels {
			if !ch.in && ch.failed == "" {
				return c.ended != ""
			}
		}
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if !answered || c.ended != "" {
		return fmt.Errorf("not subscribed, connection ended %q", c.ended)
	}
	for name, ch := range c.channels {
		if ch.failed != "" {
			return fmt.Errorf("%s: %s", name, ch.failed)
		}
	}
	return nil
}

func (c *resumer) subscribeLocked(name string, ch *resumed) string {
	more := ""
	if ch.holds {
		more += `,"auth":"any","data":{"name":"` + c.name + `"},"hold":true`
	}
	if ch.key != "" {
		more += fmt.Sprintf(`,"member":{"id":%q,"key":%q}`, ch.memberID, ch.key)
	}
	if ch.kept != nil && ch.kept.At != nil {
		more += fmt.Sprintf(`,"since":{"epoch":%q,"offset":%d}`, ch.kept.At.Epoch, ch.kept.At.Offset)
		if len(c.was) > 0 {
			was, _ := json.Marshal(c.was)
			more += `,"was":` + string(was)
		}
	}
	return `{"command":"subscribe","data":{"channel":"` + name + `"` + more + `}}`
}

// drop loses the connection.
func (c *resumer) drop() {
	c.mu.Lock()
	c.turn++
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.close()
	}
}

// await waits until done returns true. It calls done with c.mu held.
func (c *resumer) await(done func() bool) bool {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		ok, more := done(), c.more
		c.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-more:
		case <-timeout.C:
			return false
		}
	}
}

// has waits until the client has the event at a position.
func (c *resumer) has(channel string, at broker.Position) bool {
	return c.await(func() bool {
		have := c.channels[channel].kept.At
		return have != nil && have.Epoch == at.Epoch && have.Offset >= at.Offset
	})
}

// breaks returns the reasons of all breaks of a kept channel.
func (c *resumer) breaks(channel string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.channels[channel].kept.Breaks)
}

// gotLocked handles one message.
func (c *resumer) gotLocked(text []byte) {
	var m struct {
		Event, Channel string
		Data           json.RawMessage
		Offset         uint64
	}
	if err := json.Unmarshal(text, &m); err != nil {
		c.brokeLocked("message %s: %v", text, err)
		return
	}
	var data struct {
		SocketID, Channel, MemberID, Key, Reason, Message string
		ReturnWithin, ReturnIn                            *int
		Resumed                                           bool
		Presence                                          []struct{ MemberID string }
		Member                                            struct{ MemberID string }
	}
	if strings.HasPrefix(m.Event, "pushy:") {
		if err := json.Unmarshal(m.Data, &data); err != nil {
			c.brokeLocked("message %s: %v", text, err)
			return
		}
	}
	name := m.Channel
	if name == "" {
		name = data.Channel
	}
	ch := c.channels[name]
	switch m.Event {
	case "pushy:connect":
		c.id = data.SocketID
		c.within = data.ReturnWithin
		return
	case "pushy:return":
		c.within = data.ReturnWithin
		return
	case "pushy:drain":
		c.returnIn = data.ReturnIn
		return
	case "pushy:subscription-failed", "pushy:error":
		if ch != nil {
			ch.failed = m.Event + " " + data.Message + data.Reason
			return
		}
	}
	if ch == nil {
		c.brokeLocked("message %s", text)
		return
	}
	switch id := data.Member.MemberID; m.Event {
	case "pushy:subscription-success":
		if ch.in {
			c.brokeLocked("a second success in %s", name)
		}
		ch.in = true
		ch.memberID, ch.key, ch.again = data.MemberID, data.Key, data.Resumed
		ch.list = nil
		for _, p := range data.Presence {
			ch.list = append(ch.list, p.MemberID)
		}
		if ch.kept != nil {
			breaks := len(ch.kept.Breaks)
			c.checkLocked(name, ch.kept.Success(m.Data))
			if len(ch.kept.Breaks) > breaks {
				c.t.Logf("%s: %s", c.name, text)
			}
		}
	case "pushy:subscription-end":
		ch.in = false
		ch.ended = data.Reason
	case "pushy:presence-add":
		ch.presence = append(ch.presence, "add "+id)
		if slices.Contains(ch.list, id) {
			c.brokeLocked("an add of %s, which is in %s", id, name)
		}
		ch.list = append(ch.list, id)
	case "pushy:presence-quit":
		ch.presence = append(ch.presence, "quit "+id)
		i := slices.Index(ch.list, id)
		if i < 0 {
			c.brokeLocked("a quit of %s, which is not in %s", id, name)
			return
		}
		ch.list = slices.Delete(ch.list, i, i+1)
	case "pushy:presence-sync":
		ch.presence = append(ch.presence, "sync")
		ch.list = nil
		for _, p := range data.Presence {
			ch.list = append(ch.list, p.MemberID)
		}
	case "pushy:resync":
		ch.resyncs = append(ch.resyncs, data.Reason)
		if ch.kept != nil {
			c.t.Logf("%s: %s", c.name, text)
			c.checkLocked(name, ch.kept.Resync(m.Data))
		}
	default:
		switch {
		case !ch.in:
			c.brokeLocked("an event outside of a subscription: %s", text)
		case ch.kept != nil:
			c.checkLocked(name, ch.kept.Event(m.Offset, string(m.Data)))
		default:
			ch.events = append(ch.events, string(m.Data))
		}
	}
}

func (c *resumer) checkLocked(channel string, err error) {
	if err != nil {
		c.brokeLocked("%s: %v", channel, err)
	}
}

// enter connects a new client, which follows the channels.
func (all logs) enter(t testing.TB, n node, name string, channels ...string) *resumer {
	t.Helper()
	c := newResumer(t, name).follow(all, channels...)
	if err := c.connect(n.url); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return c
}

// publish publishes numbered events in a channel that keeps events, and returns the position
// of the last one.
func (all logs) publish(t testing.TB, n node, channel string, first, last int) (at broker.Position) {
	t.Helper()
	for i := first; i <= last; i++ {
		receipt, err := n.srv.PublishEvent(t.Context(), pushy.Event{
			Channel: channel,
			Name:    "n",
			Data:    i,
		})
		if err != nil {
			t.Fatalf("publish %d in %s: %v", i, channel, err)
		}
		at = receipt.Position
		if err := all.of(channel).Published(at, strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	return at
}
