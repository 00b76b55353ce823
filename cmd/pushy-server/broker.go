package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/broker/redis"
)

// engine is one kind of broker, a member of "broker".
type engine struct {
	settings []setting // their keys begin with "broker.", the engine's name and a dot
	// env takes what the environment has, which wins over the file.
	env func(c *config, getenv func(string) string)
	// check returns what is wrong with the settings, without connecting.
	check func(c *config) error
	// make returns what a Server is given.
	make func(c *config, log *slog.Logger) broker.Broker
}

// engines are the members that "broker" may have, by key. A config has one of them.
var engines = map[string]engine{
	"nats": {
		settings: natsSettings,
		env:      (*config).natsEnv,
		check:    func(c *config) error { return c.nats.Validate() },
		make:     (*config).makeNATS,
	},
	"redis": {
		settings: redisSettings,
		env:      (*config).redisEnv,
		check:    func(c *config) error { return c.redis.Validate() },
		make:     (*config).makeRedis,
	},
}

// readBroker takes the value of "broker": {"redis": {…}} or {"nats": {…}}.
func (c *config) readBroker(object json.RawMessage, at int) error {
	all, err := members(object, at)
	if err != nil {
		var f *fault
		if errors.As(err, &f) {
			f.text = "broker " + f.text
		}
		return err
	}
	for _, m := range all {
		e, known := engines[m.key]
		switch {
		case !known:
			return &fault{m.keyAt, "unknown key " + shown("broker."+m.key)}
		case c.engine != "":
			return &fault{m.keyAt, "broker has " + c.engine + " already: it can have only one"}
		}
		c.engine = m.key
		if err := c.read(m.value, m.valueAt, "broker."+m.key+".", e.settings); err != nil {
			return err
		}
	}
	if c.engine == "" {
		return &fault{at, "broker is empty: it needs redis or nats"}
	}
	return nil
}

// checkBroker reads the files that the broker's settings name, and returns what is
// wrong with them or with the settings. It connects to nothing.
func (c *config) checkBroker() error {
	if c.engine == "" {
		return nil
	}
	tlsConfig, cert, err := c.brokerTLS.load()
	if err != nil {
		return fmt.Errorf("broker.%s.%w", c.engine, err)
	}
	c.brokerCert = cert
	c.redis.TLS, c.nats.TLS = tlsConfig, tlsConfig
	return byKey(engines[c.engine].check(c))
}

// broker returns the broker that the config names, which the Server opens, or nil.
func (c *config) broker(log *slog.Logger) broker.Broker {
	if c.engine == "" {
		return nil
	}
	return engines[c.engine].make(c, log)
}

// gone is a key that earlier versions had. what says what to do about it.
func gone(key, what string) setting {
	return setting{key, "", func(c *config, _ json.RawMessage) bool {
		c.why = errors.New(key + " is not a setting any more: " + what)
		return false
	}}
}

const goneLease = "the members of a server that is silent for 15 s leave; remove the key"

// stringList reads an array of strings, none of them null or empty.
func stringList(v json.RawMessage, into *[]string) bool {
	var list []*string
	if !decode(v, &list) || len(list) == 0 {
		return false
	}
	for _, s := range list {
		if s == nil || *s == "" {
			return false
		}
		*into = append(*into, *s)
	}
	return true
}

// nonEmpty reads a string that is not empty.
func nonEmpty(field func(*config) *string) func(*config, json.RawMessage) bool {
	return func(c *config, v json.RawMessage) bool {
		to := field(c)
		return decode(v, to) && *to != ""
	}
}

// millis reads a number of milliseconds above 0.
func millis(v json.RawMessage, into *time.Duration) bool {
	var n int64
	ok := decode(v, &n) && n > 0 && n <= math.MaxInt32
	*into = time.Duration(n) * time.Millisecond
	return ok
}

// byKey turns a broker's error about one of its Options into one about the
// config's key; any other error, and nil, stays as it is.
func byKey(err error) error {
	var r *redis.SettingError
	var n *nats.SettingError
	switch {
	case errors.As(err, &r):
		return &keyError{"broker.redis.", r.Setting, r.Err}
	case errors.As(err, &n):
		return &keyError{"broker.nats.", n.Setting, n.Err}
	}
	return err
}

// keyError is an error about a config key that a broker knows as a field of its
// Options. Other fields that the error mentions are named by their keys, too.
type keyError struct {
	path  string
	field string
	err   error
}

func (e *keyError) Error() string {
	text := optionsField.ReplaceAllStringFunc(e.err.Error(), func(match string) string {
		field := match[strings.LastIndexAny(match, ". ")+1:]
		return strings.TrimSuffix(strings.TrimSuffix(match, field), "Options.") + e.path + keyOf(field)
	})
	return e.path + keyOf(e.field) + ": " + text
}

func (e *keyError) Unwrap() error { return e.err }

// optionsField is a field in a broker's error, by its full name or, where no other word
// is written like that, by the short one.
var optionsField = regexp.MustCompile(`\bOptions\.[A-Z][A-Za-z]*` +
	`|\b(?:Username|Password|Database|Sentinel(?:Master|Username|Password))\b|\b(?:set|neither) (?:TLS|Cluster)\b`)

// keyOf is the key for a field of Options: its first letter is small, or all of
// URL, TLS and NKey.
func keyOf(field string) string {
	if field == strings.ToUpper(field) || field == "NKey" {
		return strings.ToLower(field)
	}
	return strings.ToLower(field[:1]) + field[1:]
}

// byKeys lets what the log says of a setting name its key in the config: in errors of
// a broker, and in what the library advises.
func byKeys(_ []string, a slog.Attr) slog.Attr {
	if err, ok := a.Value.Any().(error); ok {
		a.Value = slog.AnyValue(byKey(err))
	}
	if a.Value.Kind() != slog.KindString {
		return a
	}
	switch a.Key {
	case slog.MessageKey, "hint":
		a.Value = slog.StringValue(optionsToKeys(a.Value.String()))
	case "small", "because of", "effect": // limits that do not fit each other
		a.Value = slog.StringValue(limitName.ReplaceAllStringFunc(a.Value.String(), func(name string) string {
			return "limits." + keyOf(strings.TrimPrefix(name, "Limits."))
		}))
	}
	return a
}

var limitName = regexp.MustCompile(`\b(?:Limits\.)?(?:MaxBuffered|ConnBuffer|TriggerBytes|MessageBytes|` +
	`PresenceBytes|Members|Channels|CommandRate|CommandBurst)\b`)
