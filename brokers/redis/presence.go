package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/gopushy/pushy"
)

// room is one channel's presence on this node.
type room struct {
	lane    *lane
	channel string
	users   int // under lane.mu: calls, and what is below

	// turns is shared by calls and taken whole by settle, which must know of all
	// the node's members.
	turns *semaphore.Weighted

	mu    sync.Mutex
	own   map[string]ownMember // by id
	next  int                  // joins so far
	on    bool                 // presence was on when last heard of
	watch *watch
	// stale says that what Redis has is to be compared with own, and read anew.
	stale bool
}

type ownMember struct {
	pushy.Member
	nth int // in joining order
}

// watch follows the log. Under room.mu.
type watch struct {
	ctx      context.Context
	apply    func(pushy.Change)
	ready    bool     // it knows where it stands
	reading  bool     // the state is being read
	early    []change // came meanwhile
	revision uint64
	empty    bool // the log is
	// caught says that an entry has come since the state was read: none from
	// before can come any more.
	caught bool
}

const (
	allTurns   = 1 << 20
	sweepMost  = 1000 // members a script takes out at once, so that others get a turn
	settleMost = 16   // rooms at a time
)

// use returns a channel's room; release lets go of it.
func (b *Broker) use(channel string) *room {
	l := b.lane(channel)
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rooms[channel]
	if r == nil {
		r = &room{lane: l, channel: channel, turns: semaphore.NewWeighted(allTurns), own: map[string]ownMember{}}
		l.rooms[channel] = r
	}
	r.users++
	return r
}

func (r *room) release() {
	r.lane.mu.Lock()
	defer r.lane.mu.Unlock()
	if r.users--; r.users > 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.own) == 0 && r.watch == nil && !r.stale && r.lane.rooms[r.channel] == r {
		delete(r.lane.rooms, r.channel)
	}
}

// Join logs a member. While the node is alone only this node's watch hears of it,
// and the others when Redis is back.
func (b *Broker) Join(ctx context.Context, channel string, m pushy.Member) error {
	r := b.use(channel)
	defer r.release()
	if err := r.turn(ctx); err != nil {
		return err
	}
	defer r.turns.Release(1)
	r.mu.Lock()
	if _, known := r.own[m.ID]; !known {
		r.own[m.ID] = ownMember{m, r.next}
		r.next++
	}
	r.mu.Unlock()
	k, err := r.lane.live()
	if err != nil {
		r.aloneWith(pushy.Change{Member: m})
		return nil
	}
	logged, err := r.lane.exec(ctx, k, k, joinScript, channel, m.ID, body(m)).AsInt64()
	if err != nil {
		return fmt.Errorf("redis: join: %w", err)
	}
	if logged == 0 { // settling logs it
		r.markStale()
	}
	return nil
}

// Leave logs that one of this node's members left. If that fails it is done later.
func (b *Broker) Leave(ctx context.Context, channel, memberID string) error {
	r := b.use(channel)
	defer r.release()
	if err := r.turn(ctx); err != nil {
		// Somebody else has the room; it will see that the member is gone.
		r.forget(memberID)
		r.markStale()
		return err
	}
	defer r.turns.Release(1)
	if !r.forget(memberID) {
		return nil
	}
	k, err := r.lane.live()
	if err != nil {
		r.markStale()
		r.aloneWith(pushy.Change{Left: true, Member: pushy.Member{ID: memberID}})
		return nil
	}
	if err := r.lane.exec(ctx, k, k, leaveScript, channel, memberID).Error(); err != nil {
		r.markStale()
		return fmt.Errorf("redis: leave: %w", err)
	}
	return nil
}

func (r *room) forget(memberID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known := r.own[memberID]
	delete(r.own, memberID)
	return known
}

// turn takes a call's turn in the room.
func (r *room) turn(ctx context.Context) error {
	if r.lane.b.ctx.Err() != nil {
		return errClosed
	}
	return r.turns.Acquire(ctx, 1)
}

func (r *room) markStale() {
	r.mu.Lock()
	r.stale = true
	r.mu.Unlock()
	r.lane.rouse()
}

// lose is called when what was logged may have been missed.
func (r *room) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stale = true
	if r.watch != nil {
		r.watch.ready = false
	}
}

// aloneWith tells this node's watch, and nobody else.
func (r *room) aloneWith(c pushy.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.watch; w != nil && w.ctx.Err() == nil {
		w.revision++
		c.Revision = w.revision
		w.apply(c)
	}
}

// Watch follows a channel's log until ctx ends.
func (b *Broker) Watch(ctx context.Context, channel string, apply func(pushy.Change)) (pushy.Snapshot, error) {
	r := b.use(channel)
	defer r.release()
	if err := r.turn(ctx); err != nil {
		return pushy.Snapshot{}, err
	}
	defer r.turns.Release(1)
	w := &watch{ctx: ctx, apply: apply, reading: true}
	r.mu.Lock()
	if r.watch != nil && r.watch.ctx.Err() == nil {
		r.mu.Unlock()
		return pushy.Snapshot{}, errors.New("redis: watch: the channel is being watched already")
	}
	r.watch = w
	r.mu.Unlock()
	snap, err := r.begin(ctx, w)
	if err != nil {
		r.unwatch(w)
		return pushy.Snapshot{}, err
	}
	context.AfterFunc(ctx, func() {
		_ = b.guarded("unwatch", func() error {
			r.unwatch(w)
			return nil
		})
	})
	return snap, nil
}

