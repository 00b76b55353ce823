package pushy

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/httpapi"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

// Limits of one call of publish (PROTOCOL.md, section 15).
const (
	maxAPIEvents   = 100
	maxAPIChannels = 100 // of one event
	maxAPIPairs    = 1000
)

// publishBody is the body of the call publish.
type publishBody struct {
	Events []publishEvent `json:"events"`
	Count  bool           `json:"count"`
}

type publishEvent struct {
	Channels  []string        `json:"channels"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Except    []string        `json:"except"`
	ID        string          `json:"id"`
	Latest    string          `json:"latest"`
	Droppable bool            `json:"droppable"`
}

// publishAnswer is the answer to the call publish.
type publishAnswer struct {
	events  []publishEvent // with their channels in lower case
	results []Published    // one for each pair, in order
	// counts are the subscribers of each pair's channel, or nil. silent are the nodes that did
	// not answer.
	counts []uint64
	silent []string
}

func (s *Server) publishCall() apiCall {
	call := newCall(false, s.checkPublish)
	call.shorten = func(answer any) []byte { return answer.(*publishAnswer).shorten() }
	call.lengthen = func(body, short []byte) (any, bool) {
		var b publishBody
		if json.Unmarshal(body, &b) != nil { // it was decoded before
			return nil, false
		}
		for _, e := range b.Events {
			for i, name := range e.Channels {
				e.Channels[i] = jsvalue.Lower(name)
			}
		}
		a := &publishAnswer{events: b.Events}
		return a, a.lengthen(short)
	}
	return call
}

func badPlace(place string, format string, args ...any) *httpapi.Refusal {
	return httpapi.Refuse(http.StatusBadRequest, place+": "+fmt.Sprintf(format, args...))
}

// badName returns the Refusal of a name.
func badName(place string, err error) *httpapi.Refusal {
	if errors.Is(err, names.ErrNotChecked) {
		return httpapi.Refuse(http.StatusInternalServerError, "Internal error")
	}
	return badPlace(place, "%v", err)
}

// checkPublish checks everything, before anything is published.
func (s *Server) checkPublish(b publishBody) (apiRun, *httpapi.Refusal) {
	if n := len(b.Events); n == 0 || n > maxAPIEvents {
		return nil, badPlace("events", "must have 1 to %d events", maxAPIEvents)
	}
	var pairs []pair
	for i := range b.Events {
		place := "events[" + strconv.Itoa(i) + "]"
		more, refused := s.checkEvent(place, &b.Events[i])
		if refused != nil {
			return nil, refused
		}
		if pairs = append(pairs, more...); len(pairs) > maxAPIPairs {
			return nil, badPlace(place, "the events up to this one have %d channels, at most %d are allowed in total",
				len(pairs), maxAPIPairs)
		}
	}
	return func(ctx context.Context, c *httpapi.Call) (any, *httpapi.Refusal) {
		if retry, ok := s.publishAllowed(len(pairs)); !ok {
			return nil, httpapi.RefuseEvents(retry)
		}
		// Every pair has an ID of its own, so that the same request never publishes one twice.
		// The content is a part of it, because a request that has failed is not remembered.
		prefix := c.KeyID + ":" + c.ID + ":" + content(c)[:8] + ":"
		for i := range pairs {
			if pairs[i].entry.ID == "" {
				pairs[i].entry.ID = prefix + strconv.Itoa(i)
			}
		}
		a := &publishAnswer{
			events:  b.Events,
			results: s.publishPairs(ctx, pairs),
		}
		if refused := s.publishRefusal(a); refused != nil {
			return nil, refused
		}
		if b.Count {
			s.countSubscribers(ctx, a, pairs)
		}
		return a, nil
	}, nil
}

// checkEvent checks one event and returns its pairs. It changes e's channels to lower case.
func (s *Server) checkEvent(place string, e *publishEvent) ([]pair, *httpapi.Refusal) {
	if n := len(e.Channels); n == 0 || n > maxAPIChannels {
		return nil, badPlace(place+".channels", "must have 1 to %d names", maxAPIChannels)
	}
	if err := s.eventName(e.Event); err != nil {
		return nil, badName(place+".event", err)
	}
	if e.ID != "" && !names.IsToken(e.ID) {
		return nil, badPlace(place+".id", "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	if len(e.Latest) > maxEventID {
		return nil, badPlace(place+".latest", "must not be longer than %d bytes", maxEventID)
	}
	if len(e.Except) > maxExcept {
		return nil, badPlace(place+".except", "must have at most %d ids", maxExcept)
	}
	for i, id := range e.Except {
		if id == "" || len(id) > maxEventID {
			return nil, badPlace(place+".except["+strconv.Itoa(i)+"]", "must have 1 to %d bytes", maxEventID)
		}
	}
	data := []byte(e.Data)
	if data == nil {
		data = []byte("{}")
	}
	data, err := jsvalue.Compact(make([]byte, 0, len(data)), data, jsvalue.TriggerLimits)
	if err != nil {
		return nil, badPlace(place+".data", "%v", err)
	}
	if most := s.opts.Limits.TriggerBytes; most > 0 && len(data) > most {
		return nil, httpapi.Refuse(http.StatusRequestEntityTooLarge,
			fmt.Sprintf("%s.data: has %d bytes, at most %d are allowed (Options.Limits.TriggerBytes)", place, len(data), most))
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
		p := pair{
			channel: lower,
			entry: broker.Entry{
				Kind:      broker.Event,
				Event:     e.Event,
				Data:      data,
				Except:    e.Except,
				ID:        e.ID,
				Latest:    e.Latest,
				Droppable: e.Droppable,
			},
		}
		if err := s.hub.CheckEvent(lower, p.entry); err != nil {
			return nil, badName(at, err)
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// publishRefusal returns the Refusal of a call whose events were not all published, or nil.
func (s *Server) publishRefusal(a *publishAnswer) *httpapi.Refusal {
	done, tooLarge := 0, false
	var first error
	for _, r := range a.results {
		switch {
		case r.Err == nil:
			done++
		case errors.Is(r.Err, broker.ErrTooLarge):
			tooLarge = true
		case first == nil || errors.Is(first, ErrNotSent):
			first = r.Err
		}
	}
	message := fmt.Sprintf("Published %d of %d events to channels", done, len(a.results))
	switch {
	case first != nil:
		if !errors.Is(first, ErrClosed) && !errors.Is(first, errPublishEnded) { // the latter is logged
			s.notices.Warn("cannot publish all events of a signed request", "",
				slog.Int("published", done),
				slog.Int("of", len(a.results)),
				slog.Any("error", first))
		}
		refused := httpapi.RefuseRetry(time.Second, message+"; the same request publishes the rest")
		refused.Answer = a.json()
		return refused
	case tooLarge:
		refused := httpapi.Refuse(http.StatusRequestEntityTooLarge, message+"; the rest is too large for the broker")
		refused.Answer = a.json()
		return refused
	}
	return nil
}

// json encodes the answer.
func (a *publishAnswer) json() jsvalue.Object {
	out := []byte(`{"events":[`)
	n := 0
	for i, e := range a.events {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"channels":{`...)
		for j, channel := range e.Channels {
			if j > 0 {
				out = append(out, ',')
			}
			out = append(jsvalue.AppendQuote(out, channel), ':')
			out = append(out, a.pairJSON(n, e.ID != "")...)
			n++
		}
		out = append(out, "}}"...)
	}
	out = append(out, ']', '}')
	answer := jsvalue.Object(out)
	if a.counts != nil {
		silent, _ := json.Marshal(append([]string{}, a.silent...)) // strings can be encoded
		answer = answer.Raw("silent", silent)
	}
	return answer
}

