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
}

var webhookSettings = []setting{
	{"webhooks.url", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.webhooks.options.URL) }},
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

// checkWebhooks adds the secret of the environment, and returns what webhook.New refuses.
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

func (w *webhooks) includes(channel string) bool {
	return slices.ContainsFunc(w.prefixes, func(prefix string) bool { return strings.HasPrefix(channel, prefix) })
}

var webhookOption = regexp.MustCompile(`^webhook: Options\.([A-Za-z]+)`)

// webhookKeys replaces the name of an option by its key.
func webhookKeys(err error) error {
	return errors.New(webhookOption.ReplaceAllStringFunc(err.Error(), func(name string) string {
		return "webhooks." + keyOf(strings.TrimPrefix(name, "webhook: Options."))
	}))
}
