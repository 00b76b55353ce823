package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/httpapi"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// The calls of the signed API that ask (PROTOCOL.md, section 15). The JSON of an answer has the
// names of nodes in silent, which is never null.

// coverageJSON is Coverage in an answer.
type coverageJSON struct {
	Nodes  int      `json:"nodes"`
	Silent []string `json:"silent"`
}

func (c Coverage) json() coverageJSON {
	return coverageJSON{
		Nodes:  c.Nodes,
		Silent: append([]string{}, c.Silent...),
	}
}

// apiFailed returns the Refusal for the error of a call whose arguments are valid. answer is what
// was done or found before it, or nil.
func (s *Server) apiFailed(call string, err error, answer any) *httpapi.Refusal {
	switch {
	case errors.Is(err, hub.ErrNotKept), errors.Is(err, ErrNotKept):
		return httpapi.Refuse(http.StatusNotFound, "channel: keeps no events")
	case errors.Is(err, broker.ErrTooLarge):
		return httpapi.Refuse(http.StatusRequestEntityTooLarge, "data: is too large for the broker")
	case errors.Is(err, errors.ErrUnsupported):
		return httpapi.Refuse(http.StatusNotImplemented, "until: the Broker of this server cannot keep bans")
	case errors.Is(err, ErrTooManyBans):
		return httpapi.Refuse(http.StatusServiceUnavailable, "There are too many bans")
	case !errors.Is(err, ErrClosed) && !errors.Is(err, broker.ErrAway):
		s.notices.Warn("a call of the signed API has failed", call, slog.Any("error", err))
	}
	refused := httpapi.RefuseRetry(time.Second, "Service unavailable")
	if answer != nil {
		if encoded, err := jsvalue.Encode(answer); err == nil {
			refused.Answer = jsvalue.Object(encoded)
		}
	}
	return refused
}

type channelsBody struct {
	Prefix string `json:"prefix"`
	After  string `json:"after"`
	Limit  *int   `json:"limit"`
	Count  bool   `json:"count"`
}

type channelsAnswer struct {
	Channels []channelJSON `json:"channels"`
	Next     string        `json:"next,omitempty"`
	coverageJSON
}

type channelJSON struct {
	Name        string `json:"name"`
	Subscribers *int   `json:"subscribers,omitempty"`
	Presence    bool   `json:"presence"`
}

// page returns the Page of a body. Limit 0 is an error here, because it is not the default.
func pageOf(after string, limit *int) Page {
	p := Page{After: after}
	if limit != nil {
		p.Limit = *limit
		if p.Limit == 0 {
			p.Limit = -1
		}
	}
	return p
}

