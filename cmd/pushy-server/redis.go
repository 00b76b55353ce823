package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/redis"
)

var redisSettings = []setting{
	{"broker.redis.addresses", `an array of texts such as "127.0.0.1:6379"`, func(c *config, v json.RawMessage) bool {
		return texts(v, &c.redis.Addresses)
	}},
	{"broker.redis.cluster", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.redis.Cluster) }},
	{"broker.redis.sentinelMaster", "a text", func(c *config, v json.RawMessage) bool { return decode(v, &c.redis.SentinelMaster) }},
	{"broker.redis.username", "a text", func(c *config, v json.RawMessage) bool { return decode(v, &c.redis.Username) }},
	{"broker.redis.password", "a text", func(c *config, v json.RawMessage) bool { return decode(v, &c.redis.Password) }},
	{"broker.redis.sentinelUsername", "a text", func(c *config, v json.RawMessage) bool { return decode(v, &c.redis.SentinelUsername) }},
	{"broker.redis.sentinelPassword", "a text", func(c *config, v json.RawMessage) bool { return decode(v, &c.redis.SentinelPassword) }},
	{"broker.redis.database", "a whole number from 0", func(c *config, v json.RawMessage) bool { return decode(v, &c.redis.Database) && c.redis.Database >= 0 }},
	{"broker.redis.tls", "true or false", func(c *config, v json.RawMessage) bool { return tlsOn(v, &c.redis.TLS) }},
	{"broker.redis.prefix", "a text without braces", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.redis.Prefix) && c.redis.Prefix != "" && !strings.ContainsAny(c.redis.Prefix, "{}")
	}},
	{"broker.redis.requireAtStart", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.redis.RequireAtStart) }},
	{"broker.redis.timeout", "a whole number of milliseconds", func(c *config, v json.RawMessage) bool { return millis(v, &c.redis.Timeout) }},
	{"broker.redis.lease", "a whole number of milliseconds", func(c *config, v json.RawMessage) bool { return millis(v, &c.redis.Lease) }},
}

func (c *config) redisEnv(getenv func(string) string) {
	if p := getenv("PUSHY_REDIS_PASSWORD"); p != "" {
		c.redis.Password = p
	}
	if p := getenv("PUSHY_REDIS_SENTINEL_PASSWORD"); p != "" {
		c.redis.SentinelPassword = p
	}
}

func (c *config) connectRedis(log *slog.Logger) (pushy.Broker, pushy.PresenceStore, error) {
	o := c.redis
	o.Logger = log
	b, err := redis.New(context.Background(), o)
	if err != nil {
		return nil, nil, err
	}
	return b, b, nil
}
