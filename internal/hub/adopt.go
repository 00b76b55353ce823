package hub

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/lifecycle"
)

// reasonResumed is the reason with which a subscription ends that another connection has
// taken over.
const reasonResumed = "Resumed elsewhere"

// adoptWait is how long an adoption waits for the entry that explains why it has failed: the
// broker has appended it, so it is on its way.
const adoptWait = 3 * time.Second

// entrance is how a membership began.
type entrance uint8

const (
	entered  entrance = iota // as a new member
	moved                    // its member came from another node
	tookOver                 // its member was on this node
)

// errHeld is the error of a Join whose connection has ended, or for which the broker took too
// long, while it adopted a member. The member is held.
var errHeld = errors.New("the adoption of the member has not been delivered yet")

// returning is one attempt of a connection to take over a member.
type returning struct {
	ch   *Channel
	m    *membership
	id   string // of the member
	data []byte
	user string // the identity of the client
	fits bool   // the key is that of this user
	join *JoinRequest
	past *pastRequest

	claimed int64 // when the client has named the member, in milliseconds
	tried   bool  // an adoption has failed because another node was faster
	// appended is the owner of an adoption that was appended and that nothing waits for any more.
	// If it takes effect after all, the member must leave.
	appended string
}

// resume makes m the membership of the member that the client names, if the client may have
// it. If it returns false without an error, the client joins as a new member. gone is the id of
// the member if it was one of the same user and is not in the channel any more.
func (ch *Channel) resume(
	m *membership, r *JoinRequest, data []byte, past *pastRequest,
) (resumed bool, gone string, err error) {
	h := ch.hub
	user := h.identity(m.conn.UserID(), data)
	fits := h.cfg.MemberKeyValid(ch.name, r.Return.ID, user, r.Return.Key)
	if !fits && !ch.isKeyOfMember(r.Return) {
		h.cfg.Notices.Warn("a client cannot take over its earlier membership: the key is wrong", ch.name,
			slog.String("channel", ch.name), slog.String("conn", m.conn.id))
		return false, "", nil
	}
	release, err := ch.awaitRoom(m, data, 0)
	if err != nil {
		return false, "", err
	}
	defer release()
	ctx, cancel := context.WithTimeout(h.ctx, h.cfg.Timeout)
	defer cancel()
	stop := context.AfterFunc(&m.conn.ctx, cancel)
	defer stop()
	t := &returning{
		ch:   ch,
		m:    m,
		id:   r.Return.ID,
		data: data,
		user: user,
		fits: fits,
		join: r,
		past: past,

		claimed: time.Now().UnixMilli(),
	}
	resumed, gone, err = t.run(ctx)
	if !resumed && t.appended != "" {
		h.backlog.addLeave(ch.name, t.id, t.appended, time.Time{})
	}
	return resumed, gone, err
}

func (t *returning) run(ctx context.Context) (resumed bool, gone string, err error) {
	ch := t.ch
	for {
		if ctx.Err() != nil {
			// The client may have its member on another node by now.
			return false, "", t.failed(ctx)
		}
		s := t.step()
		switch s.next {
		case stepGone:
			if t.fits {
				gone = t.id
			}
			return false, gone, nil
		case stepLate:
			// If the client is connected all the same, it asks again.
			return false, "", &UnavailableError{Err: errLate}
		case stepDone:
			ch.life.release() // the member holds the channel already
			t.update()
			return true, "", nil
		case stepOther:
			ch.evict(ctx, t.id)
			return false, "", nil
		case stepWait:
			if lifecycle.Wait(ctx, s.wait) != nil {
				return false, "", t.failed(ctx)
			}
		case stepHandOver:
			if lifecycle.Wait(ctx, s.live.handOver()) != nil {
				return false, "", t.failed(ctx)
			}
		case stepAdopt:
			again, err := t.adopt(ctx, s.member, s.owner)
			t.tried = true
			switch {
			case err == nil && !again:
				t.update()
				return true, "", nil
			case errors.Is(err, errGone):
				return false, "", nil
			case err != nil:
				return false, "", err
			}
		}
	}
}

// isKeyOfMember reports whether a key is that of a member which is in the channel, whoever its
// user is.
func (ch *Channel) isKeyOfMember(r Returning) bool {
	ch.fan.Lock()
	member := ch.replica.get(r.ID)
	user := ""
	if member != nil {
		user = member.identity
	}
	ch.fan.Unlock()
	return member != nil && ch.hub.cfg.MemberKeyValid(ch.name, r.ID, user, r.Key)
}

func (t *returning) failed(ctx context.Context) error {
	if t.m.conn.ctx.Err() != nil {
		return ErrClosed
	}
	return ctx.Err()
}

type stepKind uint8

const (
	stepGone     stepKind = iota // there is no such member
	stepOther                    // it is another user's, or cannot have the data
	stepLate                     // a later connection of the client has it
	stepDone                     // it was taken over
	stepWait                     // for wait, and then another step
	stepHandOver                 // live must give it up
	stepAdopt                    // from another node
)