func (a *publishAnswer) pairJSON(n int, ownID bool) jsvalue.Object {
	r := &a.results[n]
	if r.Err != nil {
		code, message := "503", "Service unavailable"
		switch {
		case errors.Is(r.Err, broker.ErrTooLarge):
			code, message = "413", "Event too large for the broker"
		case errors.Is(r.Err, ErrNotSent):
			message = "Not sent"
		case errors.Is(r.Err, broker.ErrUncertain):
			message = "May have been sent"
		}
		return jsvalue.Object(nil).Raw("error", jsvalue.Object(nil).Text("code", code).Text("message", message))
	}
	o := jsvalue.Object(nil).Raw("received", strconv.AppendBool(nil, r.Receivers != broker.None))
	if at := r.Position.String(); at != "" {
		o = o.Text("position", at)
	}
	if ownID && r.Duplicate {
		o = o.Raw("duplicate", []byte("true"))
	}
	if a.counts != nil {
		o = o.Raw("subscribers", strconv.AppendUint(nil, a.counts[n], 10))
	}
	return o
}

// Bits of a pair in the short form of an answer.
const (
	shortReceived = 1 << iota
	shortDuplicate
	shortPosition
	shortEpoch // the epoch follows; otherwise it is that of the channel's last position
)

// shorten encodes the answer without what the body of the request has. The form is private to
// this package; a node with another version runs the request again.
func (a *publishAnswer) shorten() []byte {
	out := []byte{1, 0} // the version, and whether there are counts
	if a.counts != nil {
		out[1] = 1
		out = binary.AppendUvarint(out, uint64(len(a.silent)))
		for _, node := range a.silent {
			out = appendText(out, node)
		}
	}
	epochs := map[string]string{}
	n := 0
	for _, e := range a.events {
		for _, channel := range e.Channels {
			r := &a.results[n]
			bits := byte(0)
			if r.Receivers != broker.None {
				bits |= shortReceived
			}
			if r.Duplicate && e.ID != "" {
				bits |= shortDuplicate
			}
			at := r.Position
			if at != (broker.Position{}) {
				bits |= shortPosition
				if epochs[channel] != at.Epoch {
					bits |= shortEpoch
					epochs[channel] = at.Epoch
				}
			}
			out = append(out, bits)
			if bits&shortEpoch != 0 {
				out = appendText(out, at.Epoch)
			}
			if bits&shortPosition != 0 {
				out = binary.AppendUvarint(out, at.Offset)
			}
			if a.counts != nil {
				out = binary.AppendUvarint(out, a.counts[n])
			}
			n++
		}
	}
	return out
}

