package app

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/gopushy/pushy/backend"
)

// announcer publishes as a backend in another process does: it has the secret key and the
// URL of pushy, but not the pushy.Server.
type announcer struct {
	people    people
	publisher *backend.Client
}

func (a announcer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who, err := a.people.of(r)
	if err != nil {
		http.Error(w, "Log in first", http.StatusUnauthorized)
		return
	}
	announcement := line{
		From: who,
		Time: time.Now().UnixMilli(),
		Text: "Greetings, lobby! A backend signed and posted this.",
	}
	if err := a.publisher.Publish(r.Context(), lobby, "announcement", announcement); err != nil {
		slog.Error("cannot announce", "error", err)
		http.Error(w, "The announcement was not sent", http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
