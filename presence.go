package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/lifecycle"
	"github.com/gopushy/pushy/internal/roster"
	"github.com/gopushy/pushy/internal/wire"
)

// Member is one membership of a private channel, on whichever node.
type Member struct {
	ID string // its memberId: new for every subscription, tells nothing of the connection
	// HasData reports whether the subscription brought presence data. The
	// first that did turns the channel's presence on, until it is empty.
	HasData bool
	// JSON is the member as clients see it: its data's fields, then subscribed,
	// memberId and idle (PROTOCOL.md, section 4).
	JSON json.RawMessage
}

// Change is one entry of a channel's presence log.
type Change struct {
	Revision uint64 // grows by at least one from entry to entry
	Left     bool   // Member left; else it joined
	Member   Member // only the ID counts when it left
	// State, if not nil, is no entry but all there is at its Revision, be that
	// lower than the last: for a log that could not be followed, or is lost.
	State *Snapshot
}

// Snapshot is what the entries of a channel's log up to Revision amount to.
type Snapshot struct {
	Revision uint64
	On       bool     // a member with data joined since the log was last empty
	Members  []Member // in joining order
}

// A PresenceStore is an ordered log of who joins and leaves each private
// channel, shared by the Servers that act as one. The default serves one
// process. Every member is logged, with or without data, so that all nodes
// read one state at one revision.
//
// A member is logged as left when the Server that joined it has ended or failed,
// however that happened. A store that was away logs its members' joins again as far as
// needed, and gives apply the new State.
//
// A Server skips members whose ID is not 1 to 64 of A-Z a-z 0-9 _ -, or whose JSON
// is not an object with that ID as memberId of at most 256 KiB (or twice
// Limits.PresenceBytes, if that is more), duplicates in a Snapshot, and revisions
// over 2^63-1. It logs that once a minute.
//
// All methods are called from many goroutines, never with a lock held, and
// return within ctx.
type PresenceStore interface {
	// Join logs that m joined. It is not done twice for one Member.ID. After
	// an error the entry may be there or not; the Server then calls Leave.
	Join(ctx context.Context, channel string, m Member) error
	// Leave logs that a member left; for an unknown one it does nothing. A
	// store that cannot log it now must see to it later.
	Leave(ctx context.Context, channel, memberID string) error
	// Watch returns the state and then calls apply with every later change,
	// in order, one at a time, until some time after ctx is cancelled. apply
	// may be called before Watch returns. It only queues, so it returns soon,
	// and never calls the store. One Server has at most one Watch of a channel.
	Watch(ctx context.Context, channel string, apply func(Change)) (Snapshot, error)
	Close() error
}

func (s *Server) newMember(id string, fields []byte) Member {
	text, err := wire.Member(fields, strconv.AppendInt(nil, s.now().UnixMilli(), 10), id)
	if err != nil {
		panic(err) // fields is an object
	}
	return Member{ID: id, HasData: fields != nil, JSON: text}
}

// presence is a node's replica of a channel's log, under the channel's fan.
type presence struct {
	watches  int // begun so far: only the last one's entries count
	state    roster.Roster[Member]
	revision uint64
	ready    bool     // the snapshot is in
	early    []Change // came before the snapshot
	skipped  bool     // a member was, and the log does not say so yet
	waiting  map[string]arrival
}

// arrival is a join of this node on its way through the log.
type arrival struct {
	sub     *subscription
	success wire.Object // without the presence list
	id      json.RawMessage
}

// listSize is about the size of list, and 0 while clients get no list; on tells
// that a newcomer is about to turn presence on.
func (p *presence) listSize(on bool) (size int64) {
	if !p.state.On() && !on {
		return 0
	}
	for _, m := range p.state.Values() {
		size += int64(len(m.JSON)) + 1
	}
	return size
}

// joinBytes is about how many bytes a join makes the server send: the list to
// the newcomer, and to the members here the newcomer's add and, later, quit.
func (ch *Channel) joinBytes(data json.RawMessage) int64 {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	size := ch.presence.listSize(false)
	if size == 0 {
		return 0
	}
	const around = 200 // what stands around the data in an event
	return size + 2*int64(ch.Len())*int64(len(data)+around)
}

