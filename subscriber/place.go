package subscriber

import (
	"cmp"
	"strings"

	"github.com/gopushy/pushy/broker"
)

// placeLocked sets the place from a success.
func (s *Subscription) placeLocked(f *fields, since broker.Position) {
	s.epoch = f.Epoch
	s.replay = f.Replay
	s.after = broker.Position{
		Epoch:  f.Epoch,
		Offset: f.Offset,
	}
	gap := &Event{
		Kind:   KindGap,
		Reason: cmp.Or(f.Reason, "off"),
	}
	switch {
	case f.Epoch == "":
		s.place = broker.Position{}
		if s.started || since.Epoch != "" {
			s.pushLocked(gap)
		}
	case since.Epoch != "" && !f.Recovered:
		s.place = broker.Position{}
		gap.Position = s.after
		gap.Position.Offset -= min(s.after.Offset, uint64(f.Replay))
		if !s.pushLocked(gap) {
			s.place = since // the next answer says the same
			return
		}
	}
	s.replayedLocked()
	if !s.started && since.Epoch == "" {
		s.handled = s.place
	}
}

// replayedLocked moves the place behind the replay when that is complete.
func (s *Subscription) replayedLocked() {
	if s.replay <= 0 && s.epoch != "" {
		s.place = s.after
	}
}

// receiveLocked handles an event of the channel.
func (s *Subscription) receiveLocked(m *message) {
	if s.status != live {
		return
	}
	switch m.Event {
	case "pushy:resync":
		gap := &Event{
			Kind:   KindGap,
			Reason: m.fields.Reason,
		}
		if m.fields.Epoch == "" {
			s.pushLocked(gap)
			return
		}
		gap.Position = broker.Position{
			Epoch:  m.fields.Epoch,
			Offset: m.fields.Offset,
		}
		if !s.pushLocked(gap) {
			return // when the Subscription continues, the server says it again
		}
		s.epoch = m.fields.Epoch
		s.replay = 0
		s.after = gap.Position
		s.place = s.after
	case "pushy:dropped":
		s.pushLocked(&Event{
			Kind:   KindGap,
			Reason: "dropped",
			Count:  m.fields.Count,
		})
	case "pushy:presence-add", "pushy:presence-quit", "pushy:presence-update", "pushy:presence-sync":
		if s.want {
			s.memberLocked(m)
		}
	default:
		if !strings.HasPrefix(m.Event, "pushy:") { // such as those of a later version
			s.publishedLocked(m)
		}
	}
}

func (s *Subscription) publishedLocked(m *message) {
	e := &Event{
		Kind: KindPublished,
		Name: m.Event,
		Data: m.Data,
		From: m.From,
	}
	if m.Offset == 0 || s.epoch == "" {
		s.pushLocked(e)
		return
	}
	e.Position = broker.Position{
		Epoch:  s.epoch,
		Offset: m.Offset,
	}
	if s.replay > 0 {
		s.replay--
	}
	if s.place.Epoch != s.epoch || m.Offset > s.place.Offset {
		before := s.place
		s.place = e.Position
		if !s.pushLocked(e) {
			s.place = before
			return
		}
	}
	if s.replay == 0 && s.after.Offset > s.place.Offset {
		s.replayedLocked()
	}
}
