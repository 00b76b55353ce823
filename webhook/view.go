package webhook

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
)

// maxRecords limits what other programs that can write to the broker make a node store.
const maxRecords = 2_000_000

// maxEpochs is the number of epochs that a view remembers.
const maxEpochs = 16

// view follows the reserved log and turns it into events. Each node does that, with the same
// result, and one of them sends the events. An occupied channel or a member that is in two
// records, because it moves between nodes, is one.
type view struct {
	node    string
	delay   time.Duration
	form    form
	wants   map[string]bool // the events that are emitted
	emit    func(item)
	skipped func(kind string, err error)
	changed func() // called without the lock when another node may have to send

	mu       sync.Mutex
	ready    bool
	early    []func()        // what was delivered before the first State
	from     broker.Position // the first State
	epochs   []string        // those that have followed the epoch of from
	rev      broker.Position // the last entry or State
	records  map[string]*logged
	nodes    map[string]*logged // the records of nodes, by their owner
	channels map[string]*occupancy
	members  map[memberKey]*presence
	leaving  map[memberKey][]*presence // those that wait, by the identity of their user
	missing  map[string]*waiting       // records that the store has lost, and that may be written again
	waiting  [waits]waitList
	timer    *time.Timer
	hurry    bool // nothing waits any more
	emptied  bool // what leaves the log does so because the store has lost it
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

func newView(node string, delay time.Duration) *view {
	return &view{
		node:     node,
		delay:    delay,
		form:     &standard{},
		records:  map[string]*logged{},
		nodes:    map[string]*logged{},
		channels: map[string]*occupancy{},
		members:  map[memberKey]*presence{},
		leaving:  map[memberKey][]*presence{},
		missing:  map[string]*waiting{},
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
	if s.Revision.Epoch != v.rev.Epoch {
		v.emptied = true // the store has lost the log, and the nodes write it again
		defer func() { v.emptied = false }()
		v.epochs = append(v.epochs, s.Revision.Epoch)
		if len(v.epochs) > maxEpochs {
			v.epochs = slices.Delete(v.epochs, 0, 1)
		}
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
	if v.records[m.ID] != nil {
		return
	}
	if len(v.records) >= maxRecords {
		v.skipped("records of webhooks in the broker are skipped", fmt.Errorf("there are more than %d", maxRecords))
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
		v.nodes[l.owner] = l
	case kindChannel:
		v.occupyLocked(r.Channel, at, l.at)
	case kindMember:
		v.enterLocked(l, at)
	case kindEvents:
		v.happenedLocked(m.ID, l, at)
	case kindConnection:
		if v.restoredLocked(m.ID) {
			return
		}
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
		closed := millis(when)
		v.missingLocked(id, at, func() {
			v.emitLocked(event{
				ID:         endID(at, id),
				Event:      ConnectionClosed,
				Connection: l.ID,
				User:       l.User,
				At:         closed,
				Revision:   at.Offset,
				Reason:     l.ending.Reason,
				Code:       cmp.Or(l.ending.Code, codeLost),
			}, at)
		})
	}
}

// happenedLocked emits the events of a record.
func (v *view) happenedLocked(id string, l *logged, at broker.Position) {
	for _, e := range l.Events {
		if e.Event == ClientEvent || e.Event == ChannelMiss {
			e.Revision = at.Offset
			v.emitLocked(e, at)
		}
	}
	v.lostLocked(id+"-lost", l.Lost, reasonOverflow, l.at, at)
	v.lostLocked(id+"-large", l.TooLarge, reasonLarge, l.at, at)
	l.Events = nil
}

// missingLocked calls fire when a record has left the log and is not written again.
func (v *view) missingLocked(id string, at broker.Position, fire func()) {
	if !v.emptied {
		fire()
		return
	}
	w := v.laterLocked(at, func() {
		delete(v.missing, id)
		fire()
	})
	if w != nil {
		v.missing[id] = w
	}
}

// restoredLocked reports whether a record is back after the store has lost the log.
func (v *view) restoredLocked(id string) bool {
	w := v.missing[id]
	if w == nil {
		return false
	}
	delete(v.missing, id)
	cancel(&w)
	return true
}

func (v *view) lostLocked(id string, count int, reason string, when int64, at broker.Position) {
	if count <= 0 {
		return
	}
	v.emitLocked(event{
		ID:     id,
		Event:  EventsLost,
		At:     when,
		Reason: reason,
		Count:  count,
	}, at)
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
	o.leaving = v.laterLocked(at, func() {
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

func (v *view) emitLocked(e event, rev broker.Position) {
	if !v.wants[e.Event] {
		return
	}
	data, err := v.form.encode(e)
	it := item{
		json:  data,
		count: max(e.Count, 1),
		rev:   rev,
	}
	if e.Event == EventsLost {
		it.lost = e.Reason
	}
	switch {
	case err != nil:
		v.skipped("cannot encode a webhook", err)
	case data == nil && it.lost == "": // from a node whose Options are others
	case len(data) > maxEvent:
		v.skipped("a webhook is too large, and is lost", fmt.Errorf("%s has %d bytes", e.Event, len(data)))
		v.lostLocked(e.ID+"-large", 1, reasonLarge, e.At, rev)
	default:
		v.emit(it)
	}
}

// sender returns the node that sends: the one that has been in the log for the longest time, so
// that a new node changes nothing. others reports whether there is another node.
func (v *view) sender() (first string, others bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var since uint64
	for _, l := range v.nodes {
		others = others || l.ID != v.node
		if first == "" || l.since < since || l.since == since && l.ID < first {
			first = l.ID
			since = l.since
		}
	}
	return first, others
}

// settled returns the position up to which all events were emitted or canceled. There is none
// while an event of an earlier epoch waits.
func (v *view) settled() (at broker.Position, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	at = v.rev
	for i := range v.waiting {
		w := v.waiting[i].first()
		switch {
		case w == nil:
		case w.rev.Epoch != at.Epoch || w.rev.Offset == 0:
			return at, false
		default:
			at.Offset = min(at.Offset, w.rev.Offset-1)
		}
	}
	return at, at.Epoch != ""
}

// covers reports whether the view has everything after a position.
func (v *view) covers(at broker.Position) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if at.Epoch == v.from.Epoch {
		return at.Offset >= v.from.Offset
	}
	return slices.Contains(v.epochs, at.Epoch)
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		t = time.Now()
	}
	return t.UnixMilli()
}
