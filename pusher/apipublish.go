package pusher

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/pusherform"
)

// Limits of the HTTP API.
const (
	maxChannels = 100 // of one event
	maxBatch    = 10  // events of one request
)

// event is an event that a request publishes.
type event struct {
	channels []string
	entry    broker.Entry
	info     []string
}

// parseEvent parses and checks an event. place is where it is in the body, or "".
func (a *Adapter) parseEvent(value []byte, place string, batch bool) (e event, why *refused) {
	fields := map[string][]byte{}
	if err := jsvalue.Fields(value, func(name, value []byte) { fields[string(name)] = value }); err != nil {
		return e, refuseAPI(http.StatusBadRequest, "%sit is not a JSON object", place)
	}
	bad := func(format string, args ...any) (event, *refused) {
		return e, refuseAPI(http.StatusBadRequest, "%s%s", place, fmt.Sprintf(format, args...))
	}
	texts := map[string]string{}
	for _, name := range []string{"name", "channel", "socket_id", "info"} {
		value := fields[name]
		if value == nil || string(value) == "null" {
			continue
		}
		text, is := jsvalue.Text(value)
		if !is {
			return bad("%s must be a string", name)
		}
		texts[name] = text
	}
	list, err := stringsOf(fields["channels"])
	one := texts["channel"] != ""
	switch {
	case err != nil:
		return bad("channels must be a list of strings")
	case batch && list != nil:
		return bad("an event of a batch has one channel")
	case one && list != nil:
		return bad("channel and channels cannot be used together")
	case one:
		list = []string{texts["channel"]}
	case len(list) == 0:
		return bad("channels is missing")
	case len(list) > maxChannels:
		return bad("channels has %d names, at most %d are allowed", len(list), maxChannels)
	}
	if id := texts["socket_id"]; id != "" && !socketPattern.MatchString(id) {
		return bad("socket_id is not valid")
	}
	for i, channel := range list {
		name := channel
		if user, is := strings.CutPrefix(channel, toUser); is {
			name = "user"
			if pusherform.CheckUser(user) != nil {
				return bad("channels[%d]: the id of the user must have 1 to 128 bytes of UTF-8", i)
			}
		}
		if e.entry, err = a.entry(name, texts["name"], texts["socket_id"]); err != nil {
			return bad("channels[%d]: %v", i, err)
		}
	}
	e.channels = list
	if e.entry.Data, why = a.dataOf(fields["data"], place); why != nil {
		return e, why
	}
	for _, channel := range list {
		if err := a.hub.CheckEvent(channel, e.entry); errors.Is(err, broker.ErrTooLarge) {
			return e, refuseAPI(http.StatusRequestEntityTooLarge, "%s%v", place, err)
		} else if err != nil {
			return bad("%v", err)
		}
	}
	if e.info, why = attributes(texts["info"], attributeUsers, attributeSubscriptions); why != nil {
		return e, why
	}
	return e, nil
}

// dataOf returns the JSON value of the data of an event.
func (a *Adapter) dataOf(data []byte, place string) ([]byte, *refused) {
	if data == nil {
		return nil, refuseAPI(http.StatusBadRequest, "%sdata is missing", place)
	}
	content, is := jsvalue.Text(data)
	size := len(content)
	if !is {
		size = len(data)
	}
	if size > a.most {
		return nil, refuseAPI(http.StatusRequestEntityTooLarge, "%sdata has %d bytes, at most %d are allowed",
			place, size, a.most)
	}
	if is {
		return valueOf([]byte(content)), nil
	}
	value, err := jsvalue.Compact(nil, data, jsvalue.TriggerLimits)
	if err != nil {
		return nil, refuseAPI(http.StatusBadRequest, "%sdata is not valid: %v", place, err)
	}
	return value, nil
}

// trigger handles POST events.
func (a *Adapter) trigger(c *call) (any, *refused) {
	e, why := a.parseEvent(c.body, "", false)
	if why != nil {
		return nil, why
	}
	if why := a.publishEvents(c, []event{e}); why != nil {
		return nil, why
	}
	if len(e.info) == 0 {
		return struct{}{}, nil
	}
	channels := map[string]map[string]any{}
	for _, name := range e.channels {
		shown, why := a.info(c, name, e.info)
		if why != nil {
			return nil, why
		}
		channels[name] = shown
	}
	return map[string]any{"channels": channels}, nil
}

// triggerBatch handles POST batch_events.
func (a *Adapter) triggerBatch(c *call) (any, *refused) {
	var list []byte
	err := jsvalue.Fields(c.body, func(name, value []byte) {
		if string(name) == "batch" {
			list = value
		}
	})
	values, listErr := elementsOf(list)
	switch {
	case err != nil || listErr != nil:
		return nil, refuseAPI(http.StatusBadRequest, "the body must be an object with the list batch")
	case len(values) == 0 || len(values) > maxBatch:
		return nil, refuseAPI(http.StatusBadRequest, "batch has %d events, 1 to %d are allowed", len(values), maxBatch)
	}
	events := make([]event, 0, len(values))
	asked := false
	for i, value := range values {
		e, why := a.parseEvent(value, fmt.Sprintf("batch[%d]: ", i), true)
		if why != nil {
			return nil, why
		}
		asked = asked || len(e.info) > 0
		events = append(events, e)
	}
	if why := a.publishEvents(c, events); why != nil {
		return nil, why
	}
	if !asked {
		return struct{}{}, nil
	}
	batch := make([]map[string]any, 0, len(events))
	for _, e := range events {
		shown, why := a.info(c, e.channels[0], e.info)
		if why != nil {
			return nil, why
		}
		batch = append(batch, shown)
	}
	return map[string]any{"batch": batch}, nil
}

// publishEvents publishes events that have been checked, in order.
func (a *Adapter) publishEvents(c *call, events []event) *refused {
	pairs := 0
	for _, e := range events {
		pairs += len(e.channels)
	}
	if retry, ok := a.parts.PublishAllowed(pairs); !ok {
		return &refused{
			status: http.StatusTooManyRequests,
			text:   "too many events",
			retry:  retry,
		}
	}
	if a.parts.Overloaded() {
		return unavailable("the server lacks memory")
	}
	ctx := c.request.Context()
	for _, e := range events {
		for _, channel := range e.channels {
			var err error
			if user, is := strings.CutPrefix(channel, toUser); is {
				err = a.parts.SendUser(ctx, user, e.entry.Event, e.entry.Data)
			} else {
				err = a.parts.Publish(ctx, channel, e.entry)
			}
			switch {
			case errors.Is(err, broker.ErrTooLarge):
				return refuseAPI(http.StatusRequestEntityTooLarge, "the event is too large for the broker")
			case err != nil:
				a.parts.Notices.Warn("pusher: cannot publish an event", "", slog.String("error", err.Error()))
				return unavailable("some events could not be published")
			}
		}
	}
	return nil
}
