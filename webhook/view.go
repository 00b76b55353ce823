package webhook

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
)

// maxRecords limits what other programs that can write to the broker make a node store.
const maxRecords = 2_000_000

// view follows the reserved log and turns it into events. Each node does that, with the same
// result, and one of them sends the events. An occupied channel or a member that is in two
// records, because it moves between nodes, is one.
type view struct {
	node    string
	delay   time.Duration
	wants   map[string]bool // the events that are emitted
	emit    func(item)
	skipped func(kind string, err error)
	changed func() // called without the lock when another node may have to send

	mu       sync.Mutex
	ready    bool
	early    []func()        // what was delivered before the first State
	from     broker.Position // the first State
	rev      broker.Position // the last entry or State
	records  map[string]*logged
	nodes    map[string]string // ids of the nodes, by the owner of their records
	channels map[string]*occupancy
	members  map[memberKey]*presence
	leaving  map[memberKey][]*presence // those that wait, by the identity of their user
	waiting  []*waiting                // sorted by due
	timer    *time.Timer
	hurry    bool // nothing waits any more
}

// logged is a record in the log.
type logged struct {
	record
	owner  string // equal for all records of a node
	since  uint64
	at     int64
	ending ending
	member *presence
}

// occupancy is a channel that is open on some node, or was until shortly.
type occupancy struct {
	nodes   int
	leaving *waiting
}

type memberKey struct{ channel, id string }

// presence is a member as the receiver knows it.
type presence struct {
	joined   event
	identity string
	ids      []string // of the member, and of those that have taken its place
	records  int
	leaving  *waiting
}

func newView(node string, delay time.Duration) *view {
	return &view{
		node:     node,
		delay:    delay,
		records:  map[string]*logged{},
		nodes:    map[string]string{},
		channels: map[string]*occupancy{},
		members:  map[memberKey]*presence{},
		leaving:  map[memberKey][]*presence{},
	}
}

// begin sets the first State, whose records the node that sends has reported before. A State
// without an epoch is that of a broker which is away.
func (v *view) begin(s broker.State) {
	v.mu.Lock()
	v.beginLocked(s)
	v.mu.Unlock()
	v.changed()
}

func (v *view) beginLocked(s broker.State) {
	if v.ready {
		return
	}
	v.ready = true
	v.from = s.Revision
	v.rev = s.Revision
	silent := v.emit
	v.emit = func(item) {}
	for _, m := range s.Members {
		v.joinLocked(m, broker.Position{
			Epoch:  s.Revision.Epoch,
			Offset: m.Since,
		}, m.Joined)
	}
	v.emit = silent
	for _, run := range v.early {
		run()
	}
	v.early = nil
}

// deliver applies an entry of the log. It does not block.
func (v *view) deliver(e broker.Entry) {
	v.mu.Lock()
	v.soonLocked(func() { v.entryLocked(e) })
	v.mu.Unlock()
	v.changed()
}

// reset applies a State after entries may have been lost.
func (v *view) reset(s broker.State) {
	v.mu.Lock()
	if !v.ready && len(v.early) == 0 {
		v.beginLocked(s)
	} else {
		v.soonLocked(func() { v.stateLocked(s) })
	}
	v.mu.Unlock()
	v.changed()
}

func (v *view) soonLocked(run func()) {
	if v.ready {
		run()
		return
	}
	v.early = append(v.early, run)
}

func (v *view) entryLocked(e broker.Entry) {
	if e.At.Epoch == v.rev.Epoch && e.At.Offset <= v.rev.Offset {
		return
	}
	v.rev = e.At
	switch e.Kind {
	case broker.Join:
		v.joinLocked(broker.Member{
			ID:    e.Member,
			Owner: e.Owner,
			Data:  e.Data,
			Since: e.At.Offset,
		}, e.At, e.Time)
	case broker.Update:
		if l := v.records[e.Member]; l != nil {
			_ = json.Unmarshal(e.State, &l.ending) // an ending that is not valid says nothing
		}
	case broker.Leave:
		v.leaveLocked(e.Member, e.At, e.Time)
	}
}

