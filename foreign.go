package pushy

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/origin"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/transport"
)

// foreign is what packages with other protocols, such as pusher, need of the Server.
func (s *Server) foreign() seam.Foreign {
	o := &s.opts
	return seam.Foreign{
		Transport: s.transportConfig(),
		Enter: func(r *http.Request, client hub.Client) (*seam.Place, *seam.Refusal) {
			return s.reserve(r, false, client)
		},
		MayTurnAway: func() bool {
			_, ok := s.rates.tryAgain.Take(time.Now(), 1)
			return ok
		},
		CheckChannel: func(name string) error {
			if o.CheckChannel == nil {
				return nil
			}
			return s.check("Options.CheckChannel", o.CheckChannel, name)
		},
		CheckEvent: func(name string) error {
			if o.CheckEvent == nil {
				return nil
			}
			return s.check("Options.CheckEvent", o.CheckEvent, name)
		},
		ClientEvent: func(c *hub.Conn, channel, event string, data []byte) (shown []byte, refused string) {
			shown, err := s.decideClientEvent(c, channel, event, data)
			if err != nil {
				return nil, err.Message
			}
			return shown, ""
		},
		ClientEventBytes: o.Limits.ClientEventBytes,
		PresenceBytes:    o.Limits.PresenceBytes,
		TriggerBytes:     o.Limits.TriggerBytes,
		BodyTimeout:      limit.Or(o.BodyTimeout, forever),
		AllowCORS:        origin.AllowCORS,
		Decide:           func(name string, run func()) bool { return s.decide(name, run) == nil },
		Banned:           func(user string) (string, bool) { return s.banned(user, "") },
		Publish: func(ctx context.Context, channel string, e broker.Entry) error {
			_, err := s.publish(ctx, channel, e)
			return err
		},
		PublishAllowed:   s.publishAllowed,
		CountSubscribers: s.countForeign,
		ListChannels:     s.listForeign,
		ListMembers:      s.membersForeign,
		SendUser: func(ctx context.Context, user, event string, data []byte) error {
			_, err := s.send(ctx, directMessage{
				User:  user,
				Event: event,
				Data:  data,
			})
			return err
		},
		Overloaded: s.memory.overloaded.Load,
	}
}

// transportConfig has the limits of a Session.
func (s *Server) transportConfig() transport.Config {
	return transport.Config{
		MaxMessage:   limit.Or(s.opts.Limits.MessageBytes, math.MaxInt32),
		Heartbeat:    s.opts.Heartbeat,
		WriteTimeout: limit.Or(s.opts.WriteTimeout, forever),
		CloseTimeout: closeTimeout,
		Reading:      &s.memory.reading,
	}
}

// takeClaims sets the Claims of a request, and its Grant, if the protocol of the client has verified a
// credential. It returns whether its user is banned, and why.
func (s *Server) takeClaims(request *AuthRequest, r *hub.AuthRequest) (reason string, banned bool) {
	if r.Claims == nil {
		return "", false
	}
	request.Claims = &Claims{
		Channels:     []string{r.Claims.Channel},
		Conn:         r.Conn.ID(),
		User:         r.Claims.User,
		Data:         r.Claims.Data,
		ClientEvents: true,
	}
	request.Grant.ClientEvents = true
	if r.Claims.User == "" {
		return "", false
	}
	return s.banned(r.Claims.User, "")
}

// noteCase logs that the name of a channel is brought to lower case, if a client with another
// protocol can be in the channel that has its spelling.
func (s *Server) noteCase(name, lower string) {
	if name != lower && s.hub.HasForeign() {
		s.notices.Warn("the name of a channel was brought to lower case", "",
			slog.String("channel", httperror.Shown(name)),
			slog.String("hint", "Pusher clients distinguish the case of names: publish with Adapter.Publish of package "+
				"pusher, or with Pusher's HTTP API, to reach those that are subscribed to this spelling"))
	}
}

// countForeign is seam.Foreign.CountSubscribers.
func (s *Server) countForeign(ctx context.Context, channels []string) (counts []uint64, silent []string, err error) {
	counts = make([]uint64, len(channels))
	coverage, err := gather(ctx, s, askCount, channels, func(more []uint64) bool {
		if len(more) != len(channels) {
			return false
		}
		for i, n := range more {
			counts[i] += n
		}
		return true
	})
	return counts, coverage.Silent, err
}

// listForeign is seam.Foreign.ListChannels.
func (s *Server) listForeign(ctx context.Context, prefix, after string) (
	page []seam.ListedChannel, next string, silent []string, err error,
) {
	list, err := s.listChannels(ctx, channelQuestion{
		Prefix: prefix,
		After:  after,
		Limit:  maxPage,
	})
	for _, c := range list.items {
		page = append(page, seam.ListedChannel{
			Name:        c.Name,
			Subscribers: c.Subscribers,
		})
	}
	return page, list.next, list.Silent, err
}

// membersForeign is seam.Foreign.ListMembers.
func (s *Server) membersForeign(ctx context.Context, channel, after string) (
	page []seam.ListedMember, next string, silent []string, err error,
) {
	list, err := s.listMembers(ctx, memberQuestion{
		Channel: channel,
		After:   after,
		Limit:   maxPage,
	})
	for _, m := range list.Members {
		page = append(page, seam.ListedMember{
			ID:   m.ID,
			User: m.User,
			JSON: m.JSON,
		})
	}
	return page, list.Next, list.Silent, err
}
