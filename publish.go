package pushy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/calls"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// Event is an event to publish.
type Event struct {
	Channel string // case-insensitive
	Name    string
	// Data is encoded once, as encoding/json does. A json.RawMessage is sent without its
	// whitespace.
	Data any
	// Except has the ids of connections that do not receive the event, such as the one
	// whose command publishes it. At most 64 ids of 1 to 128 bytes are allowed.
	Except []string
	// ID makes it safe to publish the event again. Of the events with the same ID that any
	// Server publishes in a channel within 20 minutes, only the first is published; the
	// others have the Receipt of the first, with Duplicate set. An ID has at most 128
	// bytes. "" means that the event has no ID. An event with an ID is not published while
	// the Broker is away, and the error wraps broker.ErrAway.
	ID string
	// Latest is a key of up to 128 bytes that permits the nodes to send a slow client only the
	// newest event of the channel with this key: while at least 8 messages are queued for a
	// connection, an older one that is queued is removed when this one is queued behind them.
	// "" means that the event has no key. In a channel that keeps events (ChannelOptions.Keep),
	// Latest and Droppable are an error. A client that has not received all events is sent
	// pushy:dropped with their number (PROTOCOL.md, section 2), and is not disconnected as long
	// as the rest fits into Limits.ConnBuffer.
	Latest string
	// Droppable permits the nodes not to send this event to a client while more than a quarter
	// of Limits.ConnBuffer is queued for it, unless the event replaces one with the same
	// Latest. The client is sent pushy:dropped.
	Droppable bool
}

// Receipt is the result of publishing an event.
type Receipt struct {
	// Receivers says whether the channel has subscribers, as far as the Broker knows.
	Receivers broker.Receivers
	// Duplicate reports whether an event with the same ID was published before.
	Duplicate bool
	// Position is the place of the event in the channel's log. It is zero for an event that
	// the Broker does not keep.
	Position broker.Position
}

const publishError = "pushy: publish: "

// Publish sends an event to every subscriber of a channel, on all nodes. PublishEvent does
// the same with more options and returns a Receipt.
func (s *Server) Publish(ctx context.Context, channel, event string, data any) error {
	_, err := s.PublishEvent(ctx, Event{
		Channel: channel,
		Name:    event,
		Data:    data,
	})
	return err
}

// PublishEvent sends an event to every subscriber of its channel, on all nodes. When it
// returns nil, the event is queued for every subscriber on this node and has been passed to
// the Broker, whose documentation says what it guarantees for other nodes. While the Broker
// is away, only the subscribers on this node receive the event; those on other nodes receive
// pushy:resync later, for at most 10,000 channels; an event with an ID, or of a channel that
// keeps events, is not published then, and the error wraps broker.ErrAway. After an error
// that wraps broker.ErrUncertain the event may have been published; if it has an ID, it can
// be published again without being delivered twice. Otherwise PublishEvent returns an error
// if a name or value is not allowed, the error of the Broker (broker.ErrTooLarge for an event
// that it can never accept, and for one over Limits.TriggerBytes in a channel that keeps
// events), ErrOverloaded while the Server lacks memory (Limits.Memory), and ErrClosed after
// Shutdown.
func (s *Server) PublishEvent(ctx context.Context, e Event) (Receipt, error) {
	p, err := s.pairOf(e)
	if err != nil {
		return Receipt{}, fmt.Errorf(publishError+"%w", err)
	}
	return s.publish(ctx, p.channel, p.entry)
}

// pairOf checks an event.
func (s *Server) pairOf(e Event) (pair, error) {
	lower, err := s.channelName(e.Channel)
	if err != nil {
		return pair{}, fmt.Errorf("channel: %w", err)
	}
	s.noteCase(e.Channel, lower)
	p := pair{
		channel: lower,
		entry: broker.Entry{
			Kind:      broker.Event,
			Event:     e.Name,
			Except:    slices.Clone(e.Except), // a broker may keep it
			ID:        e.ID,
			Latest:    e.Latest,
			Droppable: e.Droppable,
		},
	}
	if field, err := s.checkEntry(&p.entry); err != nil {
		return pair{}, fmt.Errorf("%s: %w", field, err)
	}
	p.entry.Data, err = jsvalue.Encode(e.Data)
	return p, err
}

// checkEntry checks an event, except its channel and its data. The error is about the field, which
// has the name that it has in the signed API.
func (s *Server) checkEntry(e *broker.Entry) (field string, err error) {
	if err := s.eventName(e.Event); err != nil {
		return "event", err
	}
	return calls.CheckEvent(e.ID, e.Latest, e.Except)
}

// checkSize returns an error for data over Limits.TriggerBytes.
func (s *Server) checkSize(data []byte) error {
	if most := s.opts.Limits.TriggerBytes; most > 0 && len(data) > most {
		return fmt.Errorf("has %d bytes, at most %d are allowed (Options.Limits.TriggerBytes)", len(data), most)
	}
	return nil
}

// publish appends a checked event.
func (s *Server) publish(ctx context.Context, channel string, e broker.Entry) (Receipt, error) {
	if s.memory.overloaded.Load() {
		return Receipt{}, fmt.Errorf(publishError+"%w", ErrOverloaded)
	}
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
		Position:  appended.At,
	}, nil
}
