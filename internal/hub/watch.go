package hub

import (
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
)

const (
	// batchPause is the time between two batches of changes, and longBatchPause that of a
	// channel of at least manyMembers.
	batchPause     = 250 * time.Millisecond
	longBatchPause = time.Second
	manyMembers    = 1000
	// largeBatch is the size above which a batch counts as a list, which does not make a
	// client a slow consumer.
	largeBatch = 64 << 10
)

// View is what a client receives of the members of a channel: a page of the list, the number
// of members, or the changes since a revision.
type View struct {
	Mode     PresenceMode
	Revision Revision // with a digest for PresenceDiff
	Count    int
	Self     string // the id of the member that stands for the client, if that is another than its own; or ""

	// PresenceDiff has Since and Changes, or List and Next. Batches have only Changes.
	Since   *Revision
	Changes *Changes
	List    []*Member
	Next    broker.Position // the place from which the next page follows; zero after the last

	Users []UserView // of an answer to a question about users, instead of List
}

// UserView has the members of a user.
type UserView struct {
	User    string
	Members []*Member
}

// watching is the part of a Channel that notifies its members of each other. The channel's
// fan guards it.
type watching struct {
	watchers [PresenceNone][]*membership // the members on this node with each mode
	inLog    bool                        // an entry of the log, or a State, is being applied
	batch    batch                       // since the last part
	parts    [][]byte                    // the messages of the batch so far, see splitLocked
	part     uint64                      // the number of the part that batch is
	log      changeLog
	listed   uint64 // the revision of the newest list that a client with PresenceDiff has
	sent     time.Time
	timer    *time.Timer // sends the batch; nil while there is none
}

// watchLocked makes a member receive the changes in its mode.
func (ch *Channel) watchLocked(m *membership) {
	if m.presence.Mode == PresenceNone {
		return
	}
	list := &ch.watchers[m.presence.Mode]
	m.watches = true
	m.watcher = len(*list)
	*list = append(*list, m)
	if m.presence.Mode == PresenceDiff {
		m.part = ch.part
		ch.splitLocked()
	}
}

// unwatchLocked is the inverse of watchLocked. A second call has no effect.
func (ch *Channel) unwatchLocked(m *membership) {
	if !m.watches {
		return
	}
	m.watches = false
	list := ch.watchers[m.presence.Mode]
	last := len(list) - 1
	list[m.watcher] = list[last]
	list[m.watcher].watcher = m.watcher
	list[last] = nil
	ch.watchers[m.presence.Mode] = list[:last]
}

// tellLocked queues f for the members with a mode, except one.
func (ch *Channel) tellLocked(mode PresenceMode, f *fanout.Frame, except *membership) {
	ch.tellPartLocked(mode, f, except, ch.part)
}

// tellPartLocked is tellLocked for a part of a batch, which those do not receive that came after it.
func (ch *Channel) tellPartLocked(mode PresenceMode, f *fanout.Frame, except *membership, part uint64) {
	fan := ch.hub.cfg.Engine.Fan(f)
	delivered := uint64(0)
	for _, m := range ch.watchers[mode] {
		if m != except && m.part <= part && fan.Send(m.out, &m.gate) {
			delivered++
		}
	}
	fan.Flush()
	ch.hub.counts.deliveries.Add(delivered)
}

// changedLocked notifies the members on this node of a change. own is the membership that
// has caused an update, or nil.
func (ch *Channel) changedLocked(c change, own *membership) {
	if c.isNone() || !ch.replica.on {
		return
	}
	ch.tellChangeLocked(c, own)
	ch.tellJoinsLocked(c)
	ch.collectLocked(c)
}

// tellChangeLocked notifies the members with PresenceList.
func (ch *Channel) tellChangeLocked(c change, own *membership) {
	if ch.listeners != nil {
		ch.listeners.changed(c)
	}
	if len(ch.watchers[PresenceList]) == 0 {
		return
	}
	ch.showLocked(c.member)
	e := Event{
		Channel: ch.name,
		Joiner:  c.member,
	}
	switch c.kind {
	case memberAdded:
		e.Kind = Joined
	case memberRemoved:
		e.Kind = Left
	default:
		e.Kind = Updated
		update := newUpdate(c.member, c.fields)
		e.Update = &update
	}
	ch.tellLocked(PresenceList, ch.hub.frame(&e), own)
}

// collectLocked adds a change to the batch, which the members with PresenceDiff and
// PresenceCount receive, and to the log.
func (ch *Channel) collectLocked(c change) {
	ch.log.add(c, ch.replica.revision, ch.inLog)
	diffs, counts := len(ch.watchers[PresenceDiff]), len(ch.watchers[PresenceCount])
	if diffs == 0 && (counts == 0 || c.kind == memberUpdated) {
		return
	}
	ch.batch.add(c, ch.listed)
	if ch.timer != nil {
		return
	}
	pause := batchPause
	if ch.replica.shown().len() >= manyMembers {
		pause = longBatchPause
	}
	ch.timer = time.AfterFunc(max(0, time.Until(ch.sent.Add(pause))), ch.sendBatch)
}

// sendBatch sends the batch when its time has come.
func (ch *Channel) sendBatch() {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	ch.timer = nil
	ch.sent = time.Now()
	b := ch.batch
	parts := ch.parts
	ch.batch = batch{}
	ch.parts = nil
	if len(ch.watchers[PresenceDiff]) > 0 {
		first := ch.part - uint64(len(parts))
		if text := ch.batchTextLocked(&b); text != nil {
			parts = append(parts, text)
		}
		size := 0
		for _, text := range parts {
			size += len(text)
		}
		for i, text := range parts {
			ch.tellPartLocked(PresenceDiff, batchFrame(text, size), nil, first+uint64(i))
		}
	}
	if b.counted && len(ch.watchers[PresenceCount]) > 0 {
		view := ch.viewLocked(PresenceCount)
		ch.tellLocked(PresenceCount, ch.hub.frame(&Event{
			Kind:    Changed,
			Channel: ch.name,
			View:    view,
		}), nil)
	}
}

