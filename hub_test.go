package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/lifecycle"
)

// A hub is Broker and PresenceStore of several Servers in one process, as slow
// and unreliable as the contracts allow: calls take their time and fail as it
// is told, every node gets each channel's messages in order, but channels, and
// messages and presence, out of step. It is for synctest bubbles.
//
// It sleeps, so it is for testing/synctest alone. (Go 1.26's race detector does
// not survive a receive from time.After(0) in a bubble.)
type hub struct {
	mu   sync.Mutex
	r    *rand.Rand
	most time.Duration // that a call or a delivery takes
	// fail says whether a call fails, and whether it has done its work first.
	fail func(call string) (err error, done bool)
	// restates: now and then a watch gets the State in place of an entry.
	restates bool
	calls    map[string]int
	nodes    []*hubNode
	logs     map[string]*hubLog // by channel
	all      func(channel string, data json.RawMessage)
	left     map[string]int // deliveries of one message still to come

	broken []string // promises that a Server has not kept
}

type hubLog struct {
	revision uint64
	on       bool
	members  []pushy.Member
	watches  map[*hubWatch]bool
}

// hubNode is one Server's end of a hub.
type hubNode struct {
	*hub
	deliver    func(string, pushy.Message)
	subscribed map[string]bool
	times      map[string]int  // that it has subscribed
	changing   map[string]bool // Subscribe or Unsubscribe under way
	queues     map[string]*hubQueue
	watching   map[string]int
	closed     bool
	storeGone  bool

	hearsNothing bool
	away         error
	running      lifecycle.Tasks
}

// hubQueue runs jobs one after the other, with pauses.
type hubQueue struct {
	jobs    []func()
	running bool
}

type hubWatch struct {
	node  *hubNode
	ctx   context.Context
	queue hubQueue
	apply func(pushy.Change)
}

var errHub = errors.New("the hub says no")

func newHub(seed uint64, most time.Duration) *hub {
	return &hub{r: rand.New(rand.NewPCG(seed, 77)), most: most, calls: map[string]int{},
		logs: map[string]*hubLog{}, left: map[string]int{}}
}

// node returns the end of one more Server.
func (h *hub) node() *hubNode {
	n := &hubNode{hub: h, subscribed: map[string]bool{}, times: map[string]int{}, changing: map[string]bool{},
		queues: map[string]*hubQueue{}, watching: map[string]int{}}
	h.nodes = append(h.nodes, n)
	return n
}

func (h *hub) brokeLocked(what string) { h.broken = append(h.broken, what) }

func (h *hub) pauseLocked() time.Duration {
	if h.most == 0 {
		return 0
	}
	return time.Duration(h.r.Int64N(int64(h.most)))
}

// begin is what every call does first.
func (n *hubNode) begin(ctx context.Context, call string) (err error, done bool) {
	n.mu.Lock()
	n.calls[call]++
	if n.closed && call != "Leave" {
		n.brokeLocked(call + " after Close")
	}
	if _, bounded := ctx.Deadline(); !bounded && call != "Watch" {
		n.brokeLocked(call + " without a deadline")
	}
	pause := n.pauseLocked()
	if n.fail != nil {
		err, done = n.fail(call)
	}
	n.mu.Unlock()
	select {
	case <-time.After(max(pause, 1)):
		return err, done
	case <-ctx.Done():
		return ctx.Err(), false
	}
}

// later runs job after those before it in q.
func (n *hubNode) laterLocked(q *hubQueue, job func()) {
	q.jobs = append(q.jobs, job)
	if q.running || !n.running.Start() {
		return
	}
	q.running = true
	go func() {
		defer n.running.End()
		n.mu.Lock()
		for len(q.jobs) > 0 {
			pause := n.pauseLocked()
			n.mu.Unlock()
			time.Sleep(pause)
			n.mu.Lock()
			job := q.jobs[0]
			q.jobs = q.jobs[1:]
			n.mu.Unlock()
			job()
			n.mu.Lock()
		}
		q.running = false
		n.mu.Unlock()
	}()
}

func (n *hubNode) Open(_ context.Context, deliver func(string, pushy.Message)) error {
	n.deliver = deliver
	return nil
}

