package hub

import (
	"errors"
	"math"
	"sync"
	"time"
)

// expiryGrace is the time for which a membership goes on after its permission has expired.
const expiryGrace = 25 * time.Second

// ErrOtherUser is returned for a permission that is another user's.
var ErrOtherUser = errors.New("the permission is for another user")

// lease says when a membership ends. Memberships without an end have none.
type lease struct {
	m       *membership
	expires int64  // when the permission expires, in Unix milliseconds
	at      uint32 // the second of its bucket; under wheel.mu
	slot    int32  // the place there, or -1; under wheel.mu
}

// ended is the lease of a membership that is being ended because its permission has expired.
var ended = &lease{slot: -1}

// newLease returns nil for a permission that does not expire.
func newLease(m *membership, expires time.Time) *lease {
	if expires.IsZero() {
		return nil
	}
	return &lease{
		m:       m,
		expires: expires.UnixMilli(),
		slot:    -1,
	}
}

// end returns the second in which the membership ends.
func (l *lease) end() int64 {
	ms := l.expires + expiryGrace.Milliseconds()
	return min((ms+999)/1000, math.MaxUint32)
}

// wheel has the leases in buckets of one second. Its timer runs only while it has leases. The
// lock of the lease's connection is locked before that of the wheel.
type wheel struct {
	hub *Hub

	mu      sync.Mutex
	buckets map[uint32][]*lease
	done    int64 // the last second whose bucket has been emptied
	ticking bool
	timer   *time.Timer // nil at first
}

// add adds a lease, unless it is nil.
func (w *wheel) add(l *lease) {
	if l == nil || w.hub.stopping.Err() != nil {
		return
	}
	now := w.hub.cfg.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ticking || w.done > now.Unix() { // the clock can go back
		w.done = now.Unix() - 1
	}
	l.at = uint32(min(max(l.end(), w.done+1), math.MaxUint32))
	if w.buckets == nil {
		w.buckets = map[uint32][]*lease{}
	}
	l.slot = int32(len(w.buckets[l.at]))
	w.buckets[l.at] = append(w.buckets[l.at], l)
	if !w.ticking {
		w.ticking = true
		w.nextLocked(now)
	}
}

// remove removes a lease, if it is in the wheel.
func (w *wheel) remove(l *lease) {
	if l == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.slot < 0 {
		return
	}
	bucket := w.buckets[l.at]
	last := bucket[len(bucket)-1]
	bucket[l.slot] = last
	last.slot = l.slot
	bucket[len(bucket)-1] = nil
	l.slot = -1
	if len(bucket) == 1 {
		delete(w.buckets, l.at)
		return
	}
	w.buckets[l.at] = bucket[:len(bucket)-1]
}

// nextLocked sets the timer to the beginning of the next second.
func (w *wheel) nextLocked(now time.Time) {
	pause := time.Second - time.Duration(now.Nanosecond())
	if w.timer == nil {
		w.timer = time.AfterFunc(pause, w.tick)
		return
	}
	w.timer.Reset(pause)
}

func (w *wheel) tick() {
	if due := w.due(); len(due) > 0 {
		w.hub.expire(due)
	}
}

// maxSteps is the number of seconds whose buckets due looks up. After a longer pause, it looks at
// all buckets.
const maxSteps = 60

// due removes the leases whose time has come, and returns them.
func (w *wheel) due() (due []*lease) {
	now := w.hub.cfg.Now()
	second := now.Unix()
	w.mu.Lock()
	defer w.mu.Unlock()
	take := func(at uint32) {
		bucket := w.buckets[at]
		for _, l := range bucket {
			l.slot = -1
		}
		due = append(due, bucket...)
		delete(w.buckets, at)
	}
	if second-w.done > maxSteps {
		for at := range w.buckets {
			if int64(at) <= second {
				take(at)
			}
		}
	} else {
		for at := w.done + 1; at <= second; at++ {
			take(uint32(at))
		}
	}
	w.done = second
	w.ticking = len(w.buckets) > 0 && w.hub.stopping.Err() == nil
	if w.ticking {
		w.nextLocked(now)
	}
	return due
}

