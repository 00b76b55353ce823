package cluster_test

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A judge compares what the clients of one test receive, and collects violations of the rules.
type judge struct {
	t    testing.TB
	seed maphash.Seed
	// lossy means that events may be missing if pushy:resync reports it.
	lossy bool

	mu     sync.Mutex
	broken []string
	before map[string]uint64 // hash of the list before each add or quit, as the first client saw it
	begun  map[string]int    // number of the last event that was published, by channel and publisher
	failed map[string]bool   // events for which Publish returned an error

	events int
}

func newJudge(t testing.TB) *judge {
	return &judge{t: t, seed: maphash.MakeSeed(), before: map[string]uint64{}, begun: map[string]int{}, failed: map[string]bool{}}
}

func (j *judge) broke(c *member, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.broken) < 20 { // one fault violates many rules
		j.broken = append(j.broken, fmt.Sprintf("%s over %s: ", c.name, c.transport)+fmt.Sprintf(format, args...))
	}
}

// verdict fails the test if a rule was violated.
func (j *judge) verdict() {
	j.t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, b := range j.broken {
		j.t.Error(b)
	}
}

// state compares the list before a change with that of other clients. A client that receives
// two changes in another order, or misses one, has another list.
func (j *judge) state(c *member, channel, change string, list []string) {
	sum := maphash.String(j.seed, strings.Join(list, " "))
	key := channel + " " + change
	j.mu.Lock()
	seen, known := j.before[key]
	if !known {
		j.before[key] = sum
	}
	j.mu.Unlock()
	if known && seen != sum && !j.lossy {
		j.broke(c, "members of %s disagree before %s; here it is %v", channel, change, list)
	}
}

// member is one client, which can reconnect.
type member struct {
	*judge
	name, transport string

	mu            sync.Mutex
	turn          int // counts connects and disconnects
	link          *link
	id            string                   // of the connection
	subscriptions map[string]*subscription // by channel
	answer        string                   // to the last command
	more          chan struct{}            // closed when a message has arrived
	ended         bool
	ending        bool   // the connection is expected to end
	asked         string // the channel of the last command
}

// subscription is the subscription of one channel.
type subscription struct {
	memberID string
	list     []string        // nil without presence
	begun    map[string]int  // events published before, by publisher
	first    map[string]int  // the first event, by publisher
	last     map[string]int  // the last event, by publisher
	gaps     int             // missed events that no resync has reported
	resynced map[string]bool // a resync has arrived since the publisher's last event
	resyncs  int
	syncs    int
	adds     map[string]int // by member
	quits    map[string]int
}

func newMember(j *judge, name, transport string) *member {
	return &member{judge: j, name: name, transport: transport}
}

// connect begins a new connection and waits for pushy:connect.
func (c *member) connect(base string) error {
	c.mu.Lock()
	c.turn++
	turn := c.turn
	c.subscriptions, c.id, c.answer, c.more = map[string]*subscription{}, "", "", make(chan struct{})
	c.ended, c.ending = false, false
	c.mu.Unlock()
	come := func(what func()) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.turn == turn { // otherwise it belongs to an earlier connection
			what()
			close(c.more)
			c.more = make(chan struct{})
		}
	}
	l, err := dial(base, c.transport, func(text []byte) { come(func() { c.got(text) }) },
		func(err error) {
			come(func() {
				c.ended = true
				if !c.ending {
					c.broke(c, "the connection ended: %v", err)
				}
			})
		})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.link = l
	c.mu.Unlock()
	if !c.await(func() bool { return c.id != "" }) {
		return fmt.Errorf("%s over %s: no pushy:connect", c.name, c.transport)
	}
	return nil
}

// leave ends the connection.
func (c *member) leave() {
	c.mu.Lock()
	c.turn++ // the end of this connection is intended
	c.subscriptions = map[string]*subscription{}
	l := c.link
	c.mu.Unlock()
	l.close()
}

// await waits until the func true returns true. It calls true with c.mu held.
func (c *member) await(true func() bool) bool { return c.awaitFor(patience, true) }

func (c *member) awaitFor(d time.Duration, true func() bool) bool {
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		ok, more := true(), c.more
		c.mu.Unlock()
		if ok {
			return ok
		}
		select {
		case <-more:
		case <-timeout.C:
			return false
		}
	}
}

// ask sends the command subscribe or unsubscribe, and returns its answer.
func (c *member) ask(command, channel, data string) string {
	c.mu.Lock()
	c.answer, c.asked = "", channel
	l := c.link
	c.mu.Unlock()
	text := `{"command":"` + command + `","data":{"channel":"` + channel + `"` + data + `}}`
	if err := l.send(text); err != nil {
		return "cannot send: " + err.Error()
	}
	c.await(func() bool { return c.answer != "" || c.ended })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answer == "" {
		return "no answer"
	}
	return c.answer
}

func (c *member) join(channel string) string {
	data := ""
	if strings.HasPrefix(channel, "private-") {
		data = `,"auth":"any","data":{"name":"` + c.name + `"}`
	}
	return c.ask("subscribe", channel, data)
}

type message struct {
	Event, Channel string
	Data           struct {
		SocketID, Channel, MemberID, Message, Reason, By string
		N                                                int
		Presence                                         []struct{ MemberID string }
		Member                                           struct{ MemberID string }
	}
}

