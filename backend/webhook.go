package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gopushy/pushy/internal/webhooksign"
)

// ErrInvalidWebhook is wrapped by the error of VerifyWebhook for a request that nobody with a
// secret has sent in the last 5 minutes. Answer it with status 401.
var ErrInvalidWebhook = errors.New("backend: invalid webhook")

// maxWebhook limits the body of a request. Package webhook sends at most 256 KiB, unless one event
// alone is larger.
const maxWebhook = 1 << 20

// Webhook is a request of package webhook.
type Webhook struct {
	ID     string    // of the request; it is the same when the request is sent again
	Time   time.Time // when the request was sent
	Events []WebhookEvent
}

// WebhookEvent is one event. docs/webhooks.md says which of the fields each event has.
type WebhookEvent struct {
	// ID is the same when an event is sent again, which can happen in another request.
	ID         string          `json:"id"`
	Event      string          `json:"event"` // such as "member.joined"
	Channel    string          `json:"channel"`
	Name       string          `json:"name"`   // of a client.event
	Data       json.RawMessage `json:"data"`   // of a client.event
	Member     json.RawMessage `json:"member"` // as the other members see it
	MemberID   string          `json:"memberId"`
	Connection string          `json:"connection"`
	User       string          `json:"user"` // pushy.Conn.UserID, or ""
	At         int64           `json:"at"`   // when it happened, in Unix milliseconds
	Revision   uint64          `json:"revision"`
	Reason     string          `json:"reason"`
	Code       int             `json:"code"`
	Count      int             `json:"count"` // of an events.lost
}

// VerifyWebhook reads the body of a request of package webhook, and verifies that one of the
// secrets has signed it: the "whsec_…" of webhook.Options. During a change of the secret, pass both.
// The error wraps ErrInvalidWebhook unless a secret is not one, or the body cannot be read.
//
// Answer with status 204 when the events are stored. Other statuses make pushy send the request
// again. Because that can also happen if the answer is lost, skip events whose ID is known.
func VerifyWebhook(r *http.Request, secrets ...string) (Webhook, error) {
	if len(secrets) == 0 {
		return Webhook{}, errors.New("backend: VerifyWebhook: no secret")
	}
	keys := make([]webhooksign.Key, len(secrets))
	for i, secret := range secrets {
		key, err := webhooksign.ParseKey(secret)
		if err != nil {
			return Webhook{}, fmt.Errorf("backend: VerifyWebhook: secret %d %w", i+1, err)
		}
		keys[i] = key
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxWebhook+1))
	switch {
	case err != nil:
		return Webhook{}, fmt.Errorf("backend: VerifyWebhook: %w", err)
	case len(body) > maxWebhook:
		return Webhook{}, fmt.Errorf("%w: the body has more than %d bytes", ErrInvalidWebhook, maxWebhook)
	}
	id, at, err := webhooksign.Verify(r.Header, keys, time.Now(), body)
	if err != nil {
		return Webhook{}, fmt.Errorf("%w: %w", ErrInvalidWebhook, err)
	}
	var content struct {
		Type string `json:"type"`
		Data struct {
			Events []WebhookEvent `json:"events"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &content); err != nil {
		return Webhook{}, fmt.Errorf("%w: the body: %w", ErrInvalidWebhook, err)
	}
	if content.Type != "pushy.events" {
		return Webhook{}, fmt.Errorf("%w: its type is %q", ErrInvalidWebhook, content.Type)
	}
	return Webhook{
		ID:     id,
		Time:   at,
		Events: content.Data.Events,
	}, nil
}
