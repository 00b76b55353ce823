package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gopushy/pushy"
)

// announcer publishes as a backend in any other process or language would: it
// knows the secret key and pushy's address, not the pushy.Server.
type announcer struct {
	people people
	secret string
	pushy  string // where pushy is mounted
}

func (a announcer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who, err := a.people.of(r)
	if err != nil {
		http.Error(w, "Say who you are first", http.StatusUnauthorized)
		return
	}
	body, err := json.Marshal(line{From: who, Text: "Greetings, lobby! A backend signed and posted this."})
	if err == nil {
		err = a.trigger(r.Context(), lobby, "announcement", body)
	}
	if err != nil {
		slog.Error("cannot announce", "error", err)
		http.Error(w, "The announcement did not go through", http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

var triggers = &http.Client{Timeout: 5 * time.Second}

// trigger publishes an event with a signed request.
func (a announcer) trigger(ctx context.Context, channel, event string, body []byte) error {
	now := time.Now().Unix()
	key, err := pushy.SignTrigger(a.secret, channel, event, now, body)
	if err != nil {
		return err
	}
	query := url.Values{"event": {event}, "timestamp": {strconv.FormatInt(now, 10)}, "auth_key": {key}}
	target := a.pushy + "/channel/" + url.PathEscape(channel) + "/trigger?" + query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := triggers.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return fmt.Errorf("trigger %s on %s: %s", event, channel, resp.Status)
	}
	return nil
}
