package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/calls"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

// Event is an event to publish on one or several channels.
type Event struct {
	Channels []string // case-insensitive; at most 100
	Name     string
	// Data is encoded once, as encoding/json does, and nil as {}. A json.RawMessage is sent
	// without its whitespace.
	Data any
	// Except has the ids of connections that do not receive the event, such as the one of the
	// page that has caused it. At most 64 ids of 1 to 128 bytes are allowed.
	Except []string
	// ID makes it safe to publish the event again, in each of its channels, also in another
	// call. See pushy.Event. Events that are published once do not need it: the id of the
	// call makes the tries of the call safe. "" means that the event has no ID.
	ID string
	// Latest and Droppable permit the servers to send fewer events to a slow client: with
	// Latest, a key, only the newest event of its key, and no Droppable events. See pushy.Event.
	Latest    string
	Droppable bool
}

// Batch is what one call of PublishAll publishes.
type Batch struct {
	// Events are at most 100 events, with at most 1,000 channels in all.
	Events []Event
	// ID is the id of the call: 1 to 64 of A-Z a-z 0-9 _ -. A second call with the same ID and
	// the same content publishes nothing and has the result of the first; with other
	// content it is refused with ErrConflict. Default: a random one.
	ID string
	// Count asks all nodes for the number of subscribers of each channel.
	Count bool
}

// Receipt is the result of publishing an event on one channel.
type Receipt struct {
	// Received reports whether the channel had a subscriber, or the broker cannot tell.
	Received bool
	// Subscribers is the number of subscribers of the channel, if Batch.Count is set, without
	// those of the nodes in Published.Silent.
	Subscribers int
	// Duplicate reports whether an event with the same Event.ID was published before.
	Duplicate bool
	// Position is the place of the event in the channel's log. It is zero if the channel does
	// not keep events.
	Position broker.Position
	// Err says why the event was not published on this channel. It is nil if it was. Only a
	// PublishAll that returns an error has receipts with an Err.
	Err *Error
}

// Published is the result of PublishAll.
type Published struct {
	// Events has, for each event of the batch and by the name of the channel in lower case,
	// the receipts.
	Events []map[string]Receipt
	// Silent has the ids of the nodes that did not answer in time, if Batch.Count is set.
	Silent []string
}

// Publish sends an event to all subscribers of a channel. data is encoded with encoding/json.
// PublishEvent and PublishAll do the same with more options.
//
// For errors.Is and errors.As, the error wraps an *Error if the server has refused the event,
// ErrOutcomeUnknown, the error of ctx, or a network error. If an argument is not valid, the
// error says which one, and nothing is sent.
func (c *Client) Publish(ctx context.Context, channel, event string, data any) error {
	_, err := c.PublishEvent(ctx, Event{
		Channels: []string{channel},
		Name:     event,
		Data:     data,
	})
	return err
}

// PublishEvent publishes one event. The receipts are those of its channels, by their names in
// lower case. The errors are those of PublishAll.
func (c *Client) PublishEvent(ctx context.Context, e Event) (map[string]Receipt, error) {
	published, err := c.PublishAll(ctx, Batch{Events: []Event{e}})
	if len(published.Events) == 0 {
		return nil, err
	}
	return published.Events[0], err
}

// PublishAll publishes the events of a batch in their order. The server checks all of them
// before it publishes the first: if one is not valid, none is published, and the error names
// the place. If the broker fails in the middle, PublishAll tries again, and only the rest is
// sent. If that does not succeed in time, it returns an error, together with the receipts if a
// server has sent any: those without an Err are published.
//
// The errors are those of Publish.
func (c *Client) PublishAll(ctx context.Context, b Batch) (Published, error) {
	body := calls.Publish{
		Events: make([]calls.Event, len(b.Events)),
		Count:  b.Count,
	}
	for i, e := range b.Events {
		var err error
		if body.Events[i], err = e.body(); err != nil {
			return Published{}, failed("publish", fmt.Errorf("events[%d].%w", i, err))
		}
	}
	if len(b.Events) == 0 {
		return Published{}, failed("publish", errors.New("the batch has no events"))
	}
	var answer calls.Published // of the last try that had one
	var done calls.Published   // what the tries so far have published
	err := change(ctx, c, "publish", b.ID, body, func(now calls.Published) {
		done = merged(done, now)
		answer = now
	})
	if err != nil {
		return published(done), err
	}
	if len(answer.Events) != len(b.Events) {
		err = failed("publish", fmt.Errorf("the answer has %d events instead of %d", len(answer.Events), len(b.Events)))
	}
	return published(answer), err
}

// body checks what encoding to JSON could change, and the names. The server checks everything.
func (e Event) body() (calls.Event, error) {
	if len(e.Channels) == 0 {
		return calls.Event{}, errors.New("channels: must not be empty")
	}
	for i, channel := range e.Channels {
		if _, err := names.Channel(channel); err != nil {
			return calls.Event{}, fmt.Errorf("channels[%d]: %w", i, err)
		}
	}
	if err := names.Event(e.Name); err != nil {
		return calls.Event{}, fmt.Errorf("event: %w", err)
	}
	b := calls.Event{
		Channels:  e.Channels,
		Event:     e.Name,
		Except:    e.Except,
		ID:        e.ID,
		Latest:    e.Latest,
		Droppable: e.Droppable,
	}
	if err := validUTF8("id", e.ID, "latest", e.Latest, "except", strings.Join(e.Except, "")); err != nil {
		return calls.Event{}, err
	}
	if e.Data != nil {
		data, err := jsvalue.Encode(e.Data)
		if err != nil {
			return calls.Event{}, fmt.Errorf("data: %w", err)
		}
		b.Data = data
	}
	return b, nil
}

// merged returns the answer of a later try, with what earlier tries have published: a broker that
// has failed in the meantime cannot tell.
func merged(earlier, later calls.Published) calls.Published {
	if len(later.Events) == 0 {
		return earlier
	}
	if len(later.Events) != len(earlier.Events) {
		return later
	}
	for i, event := range earlier.Events {
		for channel, r := range event.Channels {
			if now, ok := later.Events[i].Channels[channel]; ok && r.Fault == nil && now.Fault != nil {
				later.Events[i].Channels[channel] = r
			}
		}
	}
	return later
}

func published(a calls.Published) Published {
	p := Published{Silent: a.Silent}
	for _, event := range a.Events {
		receipts := make(map[string]Receipt, len(event.Channels))
		for channel, r := range event.Channels {
			receipt := Receipt{
				Received:    r.Received,
				Subscribers: int(r.Subscribers),
				Duplicate:   r.Duplicate,
				Position:    broker.Position(r.Position),
			}
			if r.Fault != nil {
				receipt.Err = &Error{
					Status:  status(r.Fault.Code),
					Code:    r.Fault.Code,
					Message: r.Fault.Message,
				}
			}
			receipts[channel] = receipt
		}
		p.Events = append(p.Events, receipts)
	}
	return p
}

// status returns the HTTP status that a code stands for.
func status(code string) int {
	if n, err := strconv.Atoi(code); err == nil {
		return n
	}
	return http.StatusServiceUnavailable
}

// validUTF8 checks strings, each after its name, because encoding to JSON would replace bytes
// that are not UTF-8, and the string would be another one.
func validUTF8(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if !utf8.ValidString(pairs[i+1]) {
			return fmt.Errorf("%s: must be valid UTF-8", pairs[i])
		}
	}
	return nil
}
