package pushy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/calls"
	"github.com/gopushy/pushy/internal/httpapi"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// The calls of the signed API that ask (PROTOCOL.md, section 15). The JSON of an answer has the
// names of nodes in silent, which is never null.

func (c Coverage) answer() calls.Coverage {
	return calls.Coverage{
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
	refused := httpapi.Unavailable()
	if answer != nil {
		if encoded, err := jsvalue.Encode(answer); err == nil {
			refused.Answer = jsvalue.Object(encoded)
		}
	}
	return refused
}

// pageOf returns the Page of a body. Limit 0 is an error here, because it is not the default.
func pageOf(b calls.Page) Page {
	p := Page{After: b.After}
	if b.Limit != nil {
		p.Limit = *b.Limit
		if p.Limit == 0 {
			p.Limit = -1
		}
	}
	return p
}

func (s *Server) channelsCall() apiCall {
	return newCall(true, func(b calls.Channels) (apiRun, *httpapi.Refusal) {
		q := ChannelQuery{
			Prefix: b.Prefix,
			Page:   pageOf(b.Page),
			Count:  b.Count,
		}
		if _, field, err := checkChannels(q); err != nil {
			return nil, badName(field, err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			list, err := s.ListChannels(ctx, q)
			answer := calls.ChannelsAnswer{
				Channels: []calls.Channel{},
				Next:     list.Next,
				Coverage: list.Coverage.answer(),
			}
			for i, c := range list.Channels {
				entry := calls.Channel{
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

func (s *Server) membersCall() apiCall {
	return newCall(true, func(b calls.Members) (apiRun, *httpapi.Refusal) {
		q := MemberQuery{
			Channel: b.Channel,
			Page:    pageOf(b.Page),
		}
		if _, field, err := s.checkMembers(q); err != nil {
			return nil, badName(field, err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			list, err := s.ListMembers(ctx, q)
			answer := calls.MembersAnswer{
				Members:  []calls.Member{},
				Presence: list.Presence,
				Next:     list.Next,
				Silent:   append([]string{}, list.Silent...),
			}
			for _, m := range list.Members {
				answer.Members = append(answer.Members, calls.Member{
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

func (s *Server) connectionsCall() apiCall {
	return newCall(true, func(b calls.Connections) (apiRun, *httpapi.Refusal) {
		q := ConnQuery{
			User:    b.User,
			Conn:    b.Conn,
			Channel: b.Channel,
			Page:    pageOf(b.Page),
		}
		if _, field, err := s.checkConns(q); err != nil {
			return nil, badName(field, err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			list, err := s.Connections(ctx, q)
			answer := calls.ConnectionsAnswer{
				Connections: []calls.Connection{},
				Next:        list.Next,
				Coverage:    list.Coverage.answer(),
			}
			for _, c := range list.Conns {
				answer.Connections = append(answer.Connections, calls.Connection{
					ID:           c.ID,
					User:         c.User,
					Node:         c.Node,
					Transport:    c.Protocol,
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

func (s *Server) historyCall() apiCall {
	return newCall(true, func(b calls.History) (apiRun, *httpapi.Refusal) {
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
			answer := calls.HistoryAnswer{
				Events:   []calls.PastEvent{},
				Epoch:    page.Top.Epoch,
				Position: calls.Position(page.Top),
				More:     page.More,
			}
			for _, e := range page.Entries {
				answer.Events = append(answer.Events, calls.PastEvent{
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

func (s *Server) positionCall() apiCall {
	return newCall(true, func(b calls.PositionOf) (apiRun, *httpapi.Refusal) {
		channel, err := s.channelName(b.Channel)
		if err != nil {
			return nil, badName("channel", err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			at, err := s.hub.Place(ctx, channel)
			if err != nil {
				return nil, s.apiFailed("position", err, nil)
			}
			return calls.PositionAnswer{Position: calls.Position(at)}, nil
		}, nil
	})
}