// got handles one message. c.mu must be held.
func (c *member) got(text []byte) {
	var m message
	if err := json.Unmarshal(text, &m); err != nil {
		c.broke(c, "message %s: %v", text, err)
		return
	}
	channel := m.Channel
	if channel == "" {
		channel = m.Data.Channel
	}
	s := c.subscriptions[channel]
	switch m.Event {
	case "pushy:connect":
		c.id = m.Data.SocketID
		return
	case "pushy:error", "pushy:subscription-failed":
		c.answer = m.Event + " " + m.Data.Message + m.Data.Reason
		return
	case "pushy:subscription-success":
		c.subscribed(channel, m, s)
		return
	case "pushy:subscription-end":
		if s == nil {
			c.broke(c, "an end without a success in %s", channel)
		}
		delete(c.subscriptions, channel)
		c.answer = m.Event
		return
	}
	if s == nil {
		c.broke(c, "an event outside of a membership: %s", text)
		return
	}
	c.event(channel, m, s)
}

func (c *member) subscribed(channel string, m message, old *subscription) {
	if old != nil {
		c.broke(c, "a second success in %s", channel)
	}
	s := &subscription{memberID: m.Data.MemberID, first: map[string]int{}, last: map[string]int{}, begun: map[string]int{}, resynced: map[string]bool{},
		adds: map[string]int{}, quits: map[string]int{}}
	c.judge.mu.Lock()
	for key, n := range c.begun {
		if in, by, _ := strings.Cut(key, " "); in == channel {
			s.begun[by] = n
		}
	}
	c.judge.mu.Unlock()
	c.subscriptions[channel] = s
	if channel == c.asked {
		c.answer = m.Event
	}
	if m.Data.Presence == nil {
		return
	}
	s.list = idsOf(m)
	if n := len(s.list); n == 0 || s.list[n-1] != s.memberID {
		if !c.lossy {
			c.broke(c, "not last in its own list of %s: %v", channel, s.list)
		}
		return
	}
	c.state(c, channel, "+"+s.memberID, s.list[:len(s.list)-1])
}

func idsOf(m message) []string {
	ids := []string{}
	for _, p := range m.Data.Presence {
		ids = append(ids, p.MemberID)
	}
	return ids
}

func (c *member) event(channel string, m message, s *subscription) {
	switch id := m.Data.Member.MemberID; m.Event {
	case "pushy:presence-sync":
		s.syncs++
		s.list = idsOf(m)
		if !slices.Contains(s.list, s.memberID) {
			c.broke(c, "a sync of %s without itself", channel)
		}
	case "pushy:presence-add":
		if id == s.memberID || slices.Contains(s.list, id) {
			c.broke(c, "an add of %s to %s, where it is", id, channel)
			return
		}
		c.state(c, channel, "+"+id, s.list)
		s.adds[id]++
		s.list = append(s.list, id)
	case "pushy:presence-quit":
		i := slices.Index(s.list, id)
		if i < 0 || id == s.memberID {
			c.broke(c, "a quit of %s from %s, where it is not or itself", id, channel)
			return
		}
		c.state(c, channel, "-"+id, s.list)
		s.quits[id]++
		s.list = slices.Delete(s.list, i, i+1)
	case "pushy:resync":
		s.resyncs++
		s.gaps = 0
		for by := range s.last {
			s.resynced[by] = true
		}
	default:
		c.received(channel, m.Data.By, m.Data.N, s)
	}
}

func (c *member) received(channel, by string, n int, s *subscription) {
	c.judge.mu.Lock()
	c.events++
	c.judge.mu.Unlock()
	last, known := s.last[by]
	switch {
	case !known:
		s.first[by] = n
		if n > s.begun[by]+1 {
			c.missing(channel, by, s.begun[by]+1, n, s)
		}
	case n <= last:
		c.broke(c, "event %d of %s in %s after %d", n, by, channel, last)
		return
	case n > last+1:
		c.missing(channel, by, last+1, n, s)
	}
	s.last[by] = n
	delete(s.resynced, by)
}

// missing records that the events from first up to next, excluding next, are missing.
func (c *member) missing(channel, by string, first, next int, s *subscription) {
	if _, known := s.last[by]; s.resynced[by] || !known && s.resyncs > 0 {
		return
	}
	for n := first; n < next; n++ {
		c.judge.mu.Lock()
		failed := c.failed[channel+" "+by+" "+strconv.Itoa(n)]
		c.judge.mu.Unlock()
		if failed {
			continue
		}
		if s.gaps++; !c.lossy {
			c.broke(c, "missed event %d of %s in %s", n, by, channel)
			return
		}
	}
}

// has waits for the event n of a publisher, and reports whether it has arrived.
func (c *member) has(channel, by string, n int) bool {
	return c.await(func() bool { s := c.subscriptions[channel]; return c.ended || s == nil || s.last[by] >= n })
}

// in returns c's memberIds, by channel.
func (c *member) in() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := map[string]string{}
	for channel, s := range c.subscriptions {
		in[channel] = s.memberID
	}
	return in
}

// list returns the members of a channel as the client knows them.
func (c *member) list(channel string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.subscriptions[channel]; s != nil {
		return slices.Clone(s.list)
	}
	return nil
}
