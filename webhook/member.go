package webhook

import (
	"slices"

	"github.com/gopushy/pushy/broker"
)

type memberKey struct{ channel, id string }

// presence is a member as the receiver knows it.
type presence struct {
	joined   event
	identity string
	ids      []string // of the member, and of those that have taken its place
	records  int
	leaving  *waiting
}

func (v *view) enterLocked(l *logged, at broker.Position) {
	key := memberKey{l.Channel, l.ID}
	p := v.members[key]
	if p == nil && l.Identity != "" {
		if back := v.leaving[memberKey{l.Channel, l.Identity}]; len(back) > 0 {
			p = back[0]
			p.ids = append(p.ids, l.ID)
			v.members[key] = p
		}
	}
	if p == nil {
		p = &presence{
			identity: l.Identity,
			ids:      []string{l.ID},
			joined: event{
				ID:       at.String(),
				Event:    MemberJoined,
				Channel:  l.Channel,
				Member:   l.Member,
				MemberID: l.ID,
				User:     l.User,
				At:       l.at,
				Revision: at.Offset,
			},
		}
		v.members[key] = p
		v.emitLocked(p.joined, at)
	}
	l.member = p
	p.records++
	if p.leaving != nil {
		v.stayLocked(p)
	}
}

// stayLocked cancels the leave of a member that is back.
func (v *view) stayLocked(p *presence) {
	cancel(&p.leaving)
	v.notLeavingLocked(p)
}

func (v *view) notLeavingLocked(p *presence) {
	if p.identity == "" {
		return
	}
	key := memberKey{p.joined.Channel, p.identity}
	rest := slices.DeleteFunc(v.leaving[key], func(other *presence) bool { return other == p })
	if len(rest) == 0 {
		delete(v.leaving, key)
	} else {
		v.leaving[key] = rest
	}
}

func (v *view) exitLocked(l *logged, at broker.Position, when int64) {
	p := l.member
	p.records--
	if p.records > 0 {
		return
	}
	if p.identity != "" {
		key := memberKey{l.Channel, p.identity}
		v.leaving[key] = append(v.leaving[key], p)
	}
	p.leaving = v.laterLocked(at, func() {
		v.notLeavingLocked(p)
		for _, id := range p.ids {
			delete(v.members, memberKey{l.Channel, id})
		}
		e := p.joined
		e.ID += "-left"
		e.Event = MemberLeft
		e.At = when
		e.Revision = at.Offset
		e.Reason = l.ending.Reason
		if e.Reason == "" {
			e.Reason = reasonClosed
			if _, alive := v.nodes[l.owner]; !alive {
				e.Reason = reasonLost
			}
		}
		v.emitLocked(e, at)
	})
}
