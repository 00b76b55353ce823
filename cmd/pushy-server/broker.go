package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
	"github.com/gopushy/pushy/brokers/redis"
)

// engine is one kind of what connects servers, a member of "broker".
type engine struct {
	settings []setting // their keys begin with "broker.", the engine's name and a dot
	// env takes what the environment has, and wins over the file.
	env func(c *config, getenv func(string) string)
	// connect makes what a Server is given.
	connect func(c *config, log *slog.Logger) (pushy.Broker, pushy.PresenceStore, error)
}

// engines are what "broker" may hold, by key. One of them is chosen.
var engines = map[string]engine{
	"nats":  {natsSettings, (*config).natsEnv, (*config).connectNATS},
	"redis": {redisSettings, (*config).redisEnv, (*config).connectRedis},
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
			return &fault{m.keyAt, "broker is " + c.engine + " already: it can be one of them only"}
		}
		c.engine = m.key
		if err := c.read(m.value, m.valueAt, "broker."+m.key+".", e.settings); err != nil {
			return err
		}
	}
	if c.engine == "" {
		return &fault{at, "broker names none: it needs redis or nats"}
	}
	return nil
}

// connect connects to what the config names, if anything. Its error is one line
// that names the key, if one is to blame.
func (c *config) connect(log *slog.Logger) (pushy.Broker, pushy.PresenceStore, error) {
	if c.engine == "" {
		return nil, nil, nil
	}
	broker, presence, err := engines[c.engine].connect(c, log)
	if err != nil {
		return nil, nil, byKey(err)
	}
	return broker, presence, nil
}

// texts reads an array of texts, none of them null or empty.
func texts(v json.RawMessage, into *[]string) bool {
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

// millis reads a number of milliseconds above 0.
func millis(v json.RawMessage, into *time.Duration) bool {
	var n int64
	ok := decode(v, &n) && n > 0 && n <= math.MaxInt32
	*into = time.Duration(n) * time.Millisecond
	return ok
}

// wrongKey is an error that names a key of the config.
func wrongKey(key string, err error) error { return fmt.Errorf("%s: %w", key, err) }

// byKey makes a broker's error about one of its settings one about the config's
// key; any other stays as it is.
func byKey(err error) error {
	var r *redis.SettingError
	var n *nats.SettingError
	switch {
	case errors.As(err, &r):
		return wrongKey("broker.redis."+keyOf(r.Setting), r.Err)
	case errors.As(err, &n):
		return wrongKey("broker.nats."+keyOf(n.Setting), n.Err)
	}
	return err
}

// keyOf is the key for a field: its first letter small, or all of URL and TLS.
func keyOf(field string) string {
	if field == strings.ToUpper(field) {
		return strings.ToLower(field)
	}
	return strings.ToLower(field[:1]) + field[1:]
}

// errorsByKey lets what the log says of a setting name its key in the config.
func errorsByKey(_ []string, a slog.Attr) slog.Attr {
	if err, ok := a.Value.Any().(error); ok {
		a.Value = slog.AnyValue(byKey(err))
	}
	return a
}

// tlsOn reads whether a broker is to be reached over TLS.
func tlsOn(v json.RawMessage, to **tls.Config) bool {
	var on bool
	ok := decode(v, &on)
	if on {
		*to = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return ok
}
