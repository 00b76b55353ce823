package hub

import (
	"context"
	"errors"
	"fmt"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
)

// GapEvent is the name of the event with which the node From notifies the other nodes that
// a channel has had events which they did not receive.
const GapEvent = "pushy:gap"

// Publish appends an event to a channel. While the broker is away, events that are not to
// be kept are delivered to the members on this node only; when the broker can be reached
// again, the members on other nodes receive a Gap event. An event that a client has sent, which
// has a From, is not kept.
func (h *Hub) Publish(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if !h.publishes.Start() {
		return broker.Appended{}, ErrClosed
	}
	defer h.publishes.End()
	ctx, cancel := h.operation(ctx)
	defer cancel()
	ch := h.find(channel)
	here := ch != nil && ch.Subscribers() > 0
	if h.cfg.Keeps && e.From == "" {
		if err := h.setKeep(ch, channel, &e); err != nil {
			return broker.Appended{}, err
		}
	}
	appended, err := h.cfg.Broker.Append(ctx, channel, e)
	notAppended := errors.Is(err, broker.ErrAway) && !errors.Is(err, broker.ErrUncertain)
	// Nobody can tell whether an event with an ID was appended before.
	if notAppended && e.Keep.Size <= 0 && e.ID == "" {
		if !h.backlog.addGap(channel) {
			return appended, fmt.Errorf("%w, and %d channels have already had events since then", err, maxGaps)
		}
		h.Deliver(channel, e)
		appended = broker.Appended{}
		err = nil
	}
	if err != nil {
		return appended, err
	}
	h.published.Add(1)
	if here {
		appended.Receivers = broker.Some
	}
	return appended, nil
}

// CheckEvent returns the error of Publish for an event that the properties of the channel do
// not allow.
func (h *Hub) CheckEvent(channel string, e broker.Entry) error {
	if !h.cfg.Keeps {
		return nil
	}
	return h.setKeep(h.find(channel), channel, &e)
}

// setKeep makes e an event that is kept if its channel keeps events.
func (h *Hub) setKeep(ch *Channel, channel string, e *broker.Entry) error {
	var policy Policy
	var err error
	if ch != nil {
		policy = ch.policy
	} else if policy, err = h.cfg.Policy(channel); err != nil {
		return err
	}
	e.Keep = policy.Keep
	switch {
	case e.Keep.Size <= 0:
	case e.Latest != "" || e.Droppable:
		return ErrKeptWhole
	case h.cfg.KeptBytes > 0 && len(e.Data) > h.cfg.KeptBytes:
		return fmt.Errorf("%w: its data has %d bytes, and the limit in channels that keep events is %d",
			broker.ErrTooLarge, len(e.Data), h.cfg.KeptBytes)
	}
	return nil
}

// Deliver implements broker.Sink. All entries reach the members through it.
func (h *Hub) Deliver(channel string, e broker.Entry) {
	ch := h.find(channel)
	if ch == nil {
		if r := h.reserved(channel); r != nil {
			r.Entry(e)
		}
		return
	}
	if e.Kind != broker.Event {
		ch.deliver(e)
		return
	}
	h.watchEvent(ch, &e)
	if e.At.Offset > 0 || ch.history != nil {
		ch.compareKeep(&e)
	}
	if e.At.Offset > 0 && ch.history != nil {
		ch.deliverKept(e)
		return
	}
	members, listeners := ch.audience()
	if !members && !listeners {
		return
	}
	event := Event{
		Kind:    Published,
		Channel: channel,
		Name:    e.Event,
		Data:    e.Data,
		From:    e.From,
	}
	if e.Event == GapEvent {
		if e.From == h.cfg.Node {
			return
		}
		ch.fan.Lock()
		defer ch.fan.Unlock()
		ch.compact()
		ch.gapLocked("", broker.Position{})
		return
	}
	var f *fanout.Frame
	if members {
		f = ch.eventFrame(&event, &e)
		ch.render(f)
		if e.From != "" {
			ch.renderSender(f, event)
		}
	}
	ch.fan.Lock()
	defer ch.fan.Unlock()
	if ch.listeners != nil {
		ch.listeners.published(e)
	}
	if f != nil {
		ch.compact()
		ch.broadcastLocked(f, e.Except)
	}
}

// Reset implements broker.Sink. If reason is "", no events have been lost.
func (h *Hub) Reset(channel string, s broker.State, reason string) {
	if ch := h.find(channel); ch != nil {
		ch.receive(arrival{
			state: &s,
			reset: reason,
		})
	} else if r := h.reserved(channel); r != nil && r.Reset != nil {
		r.Reset(s)
	}
}
