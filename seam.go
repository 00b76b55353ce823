package pushy

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/transport"
)

func init() {
	seam.Of = func(server any) seam.Server {
		s := server.(*Server)
		_, tokens := s.opts.Authorizer.(*tokens)
		return seam.Server{
			Hub:           s.hub,
			Extras:        &s.extras,
			Local:         s.local,
			Keys:          s.keys,
			Log:           s.log,
			Notices:       s.notices,
			Heartbeat:     s.opts.Heartbeat,
			WriteTimeout:  limit.Or(s.opts.WriteTimeout, forever),
			AcceptRate:    s.opts.Limits.AcceptRate,
			OwnAuthorizer: !tokens,
			Now:           s.now,
			Channel:       s.channelName,
			Origin:        s.checkOrigin,
			HasAccept:     s.opts.Accept != nil,
			Reserve: func(r *http.Request, version uint8, user string) (*seam.Place, *seam.Refusal) {
				return s.reserve(r, false, hub.Client{
					Version: version,
					UserID:  user,
				})
			},
			HandlePrompt: func(name string, answer func(context.Context, json.RawMessage) (any, error)) {
				s.setAnswer(name, askable{
					run:    answer,
					prompt: true,
				})
			},
			SetAskTimeout: s.nodes.SetTimeout,
			Admit: func(w http.ResponseWriter, r *http.Request) (*transport.Ticket, bool) {
				return s.admit(w, r, false)
			},
			Transport:        s.transportConfig(),
			ClientEventBytes: s.opts.Limits.ClientEventBytes,
			PresenceBytes:    s.opts.Limits.PresenceBytes,
			TriggerBytes:     s.opts.Limits.TriggerBytes,
			BodyTimeout:      limit.Or(s.opts.BodyTimeout, forever),
			Foreign:          foreign{s},
		}
	}
}
