package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/webhook"
)

// webhooks is the content of the key webhooks.
type webhooks struct {
	options  webhook.Options
	prefixes []string // of the channels; nil for all
	pusher   bool     // the format is that of Pusher
}

var webhookSettings = []setting{
	{"webhooks.url", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.webhooks.options.URL) }},
	{"webhooks.format", `"standard" or "pusher"`, func(c *config, v json.RawMessage) bool {
		var format string
		ok := decode(v, &format)
		c.webhooks.pusher = format == formatPusher
		return ok && (format == formatStandard || format == formatPusher)
	}},
	{"webhooks.secret", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.webhooks.options.Secret) }},
	{"webhooks.oldSecrets", stringsRule, func(c *config, v json.RawMessage) bool {
		return decodeStrings(v, &c.webhooks.options.OldSecrets)
	}},
	{"webhooks.events", stringsRule, func(c *config, v json.RawMessage) bool {
		return decodeStrings(v, &c.webhooks.options.Events)
	}},
	{"webhooks.channels", "an array of beginnings of names, in lower case", func(c *config, v json.RawMessage) bool {
		p := &c.webhooks.prefixes
		return decodeStrings(v, p) && !slices.ContainsFunc(*p, func(s string) bool { return s != strings.ToLower(s) })
	}},
	{"webhooks.delay", `a string such as "3s", at most "1m"; "0s" is none`, func(c *config, v json.RawMessage) bool {
		d := &c.webhooks.options.Delay
		ok := duration(v, d) && *d >= 0
		if *d == 0 {
			*d = -1
		}
		return ok
	}},
}

// The formats of webhooks.
const (
	formatStandard = "standard"
	formatPusher   = "pusher"
)

const stringsRule = "an array of strings"

// decodeStrings reads an array that is not empty and has no null.
func decodeStrings(v json.RawMessage, into *[]string) bool {
	var list []*string
	if !decode(v, &list) || slices.Contains(list, nil) {
		return false
	}
	*into = []string{}
	for _, s := range list {
		*into = append(*into, *s)
	}
	return true
}

// checkWebhooks adds the secret of the environment or of pusher, which was checked before, and
// returns what webhook.New refuses.
func (c *config) checkWebhooks(getenv func(string) string) error {
	if c.webhooks == nil {
		return nil
	}
	o := &c.webhooks.options
	if secret := getenv("PUSHY_WEBHOOK_SECRET"); secret != "" {
		o.Secret = secret
	}
	switch {
	case o.URL == "":
		return errors.New("webhooks.url is missing")
	case c.webhooks.pusher && c.pusher == nil:
		return errors.New(`pusher is missing: webhooks.format "pusher" needs its key and secret`)
	case c.webhooks.pusher && o.Secret != "":
		return errors.New(`webhooks.secret and PUSHY_WEBHOOK_SECRET must not be set with webhooks.format "pusher": pusher.secret signs`)
	case c.webhooks.pusher && len(o.OldSecrets) > 0:
		return errors.New(`webhooks.oldSecrets must not be set with webhooks.format "pusher": pusher.secret signs`)
	case c.webhooks.pusher:
		o.Format = webhook.Pusher(c.pusher.options.Key, c.pusher.options.Secret)
	case o.Secret == "":
		return errors.New("webhooks.secret is missing; it can also be given in PUSHY_WEBHOOK_SECRET")
	}
	if c.webhooks.prefixes != nil {
		o.Channels = c.webhooks.includes
	}
	server := c.serverOptions()
	server.Logger = slog.New(slog.DiscardHandler)
	srv, err := pushy.New(server)
	if err != nil {
		return err // checked before
	}
	defer func() { _ = srv.Close() }()
	hooks, err := webhook.New(srv, *o)
	if err != nil {
		return webhookKeys(err)
	}
	return hooks.Close(context.Background())
}

// includes compares names in lower case: those that have capitals are of Pusher clients.
func (w *webhooks) includes(channel string) bool {
	channel = strings.ToLower(channel)
	return slices.ContainsFunc(w.prefixes, func(prefix string) bool { return strings.HasPrefix(channel, prefix) })
}

var webhookOption = regexp.MustCompile(`^webhook: Options\.([A-Za-z]+)`)

// webhookKeys replaces the name of an option by its key.
func webhookKeys(err error) error {
	return errors.New(webhookOption.ReplaceAllStringFunc(err.Error(), func(name string) string {
		return "webhooks." + keyOf(strings.TrimPrefix(name, "webhook: Options."))
	}))
}
