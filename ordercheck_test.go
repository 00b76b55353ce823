package pushy_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// An orderLog is what happened on one Server, or on some that act as one, as the
// clients and publishers saw it. check proves PROTOCOL.md's order rules on it.
type orderLog struct {
	clock atomic.Int64

	mu     sync.Mutex
	tapes  []*tape
	shouts []*shout
	// cluster drops the two rules that only one node keeps: that a Publish has
	// reached the queues when it returns, and that a member's events come
	// while it is in everybody's list.
	cluster bool
	// restated: a sync, with a resync, may come at any time, and a node may not show a
	// member of its own that is leaving while the others still do.
	restated bool
	// isolated: nodes are cut off now and then. Meanwhile they do not agree, and events
	// do not reach them, of which they notify their clients.
	isolated bool
}

// A tape is what one client saw and did, in its own order.
type tape struct {
	conn string
	mu   sync.Mutex
	log  []entry
}

// entry is a frame the client got or, with left set, the moment before somebody
// began to end its membership of a channel; left "*" is all of them, "!" too,
// by cutting the connection, so that what was on its way is lost, and "."
// says that all that was asked for before has been answered.
type entry struct {
	at    int64
	frame frame
	left  string
}

// A shout is one publish, whose data is {"by":…,"n":…}, with the memberId
// "of" whom the publisher is, if it is a member.
type shout struct {
	channel    string
	by         string
	n          int
	began      int64
	done       int64 // 0 while it is under way
	accepted   bool
	except     string // a connection's id
	everywhere int64  // cluster: when all nodes had it
}

func (p *orderLog) now() int64 { return p.clock.Add(1) }

func (p *orderLog) tape(conn string) *tape {
	t := &tape{conn: conn}
	p.mu.Lock()
	p.tapes = append(p.tapes, t)
	p.mu.Unlock()
	return t
}

func (t *tape) got(at int64, f frame) {
	t.mu.Lock()
	t.log = append(t.log, entry{at: at, frame: f})
	t.mu.Unlock()
}

func (t *tape) leaves(at int64, channel string) {
	t.mu.Lock()
	t.log = append(t.log, entry{at: at, left: channel})
	t.mu.Unlock()
}

func (p *orderLog) shout(channel, by string, n int, except string) *shout {
	s := &shout{channel: channel, by: by, n: n, except: except, began: p.now()}
	p.mu.Lock()
	p.shouts = append(p.shouts, s)
	p.mu.Unlock()
	return s
}

func (p *orderLog) answered(s *shout, accepted bool) {
	p.mu.Lock()
	s.accepted, s.done = accepted, p.now()
	p.mu.Unlock()
}

type shoutKey struct {
	channel, by string
	n           int
}

// stay is one membership as its client saw it.
type stay struct {
	conn, channel string
	success       int64
	leaving       int64 // 0: to the end of the play
	heard         []shoutKey

	// early: somebody asked to end it before the client had seen its success,
	// so when it left is not known.
	early  bool
	listed bool     // it was given a list
	list   []string // of member ids
	synced bool     // the last presence event was a sync
	member string
	over   bool // it has seen its end
	gone   bool // it left with its connection
}

type checker struct {
	play   *orderLog
	broken []string
	stays  []*stay
	before map[string]string // member list before an add or quit, as first seen
	own    map[string]string // memberId → conn
	shouts map[shoutKey]*shout
}

// check returns which rules were broken, none if all were kept. final says that
// the play came to rest before the clients that are still in were ended: then
// their lists must be those of the members that are in.
func (p *orderLog) check(final bool) []string {
	c := &checker{play: p, before: map[string]string{}, own: map[string]string{}, shouts: map[shoutKey]*shout{}}
	for _, s := range p.shouts {
		c.shouts[shoutKey{s.channel, s.by, s.n}] = s
	}
	for _, t := range p.tapes {
		c.replay(t)
	}
	for _, s := range c.stays {
		c.hearing(s)
	}
	if final {
		c.rest()
	}
	return c.broken
}