// expire ends the memberships of leases. A hook that does not return delays only those of the
// same second, and these only if there are more than maxLeavers of such hooks.
func (h *Hub) expire(due []*lease) {
	if !h.tasks.Start() {
		return // the connections are being closed
	}
	defer h.tasks.End()
	h.spread(len(due), len(due), func(i int) { due[i].expire() })
}

// expire ends the membership, unless it has been renewed or has ended meanwhile.
func (l *lease) expire() {
	m := l.m
	c := m.conn
	c.mu.Lock()
	valid := m.lease == l
	if valid {
		m.lease = ended
	}
	c.mu.Unlock()
	if !valid {
		return
	}
	m.leaveSoon(c.frame(&Event{
		Kind:    Ended,
		Channel: m.name,
		Reason:  ReasonExpired,
		Again:   c.version >= 2, // other clients do not know the key
	}))
}

// expires returns when the permission of a new membership expires, in Unix milliseconds, or 0.
func (m *membership) expires() int64 {
	if m.lease == nil {
		return 0
	}
	return m.lease.expires
}

// startLease adds the lease of a new membership to the wheel. If the membership has been renewed
// meanwhile, it has another.
func (m *membership) startLease(l *lease) {
	if l == nil {
		return
	}
	c := m.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.lease == l && m.isMember() {
		c.hub.wheel.add(l)
	}
}

// Refresh asks Config.Authorize again for a channel that the connection is in, and replaces the
// permission, its end, and the presence data, if there are others. It returns the time at
// which the permission expires, in Unix milliseconds, or 0. After an error, nothing has
// changed. The errors are those of Config.Authorize, ErrNotMember, ErrOtherUser, and those of
// the member's data.
func (c *Conn) Refresh(channel, auth string, data []byte) (expires int64, err error) {
	expires, err = c.refresh(channel, auth, data)
	if err != nil {
		c.hub.logRefusal(channel, err)
	}
	return expires, err
}

func (c *Conn) refresh(channel, auth string, data []byte) (expires int64, err error) {
	h := c.hub
	m := c.membership(channel)
	if m == nil || !c.isIn(m) {
		return 0, ErrNotMember
	}
	policy := m.ch.policy
	grant, err := h.cfg.Authorize(&c.ctx, AuthRequest{
		Conn:    c,
		Channel: channel,
		Private: policy.Private,
		Auth:    auth,
		Data:    data,
	})
	if err != nil {
		return 0, err
	}
	if grant.Data != nil {
		data = grant.Data
	}
	if m.logged != nil && policy.Presence && data != nil {
		if err = m.refreshData(data); err != nil {
			return 0, err
		}
	}
	renewed := newLease(m, grant.Expires)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !m.isMember() || m.lease == ended {
		return 0, ErrNotMember
	}
	h.wheel.remove(m.lease)
	m.lease = renewed
	m.clientEvents = grant.ClientEvents
	m.noPast = grant.NoPast
	if renewed == nil {
		return 0, nil
	}
	h.wheel.add(renewed)
	return renewed.expires, nil
}

// refreshData gives the member other data. The user of a member does not change: its key, and
// what the others see of it, belong to that user.
func (m *membership) refreshData(data []byte) error {
	ch := m.ch
	h := ch.hub
	fields, err := h.cfg.Protocol.MemberData(data)
	if err != nil || fields == nil {
		return err
	}
	ch.fan.Lock()
	member := m.logged.member
	ch.fan.Unlock()
	if h.identity(member.User, member.Data) != h.identity(m.conn.UserID(), fields) {
		return ErrOtherUser
	}
	return ch.update(&m.conn.ctx, m, func(member *Member) { member.Data = fields })
}
