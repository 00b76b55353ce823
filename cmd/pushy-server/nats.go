package main

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
)

var natsSettings = []setting{
	{"broker.nats.url", `a text such as "nats://127.0.0.1:4222"`, func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.URL) && c.nats.URL != "" }},
	{"broker.nats.user", "a text", func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.User) }},
	{"broker.nats.password", "a text", func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.Password) }},
	{"broker.nats.token", "a text", func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.Token) }},
	{"broker.nats.credentials", "the name of a file", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.nats.Credentials) && c.nats.Credentials != ""
	}},
	{"broker.nats.tls", "true or false", func(c *config, v json.RawMessage) bool { return tlsOn(v, &c.nats.TLS) }},
	{"broker.nats.prefix", "a text", func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.Prefix) && c.nats.Prefix != "" }},
	{"broker.nats.requireAtStart", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.RequireAtStart) }},
	{"broker.nats.timeout", "a whole number of milliseconds", func(c *config, v json.RawMessage) bool { return millis(v, &c.nats.Timeout) }},
	{"broker.nats.lease", "a whole number of milliseconds", func(c *config, v json.RawMessage) bool { return millis(v, &c.nats.Lease) }},
	{"broker.nats.replicas", "a whole number from 1 to 5", func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.Replicas) && c.nats.Replicas > 0 }},
	{"broker.nats.memory", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.nats.Memory) }},
}

func (c *config) natsEnv(getenv func(string) string) {
	if p := getenv("PUSHY_NATS_PASSWORD"); p != "" {
		c.nats.Password = p
	}
	if t := getenv("PUSHY_NATS_TOKEN"); t != "" {
		c.nats.Token = t
	}
}

func (c *config) connectNATS(log *slog.Logger) (pushy.Broker, pushy.PresenceStore, error) {
	o := c.nats
	o.Logger = log
	b, err := nats.New(context.Background(), o)
	if err != nil {
		return nil, nil, err
	}
	return b, b, nil
}
