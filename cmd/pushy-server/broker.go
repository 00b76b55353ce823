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

// engine is one kind of broker, a key of the object "broker".
type engine struct {
	settings []setting // their keys begin with "broker.", the engine's name and a dot
	// env reads the environment, which takes precedence over the file.
	env func(c *config, getenv func(string) string)
	// check returns what is wrong with the settings, without connecting.
	check func(c *config) error
	// make returns the broker for Options.Broker.
	make func(c *config, log *slog.Logger) broker.Broker
}

// engines are the keys that "broker" can have. A config has one of them.
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

// readBroker reads the value of "broker": {"redis": {…}} or {"nats": {…}}.
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

// removed is a key that earlier versions had. advice says what to do instead.
func removed(key, advice string) setting {
	return setting{key, "", func(c *config, _ json.RawMessage) bool {
		c.why = errors.New(key + " was removed: " + advice)
		return false
	}}
}

const leaseAdvice = "the key grace sets the lease of a server, 15 s by default; remove this key"

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

// byKey converts a broker's error about one of its Options to an error about the config's
// key. It returns any other error, and nil, unchanged.
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

// keyError is an error about a config key, which for the broker is a field of its
// Options. Other fields in the error are replaced by their keys, too.
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

// optionsField matches a field in a broker's error: its full name, or its short name if no
// other word is spelled like that.
var optionsField = regexp.MustCompile(`\bOptions\.[A-Z][A-Za-z]*` +
	`|\b(?:Username|Password|Database|Sentinel(?:Master|Username|Password))\b|\b(?:set|neither) (?:TLS|Cluster)\b`)

// keyOf returns the key for a field of Options: the first letter is in lower case, and
// URL, TLS and NKey are in lower case entirely.
func keyOf(field string) string {
	if field == strings.ToUpper(field) || field == "NKey" {
		return strings.ToLower(field)
	}
	return strings.ToLower(field[:1]) + field[1:]
}

// byKeys replaces the names of options in log lines by the keys of the config: in the
// errors of a broker, and in the hints of the library.
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
