package nats

import (
	"cmp"
	"slices"
	"time"
)

// tally updates the counters for a record that is added, or removed if count is -1.
func (m *channelMembers) tally(r *record, count int) {
	if r.joinedWithData && !r.left() {
		m.joinedWithData += count
	}
	if r.onAt > 0 || r.past.joinedWithData || r.joinedWithData && r.left() {
		m.hints += count
	}
}

// membership returns the membership that a Leave has ended.
func (r *record) membership() past {
	return past{
		since:          r.member.Since,
		left:           r.seq,
		joinedWithData: r.joinedWithData,
	}
}

// on computes State.On: whether a member with data has joined since the channel last had no
// members. It depends only on what is stored, so that a node which has just read the stream
// has the same result as one that has followed it for a long time.
//
// The channel has had members without interruption since the lowest sequence that can be
// reached through overlapping memberships. State.On is set if a member has joined with data
// since then, or if a record proves that it was set since then (record.onAt).
func (m *channelMembers) on() bool { return m.onWithout(nil) }

func (m *channelMembers) onWithout(without map[*record]bool) bool {
	if m.joinedWithData > 0 {
		return true
	}
	if len(m.members) == 0 || m.hints == 0 {
		return false
	}
	var ended []past
	latest := uint64(0) // the last sequence at which State.On was certainly set
	note := func(r *record) {
		latest = max(latest, r.onAt)
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
		if p.joinedWithData {
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

// maxTried is the maximum number of records that are tested separately.
const maxTried = 64

// removable returns the records of members that left before a time, except for those on which
// State.On depends, and those with an adoption that must still be remembered.
func (m *channelMembers) removable(before time.Time) []*record {
	var old []*record
	for _, r := range m.left {
		if r.taken.Before(before) && !r.remembers(time.Now()) {
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
	// State.On depends on some of them, least likely on the oldest.
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
