package pushy

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/transport"
)

func init() {
	seam.Of = func(server any) seam.Server {
		s := server.(*Server)
		return seam.Server{
			Hub:    s.hub,
			Extras: &s.extras,
			Local:  s.local,
			Keys:   s.keys,
			Log:    s.log,
			HandlePrompt: func(name string, answer func(context.Context, json.RawMessage) (any, error)) {
				s.setAnswer(name, askable{
					run:    answer,
					prompt: true,
				})
			},
			Admit: func(w http.ResponseWriter, r *http.Request) (*transport.Ticket, bool) {
				return s.admit(w, r, false)
			},
		}
	}
}
