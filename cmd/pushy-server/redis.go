package main

import (
	"encoding/json"
	"log/slog"
	"strings"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/redis"
)

var redisSettings = append([]setting{
	{"broker.redis.addresses", `an array of strings such as "127.0.0.1:6379"`, func(c *config, v json.RawMessage) bool {
		return stringList(v, &c.redis.Addresses)
	}},
	{"broker.redis.cluster", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.redis.Cluster) }},
	{"broker.redis.sentinelMaster", "a string", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.redis.SentinelMaster)
	}},
	{"broker.redis.username", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.redis.Username) }},
	{"broker.redis.password", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.redis.Password) }},
	{"broker.redis.sentinelUsername", "a string", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.redis.SentinelUsername)
	}},
	{"broker.redis.sentinelPassword", "a string", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.redis.SentinelPassword)
	}},
	{"broker.redis.database", "a whole number from 0", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.redis.Database) && c.redis.Database >= 0
	}},
	{"broker.redis.prefix", "a string without braces, not empty", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.redis.Prefix) && c.redis.Prefix != "" && !strings.ContainsAny(c.redis.Prefix, "{}")
	}},
	{"broker.redis.requireAtStart", "true or false", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.redis.RequireAtStart)
	}},
	{"broker.redis.timeout", millisRule, func(c *config, v json.RawMessage) bool { return millis(v, &c.redis.Timeout) }},
	{"broker.redis.checkEveryAppend", "true or false", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.redis.CheckEveryAppend)
	}},
	removed("broker.redis.lease", leaseAdvice),
}, tlsSettings("broker.redis.")...)

func (c *config) redisEnv(getenv func(string) string) {
	if p := getenv("PUSHY_REDIS_PASSWORD"); p != "" {
		c.redis.Password = p
	}
	if p := getenv("PUSHY_REDIS_SENTINEL_PASSWORD"); p != "" {
		c.redis.SentinelPassword = p
	}
}

func (c *config) makeRedis(log *slog.Logger) broker.Broker {
	o := c.redis
	o.Logger = log
	return redis.New(o)
}
