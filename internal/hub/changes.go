package hub

import (
	"slices"
	"sort"

	"github.com/gopushy/pushy/broker"
)

type changeKind uint8

const (
	unchanged changeKind = iota
	memberAdded
	memberUpdated
	memberRemoved
)

// change is a change of what clients see of a channel's members. The zero value is none.
type change struct {
	kind   changeKind
	member *Member
	fields fields // of memberUpdated
}

func (c change) isNone() bool {
	return c.kind == unchanged || c.kind == memberUpdated && c.fields == 0
}

// Update is a member that has changed, and what has changed.
type Update struct {
	Member *Member
	Idle   bool
	Tabs   bool
	State  bool
	Whole  bool // more than these
}

func newUpdate(m *Member, f fields) Update {
	return Update{
		Member: m,
		Idle:   f&fieldIdle != 0,
		Tabs:   f&fieldTabs != 0,
		State:  f&fieldState != 0,
		Whole:  f&fieldData != 0,
	}
}

// Changes are the changes between two revisions. A client applies them in any order, and
// those that it has applied before have no effect.
type Changes struct {
	Add    []*Member
	Quit   []string
	Update []Update
}

func (c *Changes) len() int { return len(c.Add) + len(c.Quit) + len(c.Update) }

// batch collects changes that are sent in one message. The zero value is empty.
type batch struct {
	entries []*batchEntry // in order; some are dropped
	byID    map[string]*batchEntry
	counted bool // members were added or removed
	before  int  // the number of entries in the parts before this one
}

type batchEntry struct {
	change
	known   bool // clients can have the member from a list, or from before the batch
	dropped bool
}

// add adds a change. listed is the revision of the newest list or page that a client has
// received: a member that joins and leaves within the batch is left out only if it is
// in no list, because a client that has it in a list must receive that it has left.
func (b *batch) add(c change, listed uint64) {
	b.counted = b.counted || c.kind != memberUpdated
	id := c.member.ID
	old := b.byID[id]
	if old != nil && c.kind == memberUpdated {
		old.member = c.member  // another one if a State has replaced the members
		old.fields |= c.fields // of an added member, all is sent
		return
	}
	known := c.kind != memberAdded
	if old != nil {
		old.dropped = true
		known = old.known || old.change.member.since <= listed
		if c.kind == memberRemoved && !known {
			delete(b.byID, id)
			return
		}
	}
	if b.byID == nil {
		b.byID = map[string]*batchEntry{}
	}
	e := &batchEntry{
		change: c,
		known:  known,
	}
	b.byID[id] = e
	b.entries = append(b.entries, e)
}

func (b *batch) changes() *Changes {
	all := &Changes{}
	for _, e := range b.entries {
		switch {
		case e.dropped:
		case e.kind == memberAdded:
			all.Add = append(all.Add, e.member)
		case e.kind == memberRemoved:
			all.Quit = append(all.Quit, e.member.ID)
		default:
			all.Update = append(all.Update, newUpdate(e.member, e.fields))
		}
	}
	return all
}

const (
	// maxLogged limits the changes that a channel remembers.
	maxLogged = 8192
	// maxReturn limits the changes that a client that returns receives. If there are more,
	// a list in pages costs less.
	maxReturn = 1000
)

// changeLog remembers changes, so that a client that returns receives only these. The zero
// value remembers nothing.
type changeLog struct {
	on      bool
	epoch   string
	floor   uint64 // all changes after this revision are in entries
	entries []loggedChange
}

type loggedChange struct {
	at     uint64
	id     string
	kind   changeKind
	fields fields
}

// start begins to remember what follows the revision at.
func (l *changeLog) start(at broker.Position) {
	if l.on && l.epoch == at.Epoch {
		return
	}
	*l = changeLog{
		on:    true,
		epoch: at.Epoch,
		floor: at.Offset,
	}
}

// add remembers a change that the entry with the revision at has made. If inLog is false,
// no entry has made it: then the same revision stands for different members, and clients that
// have this revision need a list.
func (l *changeLog) add(c change, at broker.Position, inLog bool) {
	switch {
	case !l.on:
		return
	case at.Epoch != l.epoch:
		l.start(at)
		return
	case !inLog:
		l.entries = nil
		l.floor = at.Offset + 1
		return
	case at.Offset <= l.floor:
		return // an answer for floor contains it
	}
	l.entries = append(l.entries, loggedChange{
		at:     at.Offset,
		id:     c.member.ID,
		kind:   c.kind,
		fields: c.fields,
	})
	if len(l.entries) > maxLogged {
		half := len(l.entries) / 2
		l.floor = l.entries[half-1].at
		l.entries = slices.Clone(l.entries[half:])
	}
}

// restart forgets the changes up to the revision at: the entry with this revision has had
// its effect on this node before.
func (l *changeLog) restart(at broker.Position) {
	l.entries = nil
	l.floor = max(l.floor, at.Offset)
}

// since returns the changes of the members after a revision. It returns nil if they are
// not known, or too many.
func (l *changeLog) since(at broker.Position, members *roster) *Changes {
	if !l.on || at.Epoch != l.epoch || at.Offset < l.floor {
		return nil
	}
	from := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].at > at.Offset })
	type net struct {
		added  bool // the client does not have the member
		again  bool // it has left and joined
		fields fields
	}
	var ids []string
	nets := map[string]*net{}
	for _, e := range l.entries[from:] {
		n := nets[e.id]
		if n == nil {
			n = &net{added: e.kind == memberAdded}
			nets[e.id] = n
			ids = append(ids, e.id)
		}
		n.again = n.again || e.kind == memberAdded
		n.fields |= e.fields
	}
	if len(ids) > maxReturn {
		return nil
	}
	all := &Changes{}
	for _, id := range ids {
		n := nets[id]
		switch m := members.get(id); {
		case m == nil && n.added:
		case m == nil:
			all.Quit = append(all.Quit, id)
		case n.again:
			all.Add = append(all.Add, m)
		default:
			all.Update = append(all.Update, newUpdate(m, n.fields))
		}
	}
	return all
}