func (c *checker) broke(s *stay, rule string, args ...any) {
	if len(c.broken) == 20 {
		return // one mistake breaks many rules
	}
	where := ""
	if s != nil {
		where = fmt.Sprintf(" [%s in %s as %s]", s.conn, s.channel, s.member)
	}
	c.broken = append(c.broken, fmt.Sprintf(rule, args...)+where)
}

// replay reads one client's tape.
func (c *checker) replay(t *tape) {
	in := map[string]*stay{}
	mine := map[string]bool{}
	early, gone := map[string]bool{}, false
	for _, e := range t.log {
		switch {
		case e.left == ".":
			clear(early)
			continue
		case e.left == "*", e.left == "!":
			gone = true
			for _, s := range in {
				s.gone = true
				s.early = s.early || e.left == "!"
				if s.leaving == 0 {
					s.leaving = e.at
				}
			}
			continue
		case e.left != "":
			if s := in[e.left]; s != nil && s.leaving == 0 {
				s.leaving = e.at
			} else {
				early[e.left] = true
			}
			continue
		}
		f := e.frame
		switch {
		case f.Event == "pushy:subscription-success":
			s := &stay{conn: t.conn, channel: f.field("channel"), member: f.field("memberId"), success: e.at}
			s.early, s.gone = early[s.channel] || gone, gone
			if in[s.channel] != nil {
				c.broke(s, "a second success without an end")
			}
			if _, known := c.own[s.member]; known {
				c.broke(s, "a memberId was given twice")
			}
			in[s.channel], mine[s.member], c.own[s.member] = s, true, t.conn
			c.stays = append(c.stays, s)
			c.welcome(s, f)
		case f.Event == "pushy:subscription-end":
			s := in[f.field("channel")]
			if s == nil {
				c.broke(nil, "an end without a success: %s", f)
				continue
			}
			if s.leaving == 0 && !s.early {
				c.broke(s, "an end that nobody asked for")
			}
			s.over = true
			delete(in, s.channel)
		case f.Channel != "":
			s := in[f.Channel]
			if s == nil {
				c.broke(&stay{conn: t.conn, channel: f.Channel}, "an event outside of a membership: %s", f)
				continue
			}
			c.event(s, f, mine)
		}
	}
}

func (c *checker) welcome(s *stay, f frame) {
	ids, has := memberIDs(f.Data, "presence")
	if !has {
		return
	}
	s.listed, s.list = true, ids
	if c.play.restated && slices.Contains(ids, s.member) {
		return // a list of all members may have brought its join through
	}
	if n := len(ids); n == 0 || ids[n-1] != s.member {
		c.broke(s, "the newcomer is not last in its own list %v", ids)
		return
	}
	c.state(s, "+"+s.member, ids[:len(ids)-1])
}

// event takes a channel event that came within a membership.
func (c *checker) event(s *stay, f frame, mine map[string]bool) {
	var data struct {
		Member struct {
			MemberID string `json:"memberId"`
		} `json:"member"`
		By string `json:"by"`
		Of string `json:"of"`
		N  int    `json:"n"`
	}
	_ = json.Unmarshal(f.Data, &data)
	id := data.Member.MemberID
	synced := s.synced
	s.synced = false
	switch f.Event {
	case "pushy:presence-sync":
		ids, _ := memberIDs(f.Data, "presence")
		if s.listed && !c.play.restated {
			c.broke(s, "a sync for a client that has a list")
		}
		if !slices.Contains(ids, s.member) {
			c.broke(s, "a sync without the client itself: %v", ids)
		}
		s.listed, s.list, s.synced = true, ids, !c.play.restated
	case "pushy:presence-add":
		if mine[id] {
			c.broke(s, "its own add")
		}
		if !s.listed {
			c.broke(s, "an add before presence was on: %s", id)
			return
		}
		c.state(s, "+"+id, s.list)
		if slices.Contains(s.list, id) {
			c.broke(s, "an add of a member that is in the list: %s", id)
			return
		}
		s.list = append(slices.Clone(s.list), id)
	case "pushy:presence-quit":
		// A leave that could not be logged at once may be logged after the same client
		// is back: it is in its own list twice until then.
		stale := c.play.cluster && id != s.member && slices.Contains(s.list, id)
		if mine[id] && !stale {
			c.broke(s, "its own quit")
		}
		if synced {
			c.broke(s, "a sync was not followed by an add")
		}
		c.state(s, "-"+id, s.list)
		i := slices.Index(s.list, id)
		if i < 0 {
			c.broke(s, "a quit of a member that is not in the list: %s", id)
			return
		}
		s.list = slices.Delete(slices.Clone(s.list), i, i+1)
	case "pushy:resync":
		if !c.play.restated {
			c.broke(s, "a resync without a reason")
		}
	default:
		if synced {
			c.broke(s, "a sync was not followed by an add")
		}
		s.heard = append(s.heard, shoutKey{s.channel, data.By, data.N})
		if data.Of != "" && s.listed && !c.play.cluster && !slices.Contains(s.list, data.Of) {
			c.broke(s, "an event of a member that is not in the list: %s", data.Of)
		}
	}
}