// stateLocked applies the difference between the records and a State.
func (v *view) stateLocked(s broker.State) {
	if s.Revision.Epoch == v.rev.Epoch && s.Revision.Offset < v.rev.Offset {
		return
	}
	v.rev = s.Revision
	inState := map[string]broker.Member{}
	for _, m := range s.Members {
		inState[m.ID] = m
	}
	var left []string
	for id := range v.records {
		if _, in := inState[id]; !in {
			left = append(left, id)
		}
	}
	slices.Sort(left)
	for _, m := range s.Members {
		if v.records[m.ID] == nil {
			v.joinLocked(m, broker.Position{
				Epoch:  s.Revision.Epoch,
				Offset: m.Since,
			}, m.Joined)
		} else {
			v.records[m.ID].since = m.Since
		}
	}
	for _, id := range left {
		v.leaveLocked(id, s.Revision, time.Time{})
	}
}

func parseRecord(data json.RawMessage) (r record, err error) {
	if err = json.Unmarshal(data, &r); err != nil {
		return r, err
	}
	if r.Version != recordVersion {
		return r, errors.New("it has another version")
	}
	if r.Kind == kindMember && (len(r.Member) == 0 || r.Member[0] != '{') {
		return r, errors.New("it has no member")
	}
	return r, nil
}

func (v *view) joinLocked(m broker.Member, at broker.Position, when time.Time) {
	r, err := parseRecord(m.Data)
	if err != nil {
		v.skipped("skipped an invalid record of webhooks in the broker", err)
		return
	}
	if v.records[m.ID] != nil || len(v.records) >= maxRecords {
		return
	}
	l := &logged{
		record: r,
		owner:  m.Owner,
		since:  m.Since,
		at:     millis(when),
	}
	v.records[m.ID] = l
	switch r.Kind {
	case kindNode:
		v.nodes[l.owner] = r.ID
	case kindChannel:
		v.occupyLocked(r.Channel, at, l.at)
	case kindMember:
		v.enterLocked(l, at)
	case kindConnection:
		v.emitLocked(event{
			ID:         at.String(),
			Event:      ConnectionOpened,
			Connection: r.ID,
			User:       r.User,
			At:         l.at,
			Revision:   at.Offset,
		}, at)
	}
}

func (v *view) leaveLocked(id string, at broker.Position, when time.Time) {
	l := v.records[id]
	if l == nil {
		return
	}
	delete(v.records, id)
	switch l.Kind {
	case kindNode:
		delete(v.nodes, l.owner)
	case kindChannel:
		v.vacateLocked(l.Channel, id, at, millis(when))
	case kindMember:
		v.exitLocked(l, at, millis(when))
	case kindConnection:
		v.emitLocked(event{
			ID:         endID(at, id),
			Event:      ConnectionClosed,
			Connection: l.ID,
			User:       l.User,
			At:         millis(when),
			Revision:   at.Offset,
			Reason:     l.ending.Reason,
			Code:       cmp.Or(l.ending.Code, codeLost),
		}, at)
	}
}

func (v *view) occupyLocked(channel string, at broker.Position, when int64) {
	o := v.channels[channel]
	if o == nil {
		o = &occupancy{}
		v.channels[channel] = o
		v.emitLocked(event{
			ID:       at.String(),
			Event:    ChannelOccupied,
			Channel:  channel,
			At:       when,
			Revision: at.Offset,
		}, at)
	}
	o.nodes++
	cancel(&o.leaving)
}

func (v *view) vacateLocked(channel, id string, at broker.Position, when int64) {
	o := v.channels[channel]
	o.nodes--
	if o.nodes > 0 {
		return
	}
	o.leaving = v.laterLocked(at, v.delay, func() {
		delete(v.channels, channel)
		v.emitLocked(event{
			ID:       endID(at, id),
			Event:    ChannelVacated,
			Channel:  channel,
			At:       when,
			Revision: at.Offset,
		}, at)
	})
}

