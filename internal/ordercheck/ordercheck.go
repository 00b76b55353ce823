// Package ordercheck checks what clients receive of a channel that keeps events: the rules of
// PROTOCOL.md, section 14. A Log is what was published, and each client has a Follower. It is
// used by the tests of several modules.
package ordercheck

import (
	"encoding/json"
	"fmt"
	"sync"

	"github.com/gopushy/pushy/broker"
)

// Log is the log of a channel as its publishers and clients see it. All of them must agree on
// the event at each position.
type Log struct {
	mu     sync.Mutex
	events map[broker.Position]string // the data of each event
	at     map[string]broker.Position // the position of each event whose data is unique
}

// Published records an event. The data of an event is unique in its log.
func (l *Log) Published(at broker.Position, data string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seeLocked(at, data)
}

func (l *Log) seeLocked(at broker.Position, data string) error {
	if l.events == nil {
		l.events = map[broker.Position]string{}
		l.at = map[string]broker.Position{}
	}
	old, known := l.events[at]
	if known {
		if old != data {
			return fmt.Errorf("two events have the position %s: %s and %s", at, old, data)
		}
		return nil
	}
	if first, twice := l.at[data]; twice {
		return fmt.Errorf("the event %s has two positions: %s and %s", data, first, at)
	}
	l.events[at] = data
	l.at[data] = at
	return nil
}

// Follower is one client of the channel, over all its connections. Its methods are not safe
// for concurrent use. They return an error if a message breaks a rule.
type Follower struct {
	log *Log
	// At is the position that the client sends as since. It is nil until the client has one.
	At *broker.Position
	// Breaks has the reasons of all breaks: of each success that is not recovered and of each
	// pushy:resync.
	Breaks []string
	Events int // the number of events that were received
	// Replayed is the number of those that were a replay.
	Replayed int

	left int // the number of events of the replay that have not arrived yet
	// recovered means that the replay continues At. Otherwise it follows replayed.
	recovered bool
	replayed  uint64
	after     broker.Position // the position after the replay
}

// Follower returns a client that has no position yet.
func (l *Log) Follower() *Follower { return &Follower{log: l} }

// Success handles the data of a pushy:subscription-success.
func (f *Follower) Success(data json.RawMessage) error {
	var s struct {
		Epoch     string
		Offset    uint64
		Recovered *bool
		Reason    string
		Replay    int
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	place := broker.Position{
		Epoch:  s.Epoch,
		Offset: s.Offset,
	}
	f.after = place
	f.left = s.Replay
	f.recovered = s.Recovered != nil && *s.Recovered
	f.replayed = 0
	switch {
	case !broker.ValidEpoch(s.Epoch):
		return fmt.Errorf("a success with the epoch %q: %s", s.Epoch, data)
	case (f.At != nil) != (s.Recovered != nil):
		return fmt.Errorf("recovered must be present if and only if a position was sent: %s", data)
	case f.recovered && s.Reason != "":
		return fmt.Errorf("a reason although everything is recovered: %s", data)
	case f.recovered && f.At.Epoch != s.Epoch:
		return fmt.Errorf("recovered in another epoch than %s: %s", f.At.Epoch, data)
	case f.recovered && f.At.Offset+uint64(s.Replay) != s.Offset:
		return fmt.Errorf("the replay does not lead from %s to %s: %s", f.At, place, data)
	case s.Recovered != nil && !f.recovered:
		if s.Reason == "" {
			return fmt.Errorf("not recovered, without a reason: %s", data)
		}
		f.Breaks = append(f.Breaks, s.Reason)
	}
	if f.left == 0 {
		f.At = &place
	}
	return nil
}

// Event handles an event of the channel.
func (f *Follower) Event(offset uint64, data string) error {
	if f.At == nil && f.left == 0 {
		return fmt.Errorf("event %d before the success", offset)
	}
	f.Events++
	at := broker.Position{
		Epoch:  f.after.Epoch,
		Offset: offset,
	}
	switch {
	case f.left > 0 && !f.recovered:
		if offset <= f.replayed || offset > f.after.Offset {
			return fmt.Errorf("event %d in a replay up to %s, after %d", offset, f.after, f.replayed)
		}
		f.replayed = offset
	case f.At.Offset+1 != offset:
		return fmt.Errorf("event %d after %s", offset, f.At)
	default:
		*f.At = at
	}
	if f.left > 0 {
		f.Replayed++
		f.left--
		if f.left == 0 {
			end := f.after
			f.At = &end
			if offset != end.Offset {
				return fmt.Errorf("the replay ends with %d and not with %s", offset, end)
			}
		}
	}
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	return f.log.seeLocked(at, data)
}

// Resync handles the data of a pushy:resync.
func (f *Follower) Resync(data json.RawMessage) error {
	var r struct {
		Reason, Epoch string
		Offset        uint64
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	switch {
	case r.Reason == "" || !broker.ValidEpoch(r.Epoch):
		return fmt.Errorf("a resync without a reason or an epoch: %s", data)
	case f.left > 0:
		return fmt.Errorf("a resync within a replay: %s", data)
	}
	f.Breaks = append(f.Breaks, r.Reason)
	f.At = &broker.Position{
		Epoch:  r.Epoch,
		Offset: r.Offset,
	}
	f.after = *f.At
	return nil
}