type step struct {
	next   stepKind
	wait   <-chan struct{}
	live   *membership
	member *loggedMember
	owner  string // the present owner
}

// step decides what to do next. If the member is held on this node, step takes it over.
func (t *returning) step() step {
	ch := t.ch
	ch.fan.Lock()
	defer ch.fan.Unlock()
	own := ch.own[t.id]
	if own != nil && !own.arrived {
		return step{
			next: stepWait,
			wait: own.delivered,
		}
	}
	old := ch.replica.get(t.id)
	switch {
	case old == nil:
		return step{next: stepGone}
	case old.identity != t.user:
		return step{next: stepOther}
	case own != nil && own.claimed > t.claimed, t.tried && claimedAt(old.Owner) > t.claimed:
		return step{next: stepLate}
	case old.Data == nil && t.data != nil && !ch.replica.on:
		return step{next: stepOther} // only a Join turns presence on
	case own != nil && own.by != nil:
		return step{
			next: stepHandOver,
			live: own.by,
		}
	case own != nil:
		t.takeOverLocked(own)
		return step{next: stepDone}
	}
	l := t.expectLocked(old)
	return step{
		next:   stepAdopt,
		member: l,
		owner:  old.Owner,
	}
}

// takeOverLocked makes the client's membership that of a member that is held.
func (t *returning) takeOverLocked(l *loggedMember) {
	ch := t.ch
	m := t.m
	m.logged = l
	m.id = l.member.ID
	m.entrance = moved
	if l.hooked {
		m.entrance = tookOver
		m.previous = l.absence.conn.id
	}
	ch.unholdLocked(l)
	l.by = m
	l.claimed = t.claimed
	ch.subscribedLocked(m, t.join.Request, t.past)
}

// expectLocked prepares the adoption of a member.
func (t *returning) expectLocked(old *Member) *loggedMember {
	h := t.ch.hub
	l := &loggedMember{
		ch: t.ch,
		member: Member{
			ID:     old.ID,
			Owner:  h.newOwner(t.claimed),
			Node:   h.cfg.Node,
			User:   old.User,
			Data:   old.Data,
			Joined: old.Joined,
			since:  old.since,

			MemberState: old.MemberState,
		},
		claimed:   t.claimed,
		adopting:  true,
		delivered: make(chan struct{}),
		changed:   make(chan struct{}, 1),
		by:        t.m,
		request:   t.join.Request,
		past:      t.past,
	}
	t.m.logged = l
	t.m.id = old.ID
	t.m.entrance = moved
	t.ch.expectLocked(l)
	return l
}

var errLate = errors.New("a later connection of the client has its membership")

// errGone means that the member has left, or cannot be adopted now.
var errGone = errors.New("the member has left")

// adopt takes a member over from another node. again means that another node was faster, that
// this node did not know the present owner yet, or that the store may have lost the adoption.
func (t *returning) adopt(ctx context.Context, l *loggedMember, owner string) (again bool, err error) {
	ch := t.ch
	h := ch.hub
	// The end of the connection must not interrupt the Append, because nobody could tell then
	// whether this node has the member.
	appending, cancel := h.operation(h.ctx)
	defer cancel()
	_, err = h.cfg.Broker.Append(appending, ch.name, broker.Entry{
		Kind:     broker.Adopt,
		Member:   t.id,
		OldOwner: owner,
		Owner:    l.member.Owner,
	})
	switch {
	case err == nil:
		return t.await(ctx, l)
	case errors.Is(err, broker.ErrNotOwner):
		changed := t.changes(ctx, l, owner)
		if !ch.giveUp(l) {
			return false, nil
		}
		if !changed {
			err = errGone
			if ctx.Err() != nil {
				err = t.failed(ctx)
			}
			return false, err
		}
		return true, nil
	case errors.Is(err, broker.ErrAway) && !errors.Is(err, broker.ErrUncertain):
		if !ch.giveUp(l) {
			return false, nil
		}
		return false, errGone
	}
	l.uncertain(err)
	if !ch.giveUp(l) {
		return false, nil
	}
	if h.ctx.Err() == nil {
		leaving, cancel := h.operation(h.ctx)
		defer cancel()
		ch.logLeave(leaving, l)
	}
	return false, err
}

// await waits until an adoption that was appended is delivered. again means that the store may
// have lost it.
func (t *returning) await(ctx context.Context, l *loggedMember) (again bool, err error) {
	delivered, err := l.await(ctx)
	if err == nil && !delivered {
		err = ctx.Err()
	}
	switch {
	case delivered:
		return false, nil
	case err == nil && t.ch.giveUp(l):
		t.appended = l.member.Owner
		return true, nil
	case err == nil, !t.ch.holdUndelivered(l):
		return false, nil // it has been delivered after all
	}
	if err = t.failed(ctx); !errors.Is(err, ErrClosed) {
		err = errHeld
	}
	return false, err
}

