package pushy

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/calls"
	"github.com/gopushy/pushy/internal/httpapi"
)

func (k Kicked) answer() calls.KickAnswer {
	return calls.KickAnswer{
		Closed:   k.Closed,
		Coverage: k.Coverage.answer(),
	}
}

func (s *Server) kickCall() apiCall {
	return newCall(false, func(b calls.Kick) (apiRun, *httpapi.Refusal) {
		k := Kick{
			Target: b.Target,
			Reason: b.Reason,
		}
		if b.Until != nil {
			if *b.Until <= 0 { // one of these numbers is the zero time
				return nil, badName("until", errPast)
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
				return nil, s.apiFailed("kick", err, result.answer())
			}
			return result.answer(), nil
		}, nil
	})
}

func (s *Server) unbanCall() apiCall {
	return newCall(false, func(b calls.Unban) (apiRun, *httpapi.Refusal) {
		kind, _, err := parseTarget(b.Target)
		if err == nil && kind == targetConn {
			err = errors.New(`must begin with "user:" or "channel:"`)
		}
		if err != nil {
			return nil, badName("target", err)
		}
		return func(ctx context.Context, _ *httpapi.Call) (any, *httpapi.Refusal) {
			coverage, lifted, err := s.Unban(ctx, b.Target)
			answer := calls.UnbanAnswer{
				Lifted:   lifted,
				Coverage: coverage.answer(),
			}
			if err != nil {
				return nil, s.apiFailed("unban", err, answer)
			}
			return answer, nil
		}, nil
	})
}

func (s *Server) bansCall() apiCall {
	return newCall(true, func(b calls.Bans) (apiRun, *httpapi.Refusal) {
		page := pageOf(b.Page)
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
			answer := calls.BansAnswer{Bans: []calls.Ban{}}
			for _, ban := range list {
				if ban.Target <= b.After || !strings.HasPrefix(ban.Target, b.Prefix) {
					continue
				}
				if len(answer.Bans) == page.Limit {
					answer.Next = answer.Bans[page.Limit-1].Target
					break
				}
				answer.Bans = append(answer.Bans, calls.Ban{
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

func (s *Server) sendCall() apiCall {
	return newCall(false, func(b calls.Send) (apiRun, *httpapi.Refusal) {
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
			answer := calls.SendAnswer{
				Sent:     result.Sent,
				Coverage: result.Coverage.answer(),
			}
			if err != nil {
				return nil, s.apiFailed("send", err, answer)
			}
			return answer, nil
		}, nil
	})
}
