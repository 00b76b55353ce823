package backend

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/calls"
)

// HistoryOptions select the kept events that History returns. The zero value selects the newest
// ones.
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

// Past is the result of History.
type Past struct {
	Events []PastEvent     // oldest first
	Top    broker.Position // the position of the last event that was published
	More   bool            // more events are kept in the direction of Before or After
}

// History returns events that a channel keeps. The error is ErrNotFound if the channel keeps no
// events, and otherwise as for ListChannels.
func (c *Client) History(ctx context.Context, channel string, o HistoryOptions) (Past, error) {
	if err := validUTF8("channel", channel); err != nil {
		return Past{}, failed("history", err)
	}
	answer, err := query[calls.HistoryAnswer](ctx, c, "history", calls.History{
		Channel: channel,
		Before:  calls.Optional(o.Before),
		After:   calls.Optional(o.After),
		Limit:   calls.Optional(o.Limit),
	})
	past := Past{
		Top:  broker.Position(answer.Position),
		More: answer.More,
	}
	for _, e := range answer.Events {
		past.Events = append(past.Events, PastEvent{
			Name: e.Event,
			Data: e.Data,
			Position: broker.Position{
				Epoch:  answer.Epoch,
				Offset: e.Offset,
			},
			Time: time.UnixMilli(e.Time),
		})
	}
	return past, err
}

// Position returns the position of the last event that was published to a channel that keeps
// events. A page that is rendered passes its String to the browser client, which then receives all
// later events. To miss nothing, call Position first, then read the data for the page from the
// database; and publish an event after its change is committed. The errors are those of History.
func (c *Client) Position(ctx context.Context, channel string) (broker.Position, error) {
	if err := validUTF8("channel", channel); err != nil {
		return broker.Position{}, failed("position", err)
	}
	answer, err := query[calls.PositionAnswer](ctx, c, "position", calls.PositionOf{Channel: channel})
	return broker.Position(answer.Position), err
}