// changes waits until this node knows another owner of the member, or that it has left. It
// returns false if that does not happen.
func (t *returning) changes(ctx context.Context, l *loggedMember, owner string) bool {
	ctx, cancel := context.WithTimeout(ctx, t.ch.hub.patient(adoptWait))
	defer cancel()
	for {
		t.ch.fan.Lock()
		old := t.ch.replica.get(t.id)
		same := old != nil && old.Owner == owner
		t.ch.fan.Unlock()
		if !same {
			return true
		}
		select {
		case <-l.changed:
		case <-ctx.Done():
			return false
		}
	}
}

// holdUndelivered holds a member whose adoption was appended and not delivered yet. It
// returns false if it has been delivered.
func (ch *Channel) holdUndelivered(l *loggedMember) bool {
	a := newHandOver(l.by.conn)
	ch.fan.Lock()
	held := !l.arrived
	if held {
		l.by = nil
		l.absence = a
		a.members = append(a.members, l)
		a.left.Add(1)
		ch.held.Add(1)
		l.request = nil
		l.past = nil
	}
	ch.fan.Unlock()
	if held {
		_, _ = ch.life.acquire(context.Background()) // it is open, because the caller holds it
		a.start()
	}
	return held
}

// update gives the member the data and the state of the client, if they have changed.
func (t *returning) update() {
	c := t.m.conn
	idle := c.isIdle()
	err := t.ch.update(t.ch.hub.ctx, t.m, func(member *Member) {
		member.Idle = idle
		if t.data != nil || member.Data == nil {
			member.Data = t.data
		} else {
			member.Data = []byte("{}")
		}
	})
	if err != nil && t.ch.hub.ctx.Err() == nil {
		t.ch.hub.cfg.Notices.Warn("cannot append the new data of a member that has returned", t.ch.name,
			slog.String("channel", t.ch.name), slog.Any("error", err))
	}
}

// evict makes a member leave at once, on whichever node it is: its client must not have it
// any more.
func (ch *Channel) evict(ctx context.Context, id string) {
	ch.fan.Lock()
	l := ch.own[id]
	old := ch.replica.get(id)
	var live *membership
	var held *absence
	if l != nil {
		live = l.by
		held = l.absence
	}
	ch.fan.Unlock()
	switch {
	case live != nil:
		live.leaveSoon(live.resumedFrame())
	case held != nil:
		if ch.endAbsence(l, held) {
			ch.hub.leaveHeld(held.conn, []*loggedMember{l})
		}
	case old != nil:
		ch.evictRemote(ctx, old.ID, old.Owner)
	}
}

// evictRemote adopts the member first, so that the node that has it does not let it join again.
func (ch *Channel) evictRemote(ctx context.Context, id, owner string) {
	h := ch.hub
	mine := h.cfg.NewOwner()
	_, err := h.cfg.Broker.Append(ctx, ch.name, broker.Entry{
		Kind:     broker.Adopt,
		Member:   id,
		OldOwner: owner,
		Owner:    mine,
	})
	switch {
	case errors.Is(err, broker.ErrNotOwner):
		return
	case err != nil:
		h.cfg.Notices.Warn("cannot end the earlier membership of a client", ch.name,
			slog.String("channel", ch.name), slog.Any("error", err))
		h.backlog.addLeave(ch.name, id, mine, h.lateUntil(err)) // the adoption may have been appended
		return
	}
	if _, err = h.cfg.Broker.Append(ctx, ch.name, leaveEntry(id, mine)); err != nil {
		h.backlog.addLeave(ch.name, id, mine, time.Time{})
	}
}

// revoked ends the member that a client names whose Join was refused: the key proves that it
// is the client's own, and the client may not be in the channel any more.
func (h *Hub) revoked(c *Conn, r *JoinRequest, policy Policy, refusal error) {
	var refused *RefusedError
	denied := errors.Is(refusal, ErrDenied) || errors.As(refusal, &refused) && !refused.NeedAuth
	if r.Return.ID == "" || !denied || !policy.Private || !policy.Presence {
		return
	}
	// What the client sent with a Join that was refused does not prove who the user is.
	user := h.identity(c.UserID(), nil)
	if !h.cfg.MemberKeyValid(r.Channel, r.Return.ID, user, r.Return.Key) {
		return
	}
	ch, err := h.acquire(&c.ctx, r.Channel, policy)
	if err != nil {
		return
	}
	defer ch.life.release()
	ch.fan.Lock()
	old := ch.replica.get(r.Return.ID)
	same := old != nil && old.identity == user
	ch.fan.Unlock()
	if !same {
		return
	}
	ctx, cancel := h.operation(h.ctx)
	defer cancel()
	ch.evict(ctx, r.Return.ID)
}