func (n *hubNode) Publish(ctx context.Context, channel string, m pushy.Message) (pushy.Receivers, error) {
	err, done := n.begin(ctx, "Publish")
	if err != nil && !done {
		return pushy.None, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	receivers := pushy.None
	for _, to := range n.nodes {
		if !to.subscribed[channel] || to.closed {
			continue
		}
		if to != n {
			receivers = pushy.Some
		}
		q := to.queues[channel]
		if q == nil {
			q = &hubQueue{}
			to.queues[channel] = q
		}
		key, times := channel+string(m.Data), to.times[channel]
		n.left[key]++
		to.laterLocked(q, func() {
			to.mu.Lock()
			deliver := to.subscribed[channel] && to.times[channel] == times && !to.closed
			to.mu.Unlock()
			if deliver {
				to.deliver(channel, m)
			}
			to.mu.Lock()
			n.left[key]--
			last := n.left[key] == 0
			to.mu.Unlock()
			if last && n.all != nil {
				n.all(channel, m.Data)
			}
		})
	}
	return receivers, err
}

// change is Subscribe or Unsubscribe, which take turns for a channel.
func (n *hubNode) change(ctx context.Context, call, channel string, on bool) error {
	n.mu.Lock()
	if n.changing[channel] {
		n.brokeLocked(call + " while another runs: " + channel)
	}
	if on && n.subscribed[channel] {
		n.brokeLocked("Subscribe twice: " + channel)
	}
	n.changing[channel] = true
	n.mu.Unlock()
	err, done := n.begin(ctx, call)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changing[channel] = false
	if err == nil || done && !on {
		n.subscribed[channel] = on
		n.times[channel]++
	}
	return err
}

func (n *hubNode) Subscribe(ctx context.Context, channel string) error {
	return n.change(ctx, "Subscribe", channel, true)
}

func (n *hubNode) Unsubscribe(ctx context.Context, channel string) error {
	err := n.change(ctx, "Unsubscribe", channel, false)
	n.mu.Lock()
	n.subscribed[channel] = false // a broker sees to it later
	n.mu.Unlock()
	return err
}

// hubStore is the same node as a PresenceStore.
type hubStore struct{ *hubNode }

func (h *hub) logLocked(channel string) *hubLog {
	l := h.logs[channel]
	if l == nil {
		l = &hubLog{watches: map[*hubWatch]bool{}}
		h.logs[channel] = l
	}
	return l
}

func (h *hub) tellLocked(l *hubLog, c pushy.Change) {
	l.revision += 1 + h.r.Uint64N(3)
	c.Revision = l.revision
	for w := range l.watches {
		if w.node.hearsNothing {
			continue
		}
		c := c
		if h.restates && h.r.IntN(6) == 0 {
			c = pushy.Change{State: &pushy.Snapshot{Revision: l.revision, On: l.on, Members: slices.Clone(l.members)}}
		}
		w.node.laterLocked(&w.queue, func() {
			if w.ctx.Err() == nil {
				w.apply(c)
			}
		})
	}
}

func (s hubStore) Join(ctx context.Context, channel string, m pushy.Member) error {
	err, done := s.begin(ctx, "Join")
	if err != nil && !done {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.logLocked(channel)
	l.members = append(l.members, m)
	l.on = l.on || m.HasData
	s.tellLocked(l, pushy.Change{Member: m})
	return err
}

func (s hubStore) Leave(ctx context.Context, channel, memberID string) error {
	err, done := s.begin(ctx, "Leave")
	if err != nil && !done {
		// It must see to it later.
		tracked := s.running.Start() // a Server that is cut closes the store meanwhile
		go func() {
			time.Sleep(time.Second)
			s.leave(channel, memberID)
			if tracked {
				s.running.End()
			}
		}()
		return err
	}
	s.leave(channel, memberID)
	return err
}

func (s hubStore) leave(channel, memberID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.logLocked(channel)
	i := slices.IndexFunc(l.members, func(m pushy.Member) bool { return m.ID == memberID })
	if i < 0 {
		return
	}
	l.members = slices.Delete(slices.Clone(l.members), i, i+1)
	l.on = l.on && len(l.members) > 0
	s.tellLocked(l, pushy.Change{Left: true, Member: pushy.Member{ID: memberID}})
}

func (s hubStore) Watch(ctx context.Context, channel string, apply func(pushy.Change)) (pushy.Snapshot, error) {
	if err, _ := s.begin(ctx, "Watch"); err != nil {
		return pushy.Snapshot{}, err
	}
	s.mu.Lock()
	l := s.logLocked(channel)
	w := &hubWatch{node: s.hubNode, ctx: ctx, apply: apply}
	l.watches[w] = true
	if s.watching[channel]++; s.watching[channel] > 1 {
		s.brokeLocked("a second Watch of " + channel)
	}
	snap := pushy.Snapshot{Revision: l.revision, On: l.on, Members: slices.Clone(l.members)}
	pause := s.pauseLocked()
	s.mu.Unlock()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(l.watches, w)
		s.watching[channel]--
	})
	time.Sleep(pause) // apply may be called before Watch returns
	return snap, nil
}

// lose has the log of a channel be another one, and tells nobody: its watches get
// no entries that they could follow.
func (h *hub) lose(channel string, revision uint64, on bool, members ...pushy.Member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.logLocked(channel)
	l.revision, l.on, l.members = revision, on, members
}

// restate gives a node's watch of a channel the State.
func (s hubStore) restate(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.logLocked(channel)
	for w := range l.watches {
		if w.node == s.hubNode {
			snap := pushy.Snapshot{Revision: l.revision, On: l.on, Members: slices.Clone(l.members)}
			s.laterLocked(&w.queue, func() { w.apply(pushy.Change{State: &snap}) })
		}
	}
}

// deaf has a node's watches hear no more entries, or hear them again.
func (n *hubNode) deaf(on bool) {
	n.mu.Lock()
	n.hearsNothing = on
	n.mu.Unlock()
}

// Away tells the Server why it is alone.
func (n *hubNode) Away() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.away
}

// Close ends the store; no call may come after it.
func (s hubStore) Close() error {
	s.mu.Lock()
	s.storeGone = true
	s.mu.Unlock()
	return nil
}

// Close ends the broker: nothing is delivered any more.
func (n *hubNode) Close() error {
	n.mu.Lock()
	if n.closed {
		n.brokeLocked("Close twice")
	}
	n.closed = true
	n.mu.Unlock()
	<-n.running.Close()
	return nil
}

// members returns the ids in a channel's log.
func (h *hub) members(channel string) (ids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.logLocked(channel).members {
		ids = append(ids, m.ID)
	}
	return ids
}

func (h *hub) count(call string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls[call]
}

func (h *hub) complaints() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.broken)
}

var (
	_ pushy.Broker        = (*hubNode)(nil)
	_ pushy.PresenceStore = hubStore{}
)
