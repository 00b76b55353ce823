package nats

import (
	"cmp"
	"slices"
	"time"
)

// tally counts a record that is added, or with -1 removed.
func (m *room) tally(r *record, count int) {
	if r.brought && !r.left() {
		m.brought += count
	}
	if r.sawOn > 0 || r.past.brought || r.brought && r.left() {
		m.hints += count
	}
}

// membership is that which a Leave has ended.
func (r *record) membership() past {
	return past{
		since:   r.member.Since,
		left:    r.seq,
		brought: r.brought,
	}
}

// on computes State.On: whether a member with data has joined since the channel last
// had no members. It depends on what is stored only, so that a node that has just read
// the stream has the same answer as one that has followed it for long.
//
// A channel has had members without a break since the least sequence that a chain of
// overlapping memberships leads back to. It is on if somebody brought data since, or if
// the node of a member that joined without data has seen it on since.
func (m *room) on() bool { return m.onWithout(nil) }

func (m *room) onWithout(without map[*record]bool) bool {
	if m.brought > 0 {
		return true
	}
	if len(m.members) == 0 || m.hints == 0 {
		return false
	}
	var ended []past
	latest := uint64(0) // at which it was on, for sure
	note := func(r *record) {
		latest = max(latest, r.sawOn)
		if r.past.left > 0 {
			ended = append(ended, r.past)
		}
	}
	since := ^uint64(0)
	for _, r := range m.members {
		since = min(since, r.member.Since)
		note(r)
	}
	for _, r := range m.left {
		if without[r] {
			continue
		}
		note(r)
		ended = append(ended, r.membership())
	}
	for _, p := range ended {
		if p.brought {
			latest = max(latest, p.since)
		}
	}
	slices.SortFunc(ended, func(x, y past) int { return cmp.Compare(y.left, x.left) })
	for _, p := range ended {
		if p.left < since {
			break
		}
		since = min(since, p.since)
	}
	return latest >= since
}

// maxTried bounds how many records are looked at one by one.
const maxTried = 64

// useless returns the records of those that left before a time, as far as State.On does
// not depend on them.
func (m *room) useless(before time.Time) []*record {
	var old []*record
	for _, r := range m.left {
		if r.taken.Before(before) {
			old = append(old, r)
		}
	}
	on := m.on()
	without := map[*record]bool{}
	for _, r := range old {
		without[r] = true
	}
	if len(old) == 0 || m.onWithout(without) == on {
		return old
	}
	// Some are needed. The oldest are the least likely to be.
	slices.SortFunc(old, func(x, y *record) int { return cmp.Compare(x.seq, y.seq) })
	clear(without)
	var list []*record
	for _, r := range old[:min(len(old), maxTried)] {
		without[r] = true
		if m.onWithout(without) == on {
			list = append(list, r)
		} else {
			delete(without, r)
		}
	}
	return list
}