// minPart is the number of changes from which a batch is split.
const minPart = 32

// splitLocked is called when a client has got a list. It ends a part of the batch, with a message of
// its own, unless the part is small: clients that come after it have its changes from their lists. If
// many clients join at once, half of the bytes are saved. The parts grow with the batch, so that there
// are few.
func (ch *Channel) splitLocked() {
	b := &ch.batch
	if len(b.entries) < max(minPart, b.before/8) {
		return
	}
	text := ch.batchTextLocked(b)
	if text == nil {
		return
	}
	ch.parts = append(ch.parts, text)
	ch.part++
	ch.batch = batch{
		before:  b.before + len(b.entries),
		counted: b.counted,
	}
}

// batchFrame returns the frame of a part of a batch of that size.
func batchFrame(text []byte, size int) *fanout.Frame {
	if size > largeBatch {
		return fanout.NewList(text)
	}
	return fanout.NewFrame(text)
}

// batchTextLocked returns the message of a batch, or nil if there is nothing to send.
func (ch *Channel) batchTextLocked(b *batch) []byte {
	changes := b.changes()
	if changes.len() == 0 {
		return nil
	}
	view := ch.viewLocked(PresenceDiff)
	view.Changes = changes
	ch.showChangesLocked(changes)
	return ch.hub.cfg.Protocol.Append(nil, Event{
		Kind:    Changed,
		Channel: ch.name,
		View:    view,
	})
}

func (ch *Channel) showChangesLocked(c *Changes) {
	for _, m := range c.Add {
		ch.showLocked(m)
	}
	for _, u := range c.Update {
		ch.showLocked(u.Member)
	}
}

func (ch *Channel) viewLocked(mode PresenceMode) *View {
	r := &ch.replica
	view := &View{
		Mode:     mode,
		Revision: Revision{Position: r.revision},
		Count:    r.shown().len(),
	}
	if mode == PresenceDiff {
		view.Revision.Digested = true
		view.Revision.Digest = r.digested()
	}
	return view
}

// firstViewLocked returns what a new member with PresenceDiff or PresenceCount receives.
func (ch *Channel) firstViewLocked(want Presence) *View {
	view := ch.viewLocked(want.Mode)
	if want.Mode == PresenceCount {
		return view
	}
	revision := ch.replica.revision
	ch.log.start(revision)
	ch.listed = max(ch.listed, ch.replica.listed())
	if want.Since == nil || want.Since.Epoch == "" {
		ch.pageLocked(view, 0, want.Limit)
		return view
	}
	// A client that comes from another node can be ahead of this one. It receives again what it
	// has received there, which has no effect in the end.
	if want.Since.Epoch == revision.Epoch {
		ch.listed = max(ch.listed, want.Since.Offset)
	}
	changes := ch.log.since(want.Since.Position, ch.replica.shown())
	if changes == nil {
		changes = ch.replica.since(*want.Since)
	}
	if changes != nil {
		view.Since = want.Since
		view.Changes = changes
		ch.showChangesLocked(changes)
		return view
	}
	ch.pageLocked(view, 0, want.Limit)
	return view
}

// membersFor returns the limit of the members of a channel for a client with a mode, and the
// name of the option.
func (l *Limits) membersFor(mode PresenceMode) (option string, limit int) {
	if mode == PresenceList || mode == PresenceJoins {
		return "Members", l.Members
	}
	return "PagedMembers", l.Paged
}

// presentLocked adds to a Subscribed event what the client sees of the members, and makes
// the client receive their changes.
func (ch *Channel) presentLocked(e *Event, m *membership) {
	if !ch.policy.Presence {
		return
	}
	ch.watchLocked(m)
	want := m.presence
	m.presence.Since = nil
	if !ch.replica.on {
		return
	}
	switch want.Mode {
	case PresenceList:
		e.Presence = true
		if m.conn.foreign == 0 {
			e.ListAt = new(int) // see subscribedFrameLocked
		} else {
			e.Members = ch.shownLocked()
		}
		if ch.policy.PerUser && m.conn.version >= 2 {
			e.View = &View{}
		}
	case PresenceJoins:
		e.Presence = true
		e.Members = ch.firstsLocked()
	case PresenceDiff, PresenceCount:
		e.View = ch.firstViewLocked(want)
	}
	if e.View != nil && ch.policy.PerUser {
		if seen := ch.replica.shownFor(ch.replica.get(m.id)); seen.ID != m.id {
			e.View.Self = seen.ID
		}
	}
}

// replacedLocked collects the changes that a State has made.
func (ch *Channel) replacedLocked(old *roster) {
	shown := ch.replica.shown()
	for _, m := range old.values() {
		if shown.get(m.ID) == nil {
			c := change{
				kind:   memberRemoved,
				member: m,
			}
			ch.tellJoinsLocked(c)
			ch.collectLocked(c)
		}
	}
	for _, m := range shown.values() {
		before := old.get(m.ID)
		c := change{
			kind:   memberAdded,
			member: m,
		}
		if before != nil {
			c.kind = memberUpdated
			c.fields = m.differsFrom(before)
		}
		if !c.isNone() {
			ch.tellJoinsLocked(c)
			ch.collectLocked(c)
		}
	}
}
