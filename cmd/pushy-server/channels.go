package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/gopushy/pushy"
)

// channelRule has the properties of the channels whose names begin with a prefix: an element
// of the array "channels".
type channelRule struct {
	prefix  string
	options pushy.ChannelOptions
}

const (
	maxHistory = 100_000
	minTTL     = time.Second
	maxTTL     = 366 * 24 * time.Hour
)

// channelSettings set the last element of config.channels. In messages, their keys have its
// index: "channels[0].prefix".
var channelSettings = []setting{
	{
		"channels.prefix",
		`a string in lower case, such as "chat-", or "" for all channels`,
		func(c *config, v json.RawMessage) bool {
			p := &c.rule().prefix
			return decode(v, p) && *p == strings.ToLower(*p)
		},
	},
	{
		"channels.history",
		fmt.Sprintf("a whole number of events from 0 to %d", maxHistory),
		func(c *config, v json.RawMessage) bool {
			n := &c.rule().options.Keep.Size
			return decode(v, n) && *n >= 0 && *n <= maxHistory
		},
	},
	{
		"channels.ttl",
		`a string such as "5m", from "1s" to "8784h"`,
		func(c *config, v json.RawMessage) bool {
			ttl := &c.rule().options.Keep.TTL
			return duration(v, ttl) && *ttl >= minTTL && *ttl <= maxTTL
		},
	},
	{
		"channels.access",
		`"name", "private" or "public"`,
		func(c *config, v json.RawMessage) bool {
			var text string
			ok := decode(v, &text)
			access, known := accesses[text]
			c.rule().options.Access = access
			return ok && known
		},
	},
	{"channels.presence", "true or false", func(c *config, v json.RawMessage) bool {
		var on bool
		ok := decode(v, &on)
		c.rule().options.Presence.Off = !on
		return ok
	}},
	{"channels.perUser", "true or false", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.rule().options.Presence.PerUser)
	}},
	{"channels.clientState", "true or false", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.rule().options.Presence.ClientState)
	}},
}

var accesses = map[string]pushy.Access{
	"name":    pushy.AccessByName,
	"private": pushy.AccessPrivate,
	"public":  pushy.AccessPublic,
}

// rule returns the element of "channels" that is being read.
func (c *config) rule() *channelRule { return &c.channels[len(c.channels)-1] }

// readChannels reads the value of "channels": [{"prefix": "chat-", …}, …].
func (c *config) readChannels(array json.RawMessage, at int) error {
	all, err := elements(array, at)
	if err != nil {
		return &fault{at, "channels must be an array of objects"}
	}
	for i, e := range all {
		c.channels = append(c.channels, channelRule{})
		path := fmt.Sprintf("channels[%d].", i)
		if err := c.read(e.value, e.at, path, channelSettings); err != nil {
			return err
		}
		if err := c.checkRule(e, path); err != nil {
			return err
		}
	}
	return nil
}

// checkRule checks the keys of the last element together.
func (c *config) checkRule(e element, path string) error {
	given := map[string]int{} // offsets
	keys, err := members(e.value, e.at)
	if err != nil {
		return err
	}
	for _, m := range keys {
		given[m.key] = m.keyAt
	}
	r := c.rule()
	at, ok := given["prefix"]
	if !ok {
		return &fault{e.at, path + `prefix is missing; "" is for all channels`}
	}
	for i, other := range c.channels[:len(c.channels)-1] {
		if other.prefix == r.prefix {
			return &fault{at, fmt.Sprintf("%sprefix is %q, as that of channels[%d]", path, r.prefix, i)}
		}
	}
	if _, ok := given["ttl"]; ok && r.options.Keep.Size == 0 {
		c.warn(path+"ttl", "config key without effect: history is not set")
	}
	for _, key := range []string{"perUser", "clientState"} {
		if _, ok := given[key]; ok && r.options.Presence.Off {
			c.warn(path+key, "config key without effect: presence is false")
		}
	}
	return nil
}

// channelOptions is pushy.Options.Channel: the longest prefix decides.
func (c *config) channelOptions(name string) pushy.ChannelOptions {
	var longest channelRule
	for _, r := range c.channels {
		if strings.HasPrefix(name, r.prefix) && len(r.prefix) >= len(longest.prefix) {
			longest = r
		}
	}
	return longest.options
}

// duration reads a string such as "5m".
func duration(v json.RawMessage, into *time.Duration) bool {
	var text string
	if !decode(v, &text) {
		return false
	}
	var err error
	*into, err = time.ParseDuration(text)
	return err == nil
}
