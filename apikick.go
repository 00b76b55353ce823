package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/httpapi"
)

type kickBody struct {
	Target string `json:"target"`
	Reason string `json:"reason"`
	Until  *int64 `json:"until"` // Unix seconds
}

type kickAnswer struct {
	Closed int `json:"closed"`
	coverageJSON
}

func (k Kicked) json() kickAnswer {
	return kickAnswer{
		Closed:       k.Closed,
		coverageJSON: k.Coverage.json(),
	}
}

func (s *Server) kickCall() apiCall {
	return newCall(false, func(b kickBody) (apiRun, *httpapi.Refusal) {
		k := Kick{
			Target: b.Target,
			Reason: b.Reason,
		}
		if b.Until != nil {
			if *b.Until < 1 || *b.Until > math.MaxInt32*100 {
				return nil, badPlace("until", "must be a number of seconds since 1970")
			}
			k.Until = time.Unix(*b.Until, 0)
		}
		checked, field, err := s.checkKick(k)
		if err != nil {
			return nil, badName(field, err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			if checked.Until > 0 && !checked.stands(s.now()) {
				return nil, badName("until", errPast)
			}
			result, err := s.kick(ctx, checked)
			if err != nil {
				return nil, s.apiFailed("kick", err, result.json())
			}
			return result.json(), nil
		}, nil
	})
}

type unbanBody struct {
	Target string `json:"target"`
}

type unbanAnswer struct {
	Lifted bool `json:"lifted"`
	coverageJSON
}

func (s *Server) unbanCall() apiCall {
	return newCall(false, func(b unbanBody) (apiRun, *httpapi.Refusal) {
		kind, _, err := parseTarget(b.Target)
		if err == nil && kind == targetConn {
			err = errors.New(`must begin with "user:" or "channel:"`)
		}
		if err != nil {
			return nil, badName("target", err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			coverage, lifted, err := s.Unban(ctx, b.Target)
			answer := unbanAnswer{
				Lifted:       lifted,
				coverageJSON: coverage.json(),
			}
			if err != nil {
				return nil, s.apiFailed("unban", err, answer)
			}
			return answer, nil
		}, nil
	})
}

type bansBody struct {
	Prefix string `json:"prefix"`
	After  string `json:"after"`
	Limit  *int   `json:"limit"`
}

type bansAnswer struct {
	Bans []banJSON `json:"bans"`
	Next string    `json:"next,omitempty"`
}

type banJSON struct {
	Target string `json:"target"`
	Reason string `json:"reason"`
	Since  int64  `json:"since"` // Unix seconds
	Until  int64  `json:"until"` // Unix seconds
}

func (s *Server) bansCall() apiCall {
	return newCall(true, func(b bansBody) (apiRun, *httpapi.Refusal) {
		page := pageOf(b.After, b.Limit)
		page.After = "" // the target can be longer than a name
		page, field, err := page.check()
		if err != nil {
			return nil, badName(field, err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			list, err := s.Bans(ctx)
			if err != nil {
				return nil, s.apiFailed("bans", err, nil)
			}
			answer := bansAnswer{Bans: []banJSON{}}
			for _, ban := range list {
				if ban.Target <= b.After || !strings.HasPrefix(ban.Target, b.Prefix) {
					continue
				}
				if len(answer.Bans) == page.Limit {
					answer.Next = answer.Bans[page.Limit-1].Target
					break
				}
				answer.Bans = append(answer.Bans, banJSON{
					Target: ban.Target,
					Reason: ban.Reason,
					Since:  ban.Since.Unix(),
					Until:  ban.Until.Unix(),
				})
			}
			return answer, nil
		}, nil
	})
}

type sendBody struct {
	User  string          `json:"user"`
	Conn  string          `json:"conn"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

type sendAnswer struct {
	Sent int `json:"sent"`
	coverageJSON
}

func (s *Server) sendCall() apiCall {
	return newCall(false, func(b sendBody) (apiRun, *httpapi.Refusal) {
		m := directMessage{
			User:  b.User,
			Conn:  b.Conn,
			Event: b.Event,
		}
		if field, err := s.checkDirect(&m); err != nil {
			return nil, badName(field, err)
		}
		var refused *httpapi.Refusal
		if m.Data, refused = s.dataOf("data", b.Data); refused != nil {
			return nil, refused
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			result, err := s.send(ctx, m)
			answer := sendAnswer{
				Sent:         result.Sent,
				coverageJSON: result.Coverage.json(),
			}
			if err != nil {
				return nil, s.apiFailed("send", err, answer)
			}
			return answer, nil
		}, nil
	})
}