func appendText(out []byte, text string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(text))), text...)
}

// lengthen decodes what shorten has encoded. It returns false if short is invalid, because other
// programs can write to the store of a Ledger.
func (a *publishAnswer) lengthen(short []byte) bool {
	r := shortReader{rest: short}
	if r.byte() != 1 {
		return false
	}
	counted := r.byte() == 1
	if counted {
		a.counts = []uint64{}
		for n := r.number(); n > 0 && !r.bad; n-- {
			a.silent = append(a.silent, r.text())
		}
	}
	epochs := map[string]string{}
	for _, e := range a.events {
		for _, channel := range e.Channels {
			bits := r.byte()
			result := Published{Receipt: Receipt{Receivers: broker.None}}
			if bits&shortReceived != 0 {
				result.Receivers = broker.Some
			}
			result.Duplicate = bits&shortDuplicate != 0
			if bits&shortEpoch != 0 {
				epochs[channel] = r.text()
			}
			if bits&shortPosition != 0 {
				result.Position = broker.Position{Epoch: epochs[channel], Offset: r.number()}
			}
			if counted {
				a.counts = append(a.counts, r.number())
			}
			a.results = append(a.results, result)
		}
	}
	return !r.bad && len(r.rest) == 0
}

// shortReader reads the parts of a short form. bad is set if one is missing.
type shortReader struct {
	rest []byte
	bad  bool
}

func (r *shortReader) byte() byte {
	if len(r.rest) == 0 {
		r.bad = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *shortReader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *shortReader) text() string {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.bad = true
		return ""
	}
	text := string(r.rest[:n])
	r.rest = r.rest[n:]
	return text
}
