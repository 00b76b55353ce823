package main

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gopushy/pushy/backend"
)

// Online knows who is in which channel, from the webhooks that it receives. Your app keeps this in
// its database, and adds the id of each event in the same transaction.
type Online struct {
	Secrets []string
	// Reload is called when events were lost: then the lists of channels and members must be
	// read again (backend.Client.ListChannels and ListMembers).
	Reload func(reason string)

	mu       sync.Mutex
	channels map[string]map[string]string // users by memberId, by channel
	handled  map[string]time.Time         // when an event was handled, by id
	swept    time.Time                    // when old ids were removed
}

// remembered is for how long the id of an event is kept. pushy sends an event again for an hour.
const remembered = 2 * time.Hour

// ServeHTTP receives a webhook.
func (o *Online) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	hook, err := backend.VerifyWebhook(r, o.Secrets...)
	switch {
	case errors.Is(err, backend.ErrInvalidWebhook):
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	case err != nil:
		http.Error(w, "cannot verify the webhook", http.StatusInternalServerError)
		return
	}
	for _, e := range hook.Events {
		if o.handle(e, time.Now()) {
			o.Reload(e.Reason)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// handle applies an event. It returns true if events were lost.
func (o *Online) handle(e backend.WebhookEvent, now time.Time) (lost bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.handled == nil {
		o.handled = map[string]time.Time{}
		o.channels = map[string]map[string]string{}
	}
	if _, again := o.handled[e.ID]; again {
		return false
	}
	o.handled[e.ID] = now
	if now.Sub(o.swept) > time.Minute {
		o.swept = now
		maps.DeleteFunc(o.handled, func(_ string, at time.Time) bool { return now.Sub(at) > remembered })
	}
	switch e.Event {
	case "member.joined":
		if o.channels[e.Channel] == nil {
			o.channels[e.Channel] = map[string]string{}
		}
		o.channels[e.Channel][e.MemberID] = e.User
	case "member.left":
		delete(o.channels[e.Channel], e.MemberID)
	case "channel.vacated":
		delete(o.channels, e.Channel)
	case "events.lost":
		return true
	}
	return false
}

// Users returns the users who are in a channel, sorted.
func (o *Online) Users(channel string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	users := slices.AppendSeq([]string{}, maps.Values(o.channels[channel]))
	slices.Sort(users)
	return slices.Compact(users)
}
