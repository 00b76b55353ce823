package pushy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/httpapi"
	"github.com/gopushy/pushy/internal/httperror"
)

// serveTrigger publishes what a backend asks for with a signed request
// (PROTOCOL.md, section 7). A 201 says that every subscriber on this node has
// the event in its queue.
func (s *Server) serveTrigger(w http.ResponseWriter, r *http.Request, name string) {
	t, refused := s.triggers.Read(w, r, name)
	answer := httpapi.Refused(refused)
	if refused == nil {
		publish := func() *httpapi.TriggerAnswer { return s.publishTrigger(r, t) }
		if t.Repeat == "" {
			answer = publish()
		} else {
			answer = s.repeats.Once(r.Context(), t.Repeat, s.now(), publish)
		}
	}
	if code, reason, refused := answer.Refusal(); refused {
		s.notices.Warn("trigger refused", code,
			slog.String("code", code),
			slog.String("channel", httperror.Shown(name)),
			slog.String("event", httperror.Shown(r.URL.Query().Get("event"))),
			slog.String("hint", httperror.Shown(reason)))
	}
	answer.Write(w)
}

var errPublishEnded = errors.New("pushy: the Broker's Append ended its goroutine")

// publishTrigger does not end with the request: a publisher that leaves, or
// middleware with a deadline, must not make an event look lost that a Broker has
// taken, to be delivered again by the retry. The Server's own time for a Broker
// bounds it.
func (s *Server) publishTrigger(r *http.Request, t *httpapi.Trigger) *httpapi.TriggerAnswer {
	if retry, ok := s.publishAllowed(1); !ok {
		return httpapi.Refused(httpapi.RefuseEvents(retry))
	}
	e := broker.Entry{
		Kind:  broker.Event,
		Event: t.Event,
		Data:  t.Data,
	}
	if t.Except != "" {
		e.Except = []string{t.Except}
	}
	receipt, err := s.publishApart(r.Context(), t.Channel, e)
	if err == nil {
		return httpapi.Done(receipt.Receivers != broker.None, receipt.Position.String())
	}
	if !errors.Is(err, ErrClosed) && !errors.Is(err, errPublishEnded) { // the latter is logged
		s.notices.Warn("cannot publish a trigger", "",
			slog.String("channel", t.Channel),
			slog.String("error", err.Error()))
	}
	if errors.Is(err, broker.ErrTooLarge) {
		return httpapi.Refused(httpapi.Refuse(http.StatusRequestEntityTooLarge, "Event too large for the broker"))
	}
	return httpapi.Refused(httpapi.Unavailable())
}

// publishApart is publish without ctx's end. A Broker of the host's may end the
// goroutine of its Append, but not the caller's.
func (s *Server) publishApart(ctx context.Context, channel string, e broker.Entry) (Receipt, error) {
	if s.local { // no code of the host runs, and nothing waits
		return s.publish(context.Background(), channel, e)
	}
	var receipt Receipt
	err := errPublishEnded // unless it returns
	hosted(func() {
		receipt, err = s.publish(context.WithoutCancel(ctx), channel, e)
	})
	return receipt, err
}

// repeatsFull says that triggers are refused because too many ids are
// remembered.
func (s *Server) repeatsFull() {
	s.notices.Warn("trigger refused: too many ids are remembered", "",
		slog.Int("limit", httpapi.MaxRepeats),
		slog.String("hint", "send fewer triggers with an id, or spread them over several servers; "+
			"each id is remembered for 20 minutes"))
}