// list is the JSON array of the members.
func (p *presence) list() []byte {
	return wire.List(p.state.Values(), func(m Member) []byte { return m.JSON })
}

// Presence returns the channel's members on all nodes in joining order, and
// whether presence is on; while it is off clients do not see them. Channels
// that are not private have none.
func (ch *Channel) Presence() (members []Member, on bool) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	return ch.presence.state.Values(), ch.presence.state.On()
}

// watch begins the replica.
func (ch *Channel) watch(ctx context.Context) error {
	s := ch.reg.srv
	watchCtx, cancel := context.WithCancel(s.ctx)
	give := context.AfterFunc(ctx, cancel) // ctx bounds only the call
	watch := ch.beginWatch()
	snap, err := s.presence.Watch(watchCtx, ch.name, func(c Change) { ch.apply(watch, c) })
	if !give() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel()
		ch.beginWatch() // what this one still brings is nobody's
		return err
	}
	ch.unwatch = cancel
	ch.begin(snap)
	ch.logSkipped()
	return nil
}

// begin takes the state that a watch begins with, and what came before it was there.
func (ch *Channel) begin(snap Snapshot) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	p := &ch.presence
	p.take(snap)
	p.ready = true
	for _, c := range p.early {
		ch.applyLocked(c)
	}
	p.early = nil
}

// logSkipped logs that a member was skipped. The host's log handler must not run
// under fan: it may publish to this channel.
func (ch *Channel) logSkipped() {
	ch.fan.Lock()
	skipped := ch.presence.skipped
	ch.presence.skipped = false
	ch.fan.Unlock()
	if skipped {
		ch.reg.srv.notices.Warn("skipped a member: the channel has too many", "",
			slog.String("channel", ch.name), slog.Int("limit", maxListMembers))
	}
}

// beginWatch forgets what earlier watches have brought, and returns the number of
// the one that begins. A store may call apply before its Watch fails, and for some
// time after: to the next watch these entries would be ghosts.
func (ch *Channel) beginWatch() int {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	ch.presence.watches++
	ch.presence.early = nil
	return ch.presence.watches
}

// apply takes the next entry of the log: here adds and quits get the one order
// in which all members see them.
func (ch *Channel) apply(watch int, c Change) {
	if ch.applySkips(watch, c) {
		ch.logSkipped()
	}
}

// applySkips is apply, and reports whether a member was skipped.
func (ch *Channel) applySkips(watch int, c Change) bool {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	switch {
	case watch != ch.presence.watches:
	case !ch.presence.ready:
		ch.presence.early = append(ch.presence.early, c)
	default:
		ch.applyLocked(c)
	}
	return ch.presence.skipped
}

func (p *presence) take(snap Snapshot) {
	p.state, p.revision = roster.Roster[Member]{}, snap.Revision
	for _, m := range snap.Members {
		p.state.Add(m.ID, m, snap.On)
	}
}

func (ch *Channel) applyLocked(c Change) {
	p := &ch.presence
	if c.State != nil {
		wasOn := p.state.On()
		p.take(*c.State)
		if wasOn || p.state.On() {
			ch.syncLocked(p.list())
		}
		for _, m := range c.State.Members {
			ch.arriveLocked(m.ID)
		}
		return
	}
	if c.Revision <= p.revision {
		return
	}
	p.revision = c.Revision
	if c.Left {
		if m, ok := p.state.Remove(c.Member.ID); ok && p.state.On() {
			ch.broadcastLocked(ch.memberFrame(eventPresenceQuit, m), "")
		}
		return
	}
	wasOn, before := p.state.On(), []byte(nil)
	if !wasOn && c.Member.HasData && p.state.Len() > 0 {
		before = p.list()
	}
	if p.state.Len() >= maxListMembers && !ch.reg.srv.inline {
		p.skipped = true
		return
	}
	if !p.state.Add(c.Member.ID, c.Member, c.Member.HasData) {
		return
	}
	if before != nil {
		ch.syncLocked(before)
	}
	if p.state.On() {
		ch.broadcastLocked(ch.memberFrame(eventPresenceAdd, c.Member), "")
	}
	ch.arriveLocked(c.Member.ID)
}