// endID returns the id of the event for a record that has left the log. It depends on the
// record, because those that are missing in a State all have the position of the State.
func endID(at broker.Position, record string) string {
	sum := sha256.Sum256([]byte(record))
	return at.String() + "-" + hex.EncodeToString(sum[:4])
}

func (v *view) enterLocked(l *logged, at broker.Position) {
	key := memberKey{l.Channel, l.ID}
	p := v.members[key]
	if p == nil && l.Identity != "" {
		if back := v.leaving[memberKey{l.Channel, l.Identity}]; len(back) > 0 {
			p = back[0]
			p.ids = append(p.ids, l.ID)
			v.members[key] = p
		}
	}
	if p == nil {
		p = &presence{
			identity: l.Identity,
			ids:      []string{l.ID},
			joined: event{
				ID:       at.String(),
				Event:    MemberJoined,
				Channel:  l.Channel,
				Member:   l.Member,
				MemberID: l.ID,
				User:     l.User,
				At:       l.at,
				Revision: at.Offset,
			},
		}
		v.members[key] = p
		v.emitLocked(p.joined, at)
	}
	l.member = p
	p.records++
	if p.leaving != nil {
		v.stayLocked(p)
	}
}

// stayLocked cancels the leave of a member that is back.
func (v *view) stayLocked(p *presence) {
	cancel(&p.leaving)
	v.notLeavingLocked(p)
}

func (v *view) notLeavingLocked(p *presence) {
	if p.identity == "" {
		return
	}
	key := memberKey{p.joined.Channel, p.identity}
	rest := slices.DeleteFunc(v.leaving[key], func(other *presence) bool { return other == p })
	if len(rest) == 0 {
		delete(v.leaving, key)
	} else {
		v.leaving[key] = rest
	}
}

func (v *view) exitLocked(l *logged, at broker.Position, when int64) {
	p := l.member
	p.records--
	if p.records > 0 {
		return
	}
	if p.identity != "" {
		key := memberKey{l.Channel, p.identity}
		v.leaving[key] = append(v.leaving[key], p)
	}
	p.leaving = v.laterLocked(at, v.delay, func() {
		v.notLeavingLocked(p)
		for _, id := range p.ids {
			delete(v.members, memberKey{l.Channel, id})
		}
		e := p.joined
		e.ID += "-left"
		e.Event = MemberLeft
		e.At = when
		e.Revision = at.Offset
		e.Reason = l.ending.Reason
		if e.Reason == "" {
			e.Reason = reasonClosed
			if _, alive := v.nodes[l.owner]; !alive {
				e.Reason = reasonLost
			}
		}
		v.emitLocked(e, at)
	})
}

func (v *view) emitLocked(e event, rev broker.Position) {
	if !v.wants[e.Event] {
		return
	}
	data, err := json.Marshal(e)
	if err != nil {
		v.skipped("cannot encode a webhook", err)
		return
	}
	v.emit(item{
		json:  data,
		count: 1,
		rev:   rev,
	})
}

// sender returns the node that sends: the one that has been in the log for the longest time, so
// that a new node changes nothing. others reports whether there is another node.
func (v *view) sender() (first string, others bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var since uint64
	for _, l := range v.records {
		if l.Kind != kindNode {
			continue
		}
		others = others || l.ID != v.node
		if first == "" || l.since < since || l.since == since && l.ID < first {
			first = l.ID
			since = l.since
		}
	}
	return first, others
}

// settled returns the position up to which all events were emitted or canceled.
func (v *view) settled() broker.Position {
	v.mu.Lock()
	defer v.mu.Unlock()
	rev := v.rev
	for _, w := range v.waiting {
		if !w.canceled && w.rev.Epoch == rev.Epoch {
			rev.Offset = min(rev.Offset, w.rev.Offset-1)
		}
	}
	return rev
}

// begun returns the position of the first State.
func (v *view) begun() broker.Position {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.from
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		t = time.Now()
	}
	return t.UnixMilli()
}
