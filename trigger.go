package pushy

import (
	"errors"
	"net/http"

	"github.com/gopushy/pushy/internal/triggerhttp"
)

// serveTrigger publishes what a backend asks for with a signed request
// (PROTOCOL.md, section 7). A 201 says that every subscriber on this node has
// the event in its queue.
func (s *Server) serveTrigger(w http.ResponseWriter, r *http.Request, name string) {
	t, answer := s.triggers.Read(w, r, name)
	if answer == nil {
		publish := func() *triggerhttp.Answer { return s.publishTrigger(r, t) }
		if t.Repeat == "" {
			answer = publish()
		} else {
			answer = s.repeats.Once(r.Context(), t.Repeat, s.now(), publish)
		}
	}
	answer.Write(w)
}

func (s *Server) publishTrigger(r *http.Request, t *triggerhttp.Trigger) *triggerhttp.Answer {
	received, err := s.publish(r.Context(), t.Channel, Message{Event: t.Event, Data: t.Data, Except: t.Except})
	if err == nil {
		return triggerhttp.Done(received != None)
	}
	if !errors.Is(err, ErrClosed) {
		s.log.Error("cannot publish", "channel", t.Channel, "error", err)
	}
	return triggerhttp.Unavailable()
}
