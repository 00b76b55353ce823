package memory

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

// channelLog is the log of one channel. Entries are numbered, stored and delivered under
// its lock, so that their order is the same for all followers.
type channelLog struct {
	name string

	mu        sync.Mutex
	dropped   bool // it has been removed from its shard
	followers map[*Broker]struct{}

	at       broker.Position // of the last kept event
	kept     []broker.Entry  // oldest first
	bytes    int             // of the data of kept
	keep     broker.Keep     // of the last kept event
	appended time.Time       // the time of the last kept event

	revision broker.Position
	members  []*broker.Member // in the order in which they joined, with some that have left
	byID     map[string]*broker.Member
	on       bool
	adopted  []adoption // oldest first
}

// adoption records the owner from which a member was adopted.
type adoption struct {
	member string
	owner  string
	until  time.Time
}

// forgetAfter returns the minimum time for which the numbers of kept events are remembered
// after the last append; see package broker.
func (l *channelLog) forgetAfter() time.Duration {
	return max(24*time.Hour, 10*l.keep.TTL)
}

func (c *Cluster) shard(channel string) *shard {
	return &c.shards[maphash.String(c.seed, channel)%uint64(len(c.shards))]
}

// find returns the channel's log, not locked, or nil.
func (s *shard) find(channel string) *channelLog {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.logs[channel]
}

func (s *shard) all() []*channelLog {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.logs))
}

func (s *shard) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.logs)
}

// logOf returns the channel's log, locked. It creates the log if there is none.
func (c *Cluster) logOf(channel string) *channelLog {
	s := c.shard(channel)
	for {
		l := s.find(channel)
		if l == nil {
			l = c.create(s, channel)
		}
		l.mu.Lock()
		if !l.dropped {
			return l
		}
		l.mu.Unlock()
	}
}

func (c *Cluster) create(s *shard, channel string) *channelLog {
	c.sweep(s)
	offsets, revisions := c.epochs()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.logs[channel]; l != nil {
		return l
	}
	l := &channelLog{
		name:      channel,
		followers: map[*Broker]struct{}{},
		at:        broker.Position{Epoch: offsets},
		revision:  broker.Position{Epoch: revisions},
		byID:      map[string]*broker.Member{},
	}
	s.logs[channel] = l
	return l
}

// sweep drops unused logs of a shard. It checks a few, in the map's random order, whenever a
// log is added, so unused logs do not accumulate.
func (c *Cluster) sweep(s *shard) {
	var some []*channelLog
	s.mu.RLock()
	for _, l := range s.logs {
		some = append(some, l)
		if len(some) == 3 {
			break
		}
	}
	s.mu.RUnlock()
	for _, l := range some {
		l.mu.Lock()
		c.dropIfUnusedLocked(l)
		l.mu.Unlock()
	}
}

func (c *Cluster) epochs() (offsets, revisions string) {
	c.epochMu.Lock()
	defer c.epochMu.Unlock()
	return c.offsetEpoch, c.revisionEpoch
}

