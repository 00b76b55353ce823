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

// A judge has what the clients of one test must agree on, and what they saw
// that breaks a rule.
type judge struct {
	t    testing.TB
	seed maphash.Seed
	// lossy: events may be missing if pushy:resync says so.
	lossy bool

	mu     sync.Mutex
	broken []string
	before map[string]uint64 // the list before an add or quit, as first seen
	begun  map[string]int    // events that a publisher has begun, by channel and publisher
	failed map[string]bool   // events whose publisher got an error

	events int
}

func newJudge(t testing.TB) *judge {
	return &judge{t: t, seed: maphash.MakeSeed(), before: map[string]uint64{}, begun: map[string]int{}, failed: map[string]bool{}}
}

func (j *judge) broke(c *member, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.broken) < 20 { // one mistake breaks many rules
		j.broken = append(j.broken, fmt.Sprintf("%s over %s: ", c.name, c.transport)+fmt.Sprintf(format, args...))
	}
}

// verdict fails the test if a rule was broken.
func (j *judge) verdict() {
	j.t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, b := range j.broken {
		j.t.Error(b)
	}
}

// state compares the list before a change with what others had before it: who sees
// two changes the other way round, or misses one, has another.
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

// member is one client, which may connect again and again.
type member struct {
	*judge
	name, transport string

	mu     sync.Mutex
	turn   int // connections and ends of them so far
	link   *link
	id     string           // the connection's
	stays  map[string]*stay // the channels it is in
	answer string           // to what it asked last
	more   chan struct{}    // closed when something has come
	ended  bool
	doomed bool   // its connection is going to end
	asked  string // the channel that it asks for
}

// stay is one membership.
type stay struct {
	memberID string
	list     []string // nil without presence
	begun    map[string]int
	first    map[string]int // of each publisher
	last     map[string]int
	gaps     int             // events missed that no resync has told of
	told     map[string]bool // a resync came since the publisher's last event
	resyncs  int
	syncs    int
	adds     map[string]int // by member
	quits    map[string]int
}

func newMember(j *judge, name, transport string) *member {
	return &member{judge: j, name: name, transport: transport}
}

// connect begins a new connection and waits for its hello.
func (c *member) connect(base string) error {
	c.mu.Lock()
	c.turn++
	turn := c.turn
	c.stays, c.id, c.answer, c.more = map[string]*stay{}, "", "", make(chan struct{})
	c.ended, c.doomed = false, false
	c.mu.Unlock()
	come := func(what func()) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.turn == turn { // else it is of an earlier connection
			what()
			close(c.more)
			c.more = make(chan struct{})
		}
	}
	l, err := dial(base, c.transport, func(text []byte) { come(func() { c.got(text) }) },
		func(err error) {
			come(func() {
				c.ended = true
				if !c.doomed {
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
		return fmt.Errorf("%s over %s: no hello", c.name, c.transport)
	}
	return nil
}

// leave ends the connection.
func (c *member) leave() {
	c.mu.Lock()
	c.turn++ // what ends now is meant to
	c.stays = map[string]*stay{}
	l := c.link
	c.mu.Unlock()
	l.close()
}

// await waits until true of what has come; it needs no lock.
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

// ask sends a subscribe or unsubscribe and waits for its answer, which it returns.
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

// got needs c.mu.
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
	s := c.stays[channel]
	switch m.Event {
	case "pushy:connect":
		c.id = m.Data.SocketID
		return
	case "pushy:error", "pushy:subscription-failed":
		c.answer = m.Event + " " + m.Data.Message + m.Data.Reason
		return
	case "pushy:subscription-success":
		c.welcome(channel, m, s)
		return
	case "pushy:subscription-end":
		if s == nil {
			c.broke(c, "an end without a success in %s", channel)
		}
		delete(c.stays, channel)
		c.answer = m.Event
		return
	}
	if s == nil {
		c.broke(c, "an event outside of a membership: %s", text)
		return
	}
	c.event(channel, m, s)
}

func (c *member) welcome(channel string, m message, old *stay) {
	if old != nil {
		c.broke(c, "a second success in %s", channel)
	}
	s := &stay{memberID: m.Data.MemberID, first: map[string]int{}, last: map[string]int{}, begun: map[string]int{}, told: map[string]bool{},
		adds: map[string]int{}, quits: map[string]int{}}
	c.judge.mu.Lock()
	for key, n := range c.begun {
		if in, by, _ := strings.Cut(key, " "); in == channel {
			s.begun[by] = n
		}
	}
	c.judge.mu.Unlock()
	c.stays[channel] = s
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

func (c *member) event(channel string, m message, s *stay) {
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
			s.told[by] = true
		}
	default:
		c.heard(channel, m.Data.By, m.Data.N, s)
	}
}

func (c *member) heard(channel, by string, n int, s *stay) {
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
	delete(s.told, by)
}

// missing notes events from first up to, not with, next.
func (c *member) missing(channel, by string, first, next int, s *stay) {
	if _, known := s.last[by]; s.told[by] || !known && s.resyncs > 0 {
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

// has reports whether the last event of a publisher is there.
func (c *member) has(channel, by string, n int) bool {
	return c.await(func() bool { s := c.stays[channel]; return c.ended || s == nil || s.last[by] >= n })
}

// in returns the channels that c is in, and its memberIds.
func (c *member) in() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := map[string]string{}
	for channel, s := range c.stays {
		in[channel] = s.memberID
	}
	return in
}

// list returns the members of a channel as the client knows them.
func (c *member) list(channel string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.stays[channel]; s != nil {
		return slices.Clone(s.list)
	}
	return nil
}