func (s *Server) channelsCall() apiCall {
	return newCall(true, func(b channelsBody) (apiRun, *httpapi.Refusal) {
		q := ChannelQuery{
			Prefix: b.Prefix,
			Page:   pageOf(b.After, b.Limit),
			Count:  b.Count,
		}
		if _, field, err := checkChannels(q); err != nil {
			return nil, badName(field, err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			list, err := s.ListChannels(ctx, q)
			answer := channelsAnswer{
				Channels:     []channelJSON{},
				Next:         list.Next,
				coverageJSON: list.Coverage.json(),
			}
			for i, c := range list.Channels {
				entry := channelJSON{
					Name:     c.Name,
					Presence: c.Presence,
				}
				if b.Count {
					entry.Subscribers = &list.Channels[i].Subscribers
				}
				answer.Channels = append(answer.Channels, entry)
			}
			if err != nil {
				return nil, s.apiFailed("channels", err, answer)
			}
			return answer, nil
		}, nil
	})
}

type membersBody struct {
	Channel string `json:"channel"`
	After   string `json:"after"`
	Limit   *int   `json:"limit"`
}

type membersAnswer struct {
	Members  []memberJSON `json:"members"`
	Presence bool         `json:"presence"`
	Next     string       `json:"next,omitempty"`
	Silent   []string     `json:"silent"`
}

type memberJSON struct {
	ID     string          `json:"id"`
	User   string          `json:"user,omitempty"`
	Member json.RawMessage `json:"member"`
}

func (s *Server) membersCall() apiCall {
	return newCall(true, func(b membersBody) (apiRun, *httpapi.Refusal) {
		q := MemberQuery{
			Channel: b.Channel,
			Page:    pageOf(b.After, b.Limit),
		}
		if _, field, err := s.checkMembers(q); err != nil {
			return nil, badName(field, err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			list, err := s.ListMembers(ctx, q)
			answer := membersAnswer{
				Members:  []memberJSON{},
				Presence: list.Presence,
				Next:     list.Next,
				Silent:   append([]string{}, list.Silent...),
			}
			for _, m := range list.Members {
				answer.Members = append(answer.Members, memberJSON{
					ID:     m.ID,
					User:   m.User,
					Member: m.JSON,
				})
			}
			if err != nil {
				return nil, s.apiFailed("members", err, answer)
			}
			return answer, nil
		}, nil
	})
}

type connectionsBody struct {
	User    string `json:"user"`
	Conn    string `json:"conn"`
	Channel string `json:"channel"`
	After   string `json:"after"`
	Limit   *int   `json:"limit"`
}

type connectionsAnswer struct {
	Connections []connInfo `json:"connections"`
	Next        string     `json:"next,omitempty"`
	coverageJSON
}

func (s *Server) connectionsCall() apiCall {
	return newCall(true, func(b connectionsBody) (apiRun, *httpapi.Refusal) {
		q := ConnQuery{
			User:    b.User,
			Conn:    b.Conn,
			Channel: b.Channel,
			Page:    pageOf(b.After, b.Limit),
		}
		if _, field, err := s.checkConns(q); err != nil {
			return nil, badName(field, err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			list, err := s.Connections(ctx, q)
			answer := connectionsAnswer{
				Connections:  []connInfo{},
				Next:         list.Next,
				coverageJSON: list.Coverage.json(),
			}
			for _, c := range list.Conns {
				answer.Connections = append(answer.Connections, connInfo{
					ID:           c.ID,
					User:         c.User,
					Node:         c.Node,
					Protocol:     c.Protocol,
					Since:        c.Since.UnixMilli(),
					Channels:     append([]string{}, c.Channels...),
					ChannelCount: c.ChannelCount,
					Waiting:      c.Waiting,
				})
			}
			if err != nil {
				return nil, s.apiFailed("connections", err, answer)
			}
			return answer, nil
		}, nil
	})
}

type historyBody struct {
	Channel string  `json:"channel"`
	Before  *uint64 `json:"before"`
	After   *uint64 `json:"after"`
	Limit   *int    `json:"limit"`
}

type historyAnswer struct {
	Events   []historyEvent `json:"events"`
	Epoch    string         `json:"epoch"`
	Position string         `json:"position"` // of the last event that was published
	More     bool           `json:"more"`
}

type historyEvent struct {
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	Offset uint64          `json:"offset"`
	Time   int64           `json:"time"`
}

func (s *Server) historyCall() apiCall {
	return newCall(true, func(b historyBody) (apiRun, *httpapi.Refusal) {
		channel, err := s.channelName(b.Channel)
		limit := 0
		if b.Limit != nil {
			limit = *b.Limit
		}
		switch {
		case err != nil:
			return nil, badName("channel", err)
		case b.Before != nil && b.After != nil:
			return nil, badPlace("before", "must not be given together with after")
		case b.Before != nil && *b.Before == 0:
			return nil, badPlace("before", "must be at least 1")
		case b.Limit != nil && (limit < 1 || limit > pushyjson.MaxPast):
			return nil, badPlace("limit", "must be 1 to %d", pushyjson.MaxPast)
		}
		before, after := uint64(0), uint64(0)
		if b.Before != nil {
			before = *b.Before
		}
		if b.After != nil {
			after = *b.After
		}
		r := pushyjson.Range(before, after, limit)
		if b.After != nil {
			r.Before = 0
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			page, err := s.hub.History(ctx, channel, r)
			if err != nil {
				return nil, s.apiFailed("history", err, nil)
			}
			answer := historyAnswer{
				Events:   []historyEvent{},
				Epoch:    page.Top.Epoch,
				Position: page.Top.String(),
				More:     page.More,
			}
			for _, e := range page.Entries {
				answer.Events = append(answer.Events, historyEvent{
					Event:  e.Event,
					Data:   e.Data,
					Offset: e.At.Offset,
					Time:   e.Time.UnixMilli(),
				})
			}
			return answer, nil
		}, nil
	})
}

type positionBody struct {
	Channel string `json:"channel"`
}

type positionAnswer struct {
	Position string `json:"position"`
}

func (s *Server) positionCall() apiCall {
	return newCall(true, func(b positionBody) (apiRun, *httpapi.Refusal) {
		channel, err := s.channelName(b.Channel)
		if err != nil {
			return nil, badName("channel", err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			at, err := s.hub.Place(ctx, channel)
			if err != nil {
				return nil, s.apiFailed("position", err, nil)
			}
			return positionAnswer{Position: at.String()}, nil
		}, nil
	})
}