// dropIfUnusedLocked removes a log, whose lock is held, if it is not used any more. If its
// numbers are lost with that, logs that are created later begin in another epoch.
func (c *Cluster) dropIfUnusedLocked(l *channelLog) {
	if l.dropped || len(l.followers) > 0 || len(l.byID) > 0 {
		return
	}
	l.expireLocked(time.Now())
	if l.at.Offset > 0 && time.Since(l.appended) < l.forgetAfter() {
		return
	}
	l.dropped = true
	c.epochMu.Lock()
	if l.at.Offset > 0 && l.at.Epoch == c.offsetEpoch {
		c.offsetEpoch = brokerkit.NewEpoch()
	}
	if l.revision.Offset > 0 && l.revision.Epoch == c.revisionEpoch {
		c.revisionEpoch = brokerkit.NewEpoch()
	}
	c.epochMu.Unlock()
	s := c.shard(l.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs[l.name] == l {
		delete(s.logs, l.name)
	}
}

func (l *channelLog) stateLocked() broker.State {
	members := make([]broker.Member, 0, len(l.byID))
	for _, m := range l.members {
		if l.isMember(m) {
			members = append(members, *m)
		}
	}
	return broker.State{
		At:       l.at,
		Revision: l.revision,
		Members:  members,
		On:       l.on,
	}
}

func (l *channelLog) deliverLocked(e broker.Entry) {
	for b := range l.followers {
		b.sink.Deliver(l.name, e)
	}
}

// appendEventLocked numbers, keeps and delivers an event.
func (l *channelLog) appendEventLocked(e broker.Entry) broker.Position {
	if e.Keep.Size <= 0 {
		l.deliverLocked(e)
		return broker.Position{}
	}
	now := time.Now()
	e.Time = now
	e.Prev = l.at.Offset
	l.at.Offset++
	e.At = l.at
	l.appended = now
	l.keep = e.Keep
	l.kept = append(l.kept, e)
	l.bytes += len(e.Data)
	l.trimLocked()
	l.expireLocked(now)
	l.deliverLocked(e)
	return e.At
}

func (l *channelLog) trimLocked() {
	for len(l.kept) > l.keep.Size || l.keep.Bytes > 0 && l.bytes > l.keep.Bytes {
		l.removeOldestLocked()
	}
}

// expireLocked removes the oldest events whose own TTL has passed.
func (l *channelLog) expireLocked(now time.Time) {
	for len(l.kept) > 0 {
		oldest := &l.kept[0]
		if oldest.Keep.TTL <= 0 || now.Sub(oldest.Time) < oldest.Keep.TTL {
			return
		}
		l.removeOldestLocked()
	}
}

func (l *channelLog) removeOldestLocked() {
	l.bytes -= len(l.kept[0].Data)
	l.kept[0] = broker.Entry{} // frees its data
	l.kept = l.kept[1:]
}

// appendMemberLocked applies a member entry and delivers it. A Join that repeats another is
// a duplicate, which changes nothing.
func (l *channelLog) appendMemberLocked(b *Broker, e broker.Entry) (at broker.Position, duplicate bool, err error) {
	m := l.byID[e.Member]
	switch e.Kind {
	case broker.Join:
		switch {
		case m != nil && m.Owner == e.Owner:
			return broker.Position{Epoch: l.revision.Epoch, Offset: m.Since}, true, nil
		case m != nil:
			return broker.Position{}, false, broker.ErrMemberExists
		case l.wasAdoptedLocked(e.Member, e.Owner, time.Now()):
			return broker.Position{}, false, broker.ErrNotOwner
		}
	case broker.Adopt:
		if m == nil || m.Owner != e.OldOwner {
			return broker.Position{}, false, broker.ErrNotOwner
		}
	default:
		if m == nil || m.Owner != e.Owner {
			return broker.Position{}, false, broker.ErrNotOwner
		}
	}
	e.Time = time.Now()
	e.Prev = l.revision.Offset
	l.revision.Offset++
	e.At = l.revision
	l.applyLocked(b, m, e)
	l.deliverLocked(e)
	return e.At, false, nil
}

func (l *channelLog) applyLocked(b *Broker, m *broker.Member, e broker.Entry) {
	switch e.Kind {
	case broker.Join:
		m = &broker.Member{
			ID:     e.Member,
			Owner:  e.Owner,
			Node:   b.node,
			User:   e.User,
			Data:   e.Data,
			State:  e.State,
			Since:  e.At.Offset,
			Joined: e.Joined,
		}
		l.members = append(l.members, m)
		l.byID[m.ID] = m
		l.on = l.on || e.Data != nil
	case broker.Update:
		m.Data = e.Data
		m.State = e.State
	case broker.Adopt:
		lease := max(time.Duration(b.lease.Load()), b.cluster.leaseOf(m.Node))
		l.adopted = append(l.adopted, adoption{
			member: m.ID,
			owner:  m.Owner,
			until:  e.Time.Add(2 * lease),
		})
		m.Owner = e.Owner
		m.Node = b.node
	case broker.Leave:
		delete(l.byID, m.ID)
		m.Data = nil
		m.State = nil
		if len(l.byID) == 0 {
			l.members = nil
			l.on = false
		} else if len(l.members) > 32 && len(l.byID) < len(l.members)/2 {
			l.members = slices.DeleteFunc(l.members, func(m *broker.Member) bool { return !l.isMember(m) })
		}
	}
}

// isMember reports whether an element of l.members has not left.
func (l *channelLog) isMember(m *broker.Member) bool { return l.byID[m.ID] == m }

func (l *channelLog) wasAdoptedLocked(member, owner string, now time.Time) bool {
	l.adopted = slices.DeleteFunc(l.adopted, func(a adoption) bool { return !now.Before(a.until) })
	return slices.ContainsFunc(l.adopted, func(a adoption) bool { return a.member == member && a.owner == owner })
}

// removeNode appends the Leave of every member that depends on a node's lease.
func (l *channelLog) removeNode(c *Cluster, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range slices.Clone(l.members) {
		if m.Node != node || !l.isMember(m) {
			continue
		}
		e := broker.Entry{
			Kind:   broker.Leave,
			Member: m.ID,
			Owner:  m.Owner,
		}
		// A Leave does not use the node, and cannot fail, because the owner is right.
		_, _, _ = l.appendMemberLocked(nil, e)
	}
	c.dropIfUnusedLocked(l)
}