func (ch *Channel) syncLocked(list []byte) {
	sync := fanout.NewList(wire.Event(eventPresenceSync, ch.name, wire.Object(nil).Raw("presence", list)))
	ch.broadcastLocked(sync, "")
}

// arriveLocked lets a member in whose join has come back, if it waits here.
func (ch *Channel) arriveLocked(memberID string) {
	p := &ch.presence
	a, here := p.waiting[memberID]
	if !here {
		return
	}
	delete(p.waiting, memberID)
	if p.state.On() {
		a.success = a.success.Raw("presence", p.list())
	}
	ch.admit(a.sub, fanout.NewList(wire.Reply(eventSuccess, a.success, a.id)))
	close(a.sub.through)
}

func (ch *Channel) memberFrame(event string, m Member) *fanout.Frame {
	return eventFrame(event, ch.name, wire.Object(nil).Raw("member", m.JSON))
}

// joinPrivate logs sub's join and waits until it has come back, at which point
// sub is a member. After an error nothing of it is left. It waits while the
// client has not read the lists that it got before.
func (ch *Channel) joinPrivate(sub *subscription, m Member, success wire.Object, id json.RawMessage) error {
	s := ch.reg.srv
	p := &ch.presence
	sub.through = make(chan struct{})
	ch.fan.Lock()
	size := p.listSize(m.HasData) + int64(len(m.JSON))
	ch.fan.Unlock()
	if size > int64(len(m.JSON)) || m.HasData {
		release, err := sub.out.AwaitRoom(sub.conn.ctx, size)
		if err != nil {
			return err
		}
		defer release()
	}
	ch.fan.Lock()
	limit := s.opts.Limits.Members
	if limit > 0 && (p.state.On() || m.HasData) && p.state.Len()+len(p.waiting) >= limit {
		ch.fan.Unlock()
		return &JoinError{Channel: ch.name, Reason: "Channel is full"}
	}
	if p.waiting == nil {
		p.waiting = map[string]arrival{}
	}
	p.waiting[m.ID] = arrival{sub, success, id}
	ch.fan.Unlock()

	ctx, cancel := s.operation(sub.conn.ctx)
	defer cancel()
	err := s.presence.Join(ctx, ch.name, m)
	if err == nil {
		err = lifecycle.Wait(ctx, sub.through)
	}
	if err == nil {
		return nil
	}
	ch.fan.Lock()
	_, waits := p.waiting[m.ID]
	delete(p.waiting, m.ID)
	ch.fan.Unlock()
	if !waits {
		return nil // it came through after all
	}
	if s.ctx.Err() == nil { // else the store is closed
		ctx, cancel := s.operation(s.ctx)
		defer cancel()
		ch.logLeave(ctx, m.ID)
	}
	if errors.Is(err, ErrTooLarge) {
		return &JoinError{
			Channel: ch.name,
			Reason:  wire.PresenceTooLarge,
			Err:     err,
		}
	}
	return err
}

// localPresence is the PresenceStore of a single process.
type localPresence struct{ logs roster.Logs[Member] }

var _ PresenceStore = (*localPresence)(nil)

func (l *localPresence) Join(_ context.Context, channel string, m Member) error {
	return l.logs.Join(channel, m.ID, m, m.HasData)
}

func (l *localPresence) Leave(_ context.Context, channel, memberID string) error {
	return l.logs.Leave(channel, memberID)
}

func (l *localPresence) Watch(ctx context.Context, channel string, apply func(Change)) (Snapshot, error) {
	members, on, revision, err := l.logs.Watch(ctx, channel, func(e roster.Entry[Member]) {
		apply(Change{Revision: e.Revision, Left: e.Left, Member: e.Value})
	})
	return Snapshot{Revision: revision, On: on, Members: members}, err
}

func (l *localPresence) Close() error { return l.logs.Close() }
