package pushy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// Event is an event that is to be published.
type Event struct {
	Channel string // in any case
	Name    string
	// Data is encoded once, as encoding/json does, a json.RawMessage without its blanks.
	Data any
	// Except are the ids of at most 64 connections that do not receive the event, such
	// as the one whose command publishes it.
	Except []string
	// ID, if it is not empty, makes a repetition safe: an event with the same ID is
	// published once in a channel within 20 minutes, by whatever Server, and the
	// Receipt of a repetition is that of the first. It has at most 128 bytes.
	ID string
}

// Receipt is what became of an event.
type Receipt struct {
	// Receivers says whether anybody is subscribed to the channel.
	Receivers broker.Receivers
	// Duplicate reports that an event with the same ID was published before.
	Duplicate bool
}

const (
	maxExcept    = 64  // as package broker encodes
	maxEventID   = 128 // bytes
	publishError = "pushy: publish: "
)

// Publish sends an event to every subscriber of a channel, on all nodes. It is
// PublishEvent without the rest of its options and without a Receipt.
func (s *Server) Publish(ctx context.Context, channel, event string, data any) error {
	_, err := s.PublishEvent(ctx, Event{
		Channel: channel,
		Name:    event,
		Data:    data,
	})
	return err
}

// PublishEvent sends an event to every subscriber of its channel, on all nodes. When
// it returns nil the event is queued for every subscriber of this process, and for
// those of other nodes as far as the Broker promises; while the Broker is away, for
// this process alone, in at most 10,000 channels, whose subscribers on other nodes receive
// pushy:resync later. After an error that wraps broker.ErrUncertain the event may have been
// published: with an ID it can be repeated. The error says which name or value is not allowed, is the
// Broker's (broker.ErrTooLarge for what it can never take), or ErrClosed after Shutdown.
func (s *Server) PublishEvent(ctx context.Context, e Event) (Receipt, error) {
	lower, err := s.channelName(e.Channel)
	if err != nil {
		return Receipt{}, fmt.Errorf(publishError+"channel name %w", err)
	}
	if err := s.eventName(e.Name); err != nil {
		return Receipt{}, fmt.Errorf(publishError+"event name %w", err)
	}
	if len(e.Except) > maxExcept {
		return Receipt{}, fmt.Errorf(publishError+"Except has %d connections, at most %d are allowed", len(e.Except), maxExcept)
	}
	if len(e.ID) > maxEventID {
		return Receipt{}, fmt.Errorf(publishError+"ID has %d bytes, at most %d are allowed", len(e.ID), maxEventID)
	}
	raw, err := jsvalue.Encode(e.Data)
	if err != nil {
		return Receipt{}, fmt.Errorf("pushy: %w", err)
	}
	return s.publish(ctx, lower, broker.Entry{
		Kind:   broker.Event,
		Event:  e.Name,
		Data:   raw,
		Except: slices.Clone(e.Except), // a broker may keep it
		ID:     e.ID,
	})
}

// publish appends a checked event.
func (s *Server) publish(ctx context.Context, channel string, e broker.Entry) (Receipt, error) {
	appended, err := s.hub.Publish(ctx, channel, e)
	if errors.Is(err, hub.ErrClosed) {
		return Receipt{}, ErrClosed
	}
	if err != nil {
		return Receipt{}, fmt.Errorf(publishError+"%w", err)
	}
	return Receipt{
		Receivers: appended.Receivers,
		Duplicate: appended.Duplicate,
	}, nil
}