// state compares the list before a change with what others had before it. Every
// change alters the list, so whoever sees two changes the other way round, or
// misses one, has another list.
func (c *checker) state(s *stay, change string, list []string) {
	if c.play.restated {
		return
	}
	now := strings.Join(list, " ")
	key := s.channel + " " + change
	if seen, known := c.before[key]; !known {
		c.before[key] = now
	} else if seen != now {
		c.broke(s, "members disagree before %s: %q and %q", change, seen, now)
	}
}

// hearing proves the rules of published events on one membership.
func (c *checker) hearing(s *stay) {
	heard := map[shoutKey]bool{}
	last := map[string]int{} // by publisher
	for _, k := range s.heard {
		switch said := c.shouts[k]; {
		case said == nil:
			c.broke(s, "an event that nobody published: %v", k)
			continue
		case said.except == s.conn:
			c.broke(s, "an event that it was left out of: %v", k)
		case said.done != 0 && !said.accepted && !c.play.cluster:
			c.broke(s, "an event that was refused: %v", k)
		}
		if heard[k] {
			c.broke(s, "an event twice: %v", k)
			continue
		}
		heard[k] = true
		if k.n < last[k.by] {
			c.broke(s, "events of %s out of order: %d after %d", k.by, k.n, last[k.by])
		}
		last[k.by] = max(last[k.by], k.n)
	}
	if c.play.isolated {
		return
	}
	first := map[string]int{}
	for k := range heard {
		if n, known := first[k.by]; !known || k.n < n {
			first[k.by] = k.n
		}
	}
	for k, said := range c.shouts {
		if k.channel != s.channel || !said.accepted || heard[k] || said.except == s.conn {
			continue
		}
		arrived := said.done
		if c.play.cluster {
			arrived = said.everywhere
		}
		whole := !s.early && said.began > s.success && arrived != 0 && (s.leaving == 0 || arrived < s.leaving)
		between := first[k.by] != 0 && first[k.by] < k.n && k.n < last[k.by]
		if whole || between {
			c.broke(s, "missed event %v", k)
		}
	}
}

// rest compares the lists of those that are still in with the truth.
func (c *checker) rest() {
	truth := map[string][]string{}
	for _, s := range c.stays {
		if s.leaving != 0 && !s.over && !s.gone {
			c.broke(s, "no end for one that left")
		}
		if s.leaving == 0 && !s.over && !s.gone {
			truth[s.channel] = append(truth[s.channel], s.member)
		}
	}
	for _, s := range c.stays {
		if s.leaving != 0 || s.over || s.gone || !s.listed {
			continue
		}
		want, got := slices.Sorted(slices.Values(truth[s.channel])), slices.Sorted(slices.Values(s.list))
		if !slices.Equal(want, got) {
			c.broke(s, "at rest the list is %v and the members are %v", got, want)
		}
	}
}

func memberIDs(data json.RawMessage, field string) (ids []string, has bool) {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(data, &fields)
	list, has := fields[field]
	var members []struct {
		MemberID string `json:"memberId"`
	}
	_ = json.Unmarshal(list, &members)
	for _, m := range members {
		ids = append(ids, m.MemberID)
	}
	return ids, has
}
