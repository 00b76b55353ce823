package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/calls"
	"github.com/gopushy/pushy/internal/httpapi"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

// published is the answer to publish, with the IDs that the request's events were given.
type published struct {
	*calls.PublishAnswer
	made []broker.EntryID
}

func (s *Server) publishCall() apiCall {
	call := newCall(false, s.checkPublish)
	call.shorten = func(answer any) []byte { return answer.(published).Shorten() }
	call.lengthen = func(body, short []byte) (any, bool) {
		var b calls.Publish
		if json.Unmarshal(body, &b) != nil { // it was decoded before
			return nil, false
		}
		for _, e := range b.Events {
			for i, name := range e.Channels {
				e.Channels[i] = jsvalue.Lower(name)
			}
		}
		a := &calls.PublishAnswer{Events: b.Events}
		return a, a.Lengthen(short)
	}
	return call
}

// checkPublish checks everything, before anything is published.
func (s *Server) checkPublish(b calls.Publish) (apiRun, *httpapi.Refusal) {
	if n := len(b.Events); n == 0 || n > calls.MaxEvents {
		return nil, badPlace("events", "must have 1 to %d events", calls.MaxEvents)
	}
	var pairs []pair
	for i := range b.Events {
		place := "events[" + strconv.Itoa(i) + "]"
		more, refused := s.checkEvent(place, &b.Events[i])
		if refused != nil {
			return nil, refused
		}
		if pairs = append(pairs, more...); len(pairs) > calls.MaxPairs {
			return nil, badPlace(place, "the events up to this one have %d channels, at most %d are allowed in total",
				len(pairs), calls.MaxPairs)
		}
	}
	return func(ctx context.Context, c *httpapi.Call) (any, *httpapi.Refusal) {
		if retry, ok := s.publishAllowed(len(pairs)); !ok {
			return nil, httpapi.RefuseEvents(retry)
		}
		// Every pair has an ID of its own, so that the same request never publishes one twice.
		// The content is a part of it, because a request that has failed is not remembered.
		prefix := c.KeyID + ":" + c.ID + ":" + content(c)[:8] + ":"
		var made []broker.EntryID
		for i := range pairs {
			p := &pairs[i]
			if p.entry.ID == "" {
				p.entry.ID = prefix + strconv.Itoa(i)
				made = append(made, broker.EntryID{Channel: p.channel, ID: p.entry.ID})
			}
		}
		results := s.publishPairs(ctx, pairs)
		a := publishAnswer(b.Events, results)
		if refused := s.publishRefusal(a, results); refused != nil {
			return nil, refused
		}
		if b.Count {
			s.countSubscribers(ctx, a, pairs)
		}
		return published{a, made}, nil
	}, nil
}

// checkEvent checks one event and returns its pairs. It changes e's channels to lower case.
func (s *Server) checkEvent(place string, e *calls.Event) ([]pair, *httpapi.Refusal) {
	if n := len(e.Channels); n == 0 || n > calls.MaxChannels {
		return nil, badPlace(place+".channels", "must have 1 to %d names", calls.MaxChannels)
	}
	if e.ID != "" && !names.IsToken(e.ID) {
		return nil, badPlace(place+".id", "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	entry := broker.Entry{
		Kind:      broker.Event,
		Event:     e.Event,
		Except:    e.Except,
		ID:        e.ID,
		Latest:    e.Latest,
		Droppable: e.Droppable,
	}
	if field, err := s.checkEntry(&entry); err != nil {
		return nil, badName(place+"."+field, err)
	}
	var refused *httpapi.Refusal
	if entry.Data, refused = s.dataOf(place+".data", e.Data); refused != nil {
		return nil, refused
	}
	pairs := make([]pair, 0, len(e.Channels))
	for i, name := range e.Channels {
		at := place + ".channels[" + strconv.Itoa(i) + "]"
		lower, err := s.channelName(name)
		if err != nil {
			return nil, badName(at, err)
		}
		if slices.Contains(e.Channels[:i], lower) {
			return nil, badPlace(at, "duplicate channel %s", httperror.Shown(lower))
		}
		e.Channels[i] = lower
		if err := s.hub.CheckEvent(lower, entry); err != nil {
			return nil, badName(at, err)
		}
		pairs = append(pairs, pair{lower, entry})
	}
	return pairs, nil
}

// publishAnswer returns the answer for results, of which there is one for each channel of each
// event.
func publishAnswer(events []calls.Event, results []Published) *calls.PublishAnswer {
	a := &calls.PublishAnswer{
		Events:   events,
		Receipts: make([]calls.Receipt, 0, len(results)),
	}
	for _, e := range events {
		for range e.Channels {
			r := &results[len(a.Receipts)]
			a.Receipts = append(a.Receipts, calls.Receipt{
				Received:  r.Receivers != broker.None,
				Position:  calls.Position(r.Position),
				Duplicate: r.Duplicate && e.ID != "", // otherwise it is the request that was sent again
				Fault:     publishFault(r.Err),
			})
		}
	}
	return a
}

// publishFault returns the error of a pair in the answer.
func publishFault(err error) *calls.Fault {
	f := &calls.Fault{
		Code:    "503",
		Message: "Service unavailable",
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, broker.ErrTooLarge):
		f.Code = "413"
		f.Message = "Event too large for the broker"
	case errors.Is(err, ErrNotSent):
		f.Message = "Not sent"
	case errors.Is(err, broker.ErrBusy):
		f.Message = "Too many ids are remembered"
	case errors.Is(err, broker.ErrUncertain):
		f.Message = "May have been sent"
	}
	return f
}

// publishRefusal returns the Refusal of a call whose events were not all published, or nil.
func (s *Server) publishRefusal(a *calls.PublishAnswer, results []Published) *httpapi.Refusal {
	done, tooLarge := 0, false
	var first error
	for _, r := range results {
		switch {
		case r.Err == nil:
			done++
		case errors.Is(r.Err, broker.ErrTooLarge):
			tooLarge = true
		case first == nil || errors.Is(first, ErrNotSent):
			first = r.Err
		}
	}
	message := fmt.Sprintf("Published %d of %d events to channels", done, len(results))
	switch {
	case first != nil:
		if !errors.Is(first, ErrClosed) && !errors.Is(first, errPublishEnded) { // the latter is logged
			s.notices.Warn("cannot publish all events of a signed request", "",
				slog.Int("published", done),
				slog.Int("of", len(results)),
				slog.Any("error", first))
		}
		retry := time.Second
		if errors.Is(first, broker.ErrBusy) { // until older ids are forgotten
			retry = 10 * time.Second
		}
		refused := httpapi.RefuseRetry(retry, message+"; the same request publishes the rest")
		refused.Answer = a.JSON()
		return refused
	case tooLarge:
		refused := httpapi.Refuse(http.StatusRequestEntityTooLarge, message+"; the rest is too large for the broker")
		refused.Answer = a.JSON()
		return refused
	}
	return nil
}
