package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"strings"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pusher"
)

// pusherConfig is the content of the key pusher.
type pusherConfig struct {
	options      pusher.Options
	clientEvents bool
}

var pusherSettings = []setting{
	{"pusher.app", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.pusher.options.App) }},
	{"pusher.key", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.pusher.options.Key) }},
	{"pusher.secret", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.pusher.options.Secret) }},
	{"pusher.oldSecrets", stringsRule, func(c *config, v json.RawMessage) bool {
		return decodeStrings(v, &c.pusher.options.OldSecrets)
	}},
	{"pusher.clientEvents", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.pusher.clientEvents) }},
	{"pusher.maxEventBytes", `a number of bytes above 0, or a string such as "10K"`, func(c *config, v json.RawMessage) bool {
		n, ok := parseBytes(v)
		c.pusher.options.MaxEventBytes = int(n)
		return ok && n > 0 && n <= 1<<30
	}},
}

// channels returns the rules for channels, with what their names mean for Pusher clients.
func (p *pusherConfig) channels(rules func(string) pushy.ChannelOptions) func(string) pushy.ChannelOptions {
	if p.clientEvents {
		return pusher.ChannelsWithClientEvents(rules)
	}
	return pusher.Channels(rules)
}

// checkPusher adds the secret of the environment, and returns what pusher.New refuses.
func (c *config) checkPusher(getenv func(string) string) error {
	if c.pusher == nil {
		return nil
	}
	o := &c.pusher.options
	if secret := getenv("PUSHY_PUSHER_SECRET"); secret != "" {
		o.Secret = secret
	}
	switch {
	case o.App == "":
		return errors.New("pusher.app is missing")
	case o.Key == "":
		return errors.New("pusher.key is missing")
	case o.Secret == "":
		return errors.New("pusher.secret is missing; it can also be given in PUSHY_PUSHER_SECRET")
	}
	server := c.serverOptions()
	server.Logger = slog.New(slog.DiscardHandler)
	srv, err := pushy.New(server)
	if err != nil {
		return err // checked before
	}
	defer func() { _ = srv.Close() }()
	_, err = pusher.New(srv, *o)
	return pusherKeys(err)
}

var pusherOption = regexp.MustCompile(`^pusher: Options\.([A-Za-z]+)`)

// pusherKeys replaces the name of an option by its key.
func pusherKeys(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(pusherOption.ReplaceAllStringFunc(err.Error(), func(name string) string {
		return "pusher." + keyOf(strings.TrimPrefix(name, "pusher: Options."))
	}))
}
