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

// foreign is the seam.Foreign of a Server.
type foreign struct{ server *Server }

func (f foreign) Enter(r *http.Request, client hub.Client) (*seam.Place, *seam.Refusal) {
	return f.server.reserve(r, false, client)
}

func (f foreign) MayTurnAway() bool {
	_, ok := f.server.rates.tryAgain.Take(time.Now(), 1)
	return ok
}

func (f foreign) CheckChannel(name string) error {
	rule := f.server.opts.CheckChannel
	if rule == nil {
		return nil
	}
	return f.server.check("Options.CheckChannel", rule, name)
}

func (f foreign) CheckEvent(name string) error {
	rule := f.server.opts.CheckEvent
	if rule == nil {
		return nil
	}
	return f.server.check("Options.CheckEvent", rule, name)
}

func (f foreign) ClientEvent(c *hub.Conn, channel, event string, data []byte) (shown []byte, refused string) {
	shown, err := f.server.decideClientEvent(c, channel, event, data)
	if err != nil {
		return nil, err.Message
	}
	return shown, ""
}

func (foreign) AllowCORS(head http.Header, r *http.Request) { origin.AllowCORS(head, r) }

func (f foreign) Decide(name string, run func()) bool { return f.server.decide(name, run) == nil }

func (f foreign) Banned(user string) (reason string, banned bool) { return f.server.banned(user, "") }

func (f foreign) Publish(ctx context.Context, channel string, e broker.Entry) error {
	_, err := f.server.publish(ctx, channel, e)
	return err
}

func (f foreign) PublishAllowed(n int) (retry time.Duration, ok bool) {
	return f.server.publishAllowed(n)
}

func (f foreign) SendUser(ctx context.Context, user, event string, data []byte) error {
	_, err := f.server.send(ctx, directMessage{
		User:  user,
		Event: event,
		Data:  data,
	})
	return err
}

func (f foreign) Overloaded() bool { return f.server.memory.overloaded.Load() }

func (f foreign) CountSubscribers(ctx context.Context, channels []string) (
	counts []uint64, silent []string, err error,
) {
	counts = make([]uint64, len(channels))
	coverage, err := gather(ctx, f.server, askCount, channels, func(more []uint64) bool {
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

func (f foreign) ListChannels(ctx context.Context, prefix, after string) (
	page []seam.ListedChannel, next string, silent []string, err error,
) {
	list, err := f.server.listChannels(ctx, channelQuestion{
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

func (f foreign) ListMembers(ctx context.Context, channel, after string) (
	page []seam.ListedMember, next string, silent []string, err error,
) {
	list, err := f.server.listMembers(ctx, memberQuestion{
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

// transportConfig has the limits of a Session.
func (s *Server) transportConfig() transport.Config {
	return transport.Config{
		MaxMessage:   limit.Or(s.opts.Limits.MessageBytes, math.MaxInt32),
		Heartbeat:    s.opts.Heartbeat,
		WriteTimeout: limit.Or(s.opts.WriteTimeout, forever),
		CloseTimeout: closeTimeout,
		RespondFirst: s.opts.Hooks.Connect != nil,
		Reading:      &s.memory.reading,
		Deflate:      s.opts.Compress.transport(),
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
