package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// ErrNotKept is returned for the history of a channel that keeps no events
// (ChannelOptions.Keep).
var ErrNotKept = errors.New("pushy: the channel keeps no events")

// Position returns the position of the last event that was published to a channel that keeps
// events, on any node. A page that the host renders passes its String to the browser client,
// which then receives all later events. To miss nothing, call Position first, then read the
// data for the page from the database; and publish an event after its change is committed.
// Then each event is in the page's data, or the client receives it, or both.
//
// The errors are ErrNotKept and those of the Broker.
func (s *Server) Position(ctx context.Context, channel string) (broker.Position, error) {
	lower, err := s.channelName(channel)
	if err != nil {
		return broker.Position{}, fmt.Errorf("pushy: position: channel name %w", err)
	}
	p, err := s.hub.Place(ctx, lower)
	return p, historyError("position", err)
}

// HistoryOptions select the kept events that Server.History returns. The zero value selects
// the newest ones.
type HistoryOptions struct {
	// Before and After are offsets in the present epoch of the channel, which is that of
	// Past.Top: an offset of an earlier Position means something else if its epoch is another.
	// Before selects the newest events with a lower offset, After the oldest events with a
	// higher one. At most one of them is set; 0 is not set.
	Before uint64
	After  uint64
	// Limit is the maximum number of events, at most 500. Default 50. Fewer are returned if
	// their data has more than 256 KiB.
	Limit int
}

// PastEvent is an event that a channel keeps.
type PastEvent struct {
	Name     string
	Data     json.RawMessage
	Position broker.Position
	Time     time.Time // when it was published, by the clock of the Broker
}

// Past is the result of Server.History.
type Past struct {
	Events []PastEvent     // oldest first
	Top    broker.Position // the position of the last event that was published
	More   bool            // more events are kept in the direction of Before or After
}

// History returns events that a channel keeps, from any node. The errors are ErrNotKept and
// those of the Broker.
func (s *Server) History(ctx context.Context, channel string, o HistoryOptions) (Past, error) {
	lower, err := s.channelName(channel)
	switch {
	case err != nil:
		return Past{}, fmt.Errorf("pushy: history: channel name %w", err)
	case o.Before > 0 && o.After > 0:
		return Past{}, errors.New("pushy: history: Before and After are both set")
	case o.Limit < 0 || o.Limit > pushyjson.MaxPast:
		return Past{}, fmt.Errorf("pushy: history: Limit is %d, at most %d is allowed", o.Limit, pushyjson.MaxPast)
	}
	page, err := s.hub.History(ctx, lower, pushyjson.Range(o.Before, o.After, o.Limit))
	if err != nil {
		return Past{}, historyError("history", err)
	}
	past := Past{
		Top:  page.Top,
		More: page.More,
	}
	for _, e := range page.Entries {
		past.Events = append(past.Events, PastEvent{
			Name:     e.Event,
			Data:     e.Data,
			Position: e.At,
			Time:     e.Time,
		})
	}
	return past, nil
}

// Forget removes all events that a channel keeps, for example because a user has the right to
// have them deleted. The subscribers receive pushy:resync with the reason "epoch", and a
// client that returns with an earlier position receives none of the events that it missed,
// but the same reason. The errors are ErrNotKept and those of the Broker.
func (s *Server) Forget(ctx context.Context, channel string) error {
	lower, err := s.channelName(channel)
	if err != nil {
		return fmt.Errorf("pushy: forget: channel name %w", err)
	}
	return historyError("forget", s.hub.Forget(ctx, lower))
}

func historyError(verb string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, hub.ErrNotKept):
		return ErrNotKept
	}
	return fmt.Errorf("pushy: %s: %w", verb, err)
}

// historyUnavailable logs that a client has not received kept events.
func (s *Server) historyUnavailable(channel string, err error) {
	s.notices.Warn("the history of a channel cannot be read", "",
		slog.String("channel", channel),
		slog.String("error", err.Error()))
}

// replayBytes returns the largest size of the events that a client is sent when it
// subscribes.
func replayBytes(connBuffer int) int {
	const most = 256 << 10
	return min(most, (limit.Or(connBuffer, math.MaxInt)-1)/2)
}
