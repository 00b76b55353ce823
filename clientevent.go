package pushy

import (
	"encoding/json"
	"errors"
	"log/slog"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// clientEvents is what the protocol needs for the events that clients send to each other.
func (s *Server) clientEvents() *pushyjson.ClientEvents {
	return &pushyjson.ClientEvents{
		Name:    s.eventName,
		Decide:  s.decideClientEvent,
		Ignored: s.clientEventIgnored,
		Failed: func(channel string, err error) {
			s.notices.Warn("cannot publish the event of a client", "",
				slog.String("channel", channel),
				slog.Any("error", err))
		},
		Bytes: s.opts.Limits.ClientEventBytes,
	}
}

var errClientEventFailed = errors.New("pushy: ChannelOptions.ClientEvent failed")

// decideClientEvent asks the host about an event that a client sends.
func (s *Server) decideClientEvent(c *hub.Conn, channel, event string, data []byte) ([]byte, *pushyjson.Error) {
	if s.memory.overloaded.Load() {
		return nil, pushyjson.ErrUnavailable
	}
	var shown json.RawMessage
	err := errClientEventFailed // unless it returns
	s.decide("ChannelOptions.ClientEvent", func() {
		run := s.opts.Channel(channel).ClientEvent
		if run == nil {
			err = errors.New("pushy: Options.Channel returned different results for one channel")
			return
		}
		shown, err = run(hostConn(c), event, data)
		err = readable(err)
	})
	if err == nil && shown != nil {
		shown, err = jsvalue.Encode(shown)
	}
	seen := visible(err)
	switch {
	case err == nil:
		return shown, nil
	case seen != nil:
		return nil, seen.shown()
	case !errors.Is(err, errClientEventFailed):
		s.notices.Warn("ChannelOptions.ClientEvent failed", "",
			slog.String("channel", channel),
			slog.String("conn", c.ID()),
			slog.String("error", err.Error()),
			slog.String("hint", "to refuse an event return an *pushy.Error"))
	}
	return nil, pushyjson.ErrInternal
}

// clientEventIgnored logs an event that has no effect. The client is not notified, because the
// protocol has always ignored such messages.
func (s *Server) clientEventIgnored(c *hub.Conn, channel, event string) {
	s.notices.Warn("an event of a client was ignored", "",
		slog.String("channel", channel),
		slog.String("event", event),
		slog.String("conn", c.ID()),
		slog.String("hint", "clients can send events in channels for which Options.Channel sets ClientEvent"))
}
