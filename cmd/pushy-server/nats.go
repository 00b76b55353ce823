package main

import (
	"encoding/json"
	"log/slog"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
)

const millisRule = "a whole number of milliseconds above 0"

var natsSettings = append([]setting{
	{
		"broker.nats.url",
		`a string such as "nats://127.0.0.1:4222"`,
		nonEmpty(func(c *config) *string { return &c.nats.URL }),
	},
	{"broker.nats.user", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.User) }},
	{"broker.nats.password", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.Password) }},
	{"broker.nats.token", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.Token) }},
	{
		"broker.nats.credentials",
		"the name of a file",
		nonEmpty(func(c *config) *string { return &c.nats.Credentials }),
	},
	{"broker.nats.nkey", "the name of a file", nonEmpty(func(c *config) *string { return &c.nats.NKey })},
	{"broker.nats.prefix", "a string, not empty", nonEmpty(func(c *config) *string { return &c.nats.Prefix })},
	{"broker.nats.inboxPrefix", "a string, not empty", nonEmpty(func(c *config) *string { return &c.nats.InboxPrefix })},
	{"broker.nats.requireAtStart", "true or false", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.nats.RequireAtStart)
	}},
	{"broker.nats.timeout", millisRule, func(c *config, v json.RawMessage) bool { return millis(v, &c.nats.Timeout) }},
	{"broker.nats.replicas", "a whole number from 1 to 5", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.nats.Replicas) && c.nats.Replicas >= 1 && c.nats.Replicas <= 5
	}},
	{"broker.nats.files", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.Files) }},
	{"broker.nats.maxBytes", "a whole number of bytes above 0", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.nats.MaxBytes) && c.nats.MaxBytes > 0
	}},
	removed("broker.nats.lease", leaseAdvice),
	removed("broker.nats.memory", "memory is the default; for files, set broker.nats.files to true instead"),
}, tlsSettings("broker.nats.")...)

func (c *config) natsEnv(getenv func(string) string) {
	if p := getenv("PUSHY_NATS_PASSWORD"); p != "" {
		c.nats.Password = p
	}
	if t := getenv("PUSHY_NATS_TOKEN"); t != "" {
		c.nats.Token = t
	}
}

func (c *config) makeNATS(log *slog.Logger) broker.Broker {
	o := c.nats
	o.Logger = log
	return nats.New(o)
}
