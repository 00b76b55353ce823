package pushyjson

import (
	"cmp"
	"context"
	"errors"
	"strconv"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
)

func appendPlace(data jsvalue.Object, p broker.Position) jsvalue.Object {
	return data.Text("epoch", p.Epoch).Raw("offset", strconv.AppendUint(nil, p.Offset, 10))
}

// appendPast appends what pushy:subscription-success says about past events.
func appendPast(data jsvalue.Object, p *hub.PastAnswer) jsvalue.Object {
	if p.Place.Epoch != "" {
		data = appendPlace(data, p.Place)
	}
	if p.Resumed {
		data = data.Raw("recovered", strconv.AppendBool(nil, p.Recovered))
	}
	if p.Reason != "" {
		data = data.Text("reason", p.Reason)
	}
	if p.Asked {
		data = data.Raw("replay", strconv.AppendInt(nil, int64(p.Replay), 10))
	}
	if p.First > 0 {
		data = data.Raw("first", strconv.AppendUint(nil, p.First, 10))
	}
	return data
}

// The errors of pushy:history, beside ErrNotSubscribed (PROTOCOL.md, section 14).
var (
	ErrNotKept            = &Error{"404", "The channel keeps no events"}
	ErrHistoryDenied      = &Error{"403", "Past events are not allowed"}
	ErrHistoryUnavailable = &Error{"503", "History temporarily unavailable"}
)

const (
	// defaultPast is the number of events that pushy:history returns without a limit.
	defaultPast = 50
	// maxHistoryBytes limits the data of the events in one answer of pushy:history.
	maxHistoryBytes = 256 << 10
)

// historyQuery is the data of pushy:history.
type historyQuery struct {
	Channel string `json:"channel"`
	Before  *int64 `json:"before"`
	After   *int64 `json:"after"`
	Limit   *int   `json:"limit"`
}

var historyQueries = mustDecode[historyQuery]()

func (q *historyQuery) check() error {
	switch {
	case q.Before != nil && q.After != nil:
		return invalid("after", "must not be combined with before")
	case q.Before != nil && (*q.Before < 1 || *q.Before > maxOffset):
		return invalid("before", "must be from 1 to 2^53-1")
	case q.After != nil && (*q.After < 0 || *q.After > maxOffset):
		return invalid("after", "must be from 0 to 2^53-1")
	case q.Limit != nil && (*q.Limit < 1 || *q.Limit > MaxPast):
		return invalid("limit", "must be from 1 to %d", MaxPast)
	}
	return nil
}

// Range returns the kept events that a query selects: the newest ones if before and after are
// 0. A limit of 0 is the default.
func Range(before, after uint64, limit int) broker.Range {
	r := broker.Range{
		After:  after,
		Before: before,
		Limit:  cmp.Or(limit, defaultPast),
		Bytes:  maxHistoryBytes,
	}
	if before == 0 && after == 0 {
		r.Before = maxOffset
	}
	return r
}

func (q *historyQuery) selected() broker.Range {
	r := Range(0, 0, 0)
	if q.Limit != nil {
		r.Limit = *q.Limit
	}
	switch {
	case q.Before != nil:
		r.Before = uint64(*q.Before)
	case q.After != nil:
		r.Before = 0
		r.After = uint64(*q.After)
	}
	return r
}

// History is the built-in command pushy:history, which returns kept events of a channel that
// the client is subscribed to.
func (p *Protocol) History(r *Request) *Error {
	if r.ID == nil {
		return &Error{
			Code:    codeMalformed,
			Message: "id is missing: the answer could not be recognized",
		}
	}
	q, err := historyQueries.Decode(r.Data)
	if err == nil {
		err = q.check()
	}
	if err != nil {
		return &Error{
			Code:    codeMalformed,
			Message: err.Error(),
		}
	}
	channel, refused := p.subscription(Subscription{Channel: q.Channel})
	if refused != nil {
		return refused
	}
	// The answer is one that the client has asked for, and does not count towards its buffer.
	release, err := r.Conn.AwaitRoom(maxHistoryBytes)
	if err != nil {
		return nil // the connection has ended
	}
	defer release()
	page, err := r.Conn.History(r.Conn.Context(), channel, q.selected())
	switch {
	case errors.Is(err, hub.ErrNotMember):
		return ErrNotSubscribed
	case errors.Is(err, hub.ErrDenied):
		return ErrHistoryDenied
	case errors.Is(err, hub.ErrNotKept):
		return ErrNotKept
	case errors.Is(err, context.Canceled) && r.Conn.Context().Err() != nil:
		return nil
	case err != nil:
		p.Unavailable(channel, err)
		return ErrHistoryUnavailable
	}
	_ = r.Conn.SendList(&hub.Event{ // it fails only if the connection has ended
		Kind:    hub.Replied,
		Data:    appendPage(nil, page),
		Request: r.ID,
	})
	return nil
}

func appendPage(b jsvalue.Object, page broker.Page) jsvalue.Object {
	size := 2
	for i := range page.Entries {
		size += len(page.Entries[i].Data) + len(page.Entries[i].Event) + 80
	}
	events := append(make([]byte, 0, size), '[')
	for i := range page.Entries {
		e := &page.Entries[i]
		if i > 0 {
			events = append(events, ',')
		}
		events = append(events, `{"event":`...)
		events = jsvalue.AppendQuote(events, e.Event)
		events = append(events, `,"data":`...)
		events = append(events, e.Data...)
		events = append(events, `,"offset":`...)
		events = strconv.AppendUint(events, e.At.Offset, 10)
		events = append(events, `,"time":`...)
		events = strconv.AppendInt(events, max(0, e.Time.UnixMilli()), 10)
		events = append(events, '}')
	}
	events = append(events, ']')
	return b.Text("epoch", page.Top.Epoch).Raw("events", events).Raw("more", strconv.AppendBool(nil, page.More))
}