// begin subscribes, reads the state and then passes on what came meanwhile.
func (r *room) begin(ctx context.Context, w *watch) (pushy.Snapshot, error) {
	if err := r.lane.want(ctx, r.channel, func(s *sub) { s.watched = true }); err != nil {
		return pushy.Snapshot{}, err
	}
	k, err := r.lane.live()
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.stale, w.reading = true, false // settling gives it the State
		return r.ownLocked(), nil
	}
	snap, err := r.lane.read(ctx, k, readScript, r.channel)
	if err != nil {
		return pushy.Snapshot{}, fmt.Errorf("redis: watch: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.startLocked(w, snap)
	return snap, nil
}

// ownLocked is the state as far as the node knows it alone.
func (r *room) ownLocked() pushy.Snapshot {
	snap := pushy.Snapshot{On: r.on}
	for _, m := range r.membersLocked() {
		snap.Members = append(snap.Members, m.Member)
		snap.On = snap.On || m.HasData
	}
	return snap
}

func (r *room) membersLocked() []ownMember {
	members := make([]ownMember, 0, len(r.own))
	for _, m := range r.own {
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b ownMember) int { return a.nth - b.nth })
	return members
}

// unwatch ends w. The subscription ends in the same step, or that of a Watch that
// begins meanwhile would.
func (r *room) unwatch(w *watch) {
	l := r.lane
	l.mu.Lock()
	r.users++ // by hand: the room may be gone from the lane, and then is not shared
	r.mu.Lock()
	if r.watch == w { // else there is a newer one, which keeps the subscription
		r.watch = nil
		l.releaseLocked(r.channel, func(s *sub) { s.watched = false })
	}
	r.mu.Unlock()
	l.mu.Unlock()
	r.release()
}

// startLocked is where w stands from now on.
func (r *room) startLocked(w *watch, snap pushy.Snapshot) {
	w.revision, w.empty, w.ready, w.reading, w.caught = snap.Revision, len(snap.Members) == 0, true, false, false
	r.on = snap.On
	early := w.early
	w.early = nil
	for _, c := range early {
		r.followLocked(w, c)
	}
}

// changed takes an entry from Redis.
func (r *room) changed(text string) error {
	c, err := parseChange(text)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch w := r.watch; {
	case w == nil || w.ctx.Err() != nil:
	case w.ready:
		r.followLocked(w, c)
	case w.reading:
		w.early = append(w.early, c)
	}
	return nil
}

// followLocked passes an entry on if it is the next one.
func (r *room) followLocked(w *watch, c change) {
	if !w.ready || c.Revision <= w.revision && !w.caught {
		return // older than the state that was read, or another is to be read
	}
	w.caught = true
	_, own := r.own[c.Member.ID]
	next := c.Revision > w.revision && (c.last == w.revision || c.last == 0 && w.empty)
	if !next || c.Left && own {
		// Something is missing, the server's clock went back, or others took this
		// node for dead.
		w.ready, r.stale = false, true
		r.lane.rouse()
		return
	}
	w.revision, w.empty = c.Revision, c.count == 0
	r.on = !w.empty && (r.on || c.Member.HasData)
	w.apply(c.Change)
}

// settle makes the log and this node agree, and gives the watch the State.
func (r *room) settle(ctx context.Context, k *link) error {
	if err := r.turns.Acquire(ctx, allTurns); err != nil {
		return err
	}
	defer r.turns.Release(allTurns)
	r.mu.Lock()
	if !r.stale {
		r.mu.Unlock()
		return nil
	}
	r.stale = false
	on := "0"
	if r.on && len(r.own) > 0 { // else the log may have been empty meanwhile
		on = "1"
	}
	args := []string{r.channel, r.lane.leaseMillis(), on}
	for _, m := range r.membersLocked() {
		args = append(args, m.ID, body(m.Member))
	}
	if r.watch != nil {
		r.watch.ready, r.watch.reading, r.watch.early = false, true, nil
	}
	r.mu.Unlock()
	snap, err := r.lane.read(ctx, k, settleScript, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.stale = true
		if r.watch != nil {
			r.watch.reading = false
		}
		return err
	}
	if w := r.watch; w != nil && w.ctx.Err() == nil {
		w.apply(pushy.Change{Revision: snap.Revision, State: &snap})
		r.startLocked(w, snap)
	}
	return nil
}

// read runs a script that answers a channel's hash.
func (l *lane) read(ctx context.Context, k *link, s *script, args ...string) (pushy.Snapshot, error) {
	fields, err := l.exec(ctx, k, k, s, args...).AsStrMap()
	if err != nil {
		return pushy.Snapshot{}, err
	}
	snap, skipped := snapshot(fields)
	if skipped != nil {
		l.b.complain("skipped a broken field of a channel's members", "", fmt.Errorf("channel %q: %w", args[0], skipped))
	}
	return snap, nil
}
