package main

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/broker/redis"
)

// brokerConfig loads a config with this broker.
func brokerConfig(t *testing.T, broker string, env map[string]string) (*config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"port":0,"secretKey":"a secret of the test","broker":`+broker+`}`), 0o600))
	return loadConfig(file, func(name string) string { return env[name] })
}

func TestRedisConfig(t *testing.T) {
	t.Parallel()
	c, err := brokerConfig(t, `{"redis":{"addresses":["a:1","b:2"],"sentinelMaster":"main","username":"u","password":"file",
		"sentinelUsername":"su","sentinelPassword":"file","database":3,"prefix":"app","requireAtStart":true,"timeout":500,"checkEveryAppend":true}}`,
		map[string]string{"PUSHY_REDIS_PASSWORD": "environment"})
	require.NoError(t, err)
	assert.Equal(t, redis.Options{Addresses: []string{"a:1", "b:2"}, SentinelMaster: "main", Username: "u", Password: "environment",
		SentinelUsername: "su", SentinelPassword: "file", Database: 3, Prefix: "app", RequireAtStart: true,
		Timeout: 500 * time.Millisecond, CheckEveryAppend: true}, c.redis)
	assert.Contains(t, c.summary(), "broker: redis")
	c, err = brokerConfig(t, `{"redis":{"cluster":true,"tls":true}}`, nil)
	require.NoError(t, err)
	assert.True(t, c.redis.Cluster)
	assert.NotNil(t, c.redis.TLS)
}

func TestNATSConfig(t *testing.T) {
	t.Parallel()
	c, err := brokerConfig(t, `{"nats":{"url":"nats://a:1,nats://b:2","user":"u","password":"file","prefix":"app","inboxPrefix":"_INBOX.app",
		"requireAtStart":true,"timeout":500,"replicas":3,"files":true,"maxBytes":1000000}}`,
		map[string]string{"PUSHY_NATS_PASSWORD": "environment"})
	require.NoError(t, err)
	assert.Equal(t, nats.Options{
		URL:            "nats://a:1,nats://b:2",
		User:           "u",
		Password:       "environment",
		Prefix:         "app",
		InboxPrefix:    "_INBOX.app",
		RequireAtStart: true,
		Timeout:        500 * time.Millisecond,
		Replicas:       3,
		Files:          true,
		MaxBytes:       1_000_000,
	}, c.nats)
	assert.Contains(t, c.summary(), "broker: nats")
	c, err = brokerConfig(t, `{"nats":{"token":"file"}}`, map[string]string{"PUSHY_NATS_TOKEN": "environment"})
	require.NoError(t, err)
	assert.Equal(t, nats.Options{Token: "environment"}, c.nats)
}

func TestWrongBrokerConfig(t *testing.T) {
	t.Parallel()
	for broker, says := range map[string]string{
		`{}`:                                "broker is empty",
		`[]`:                                "broker must be an object",
		`{"kafka":{}}`:                      "unknown key broker.kafka",
		`{"redis":null}`:                    "broker.redis must be an object",
		`{"redis":{"address":"a:1"}}`:       "unknown key broker.redis.address",
		`{"redis":{"addresses":"a:1"}}`:     "broker.redis.addresses must be an array of strings",
		`{"redis":{"addresses":[]}}`:        "broker.redis.addresses must be",
		`{"redis":{"addresses":[null]}}`:    "broker.redis.addresses must be",
		`{"nats":{"url":7}}`:                "broker.nats.url must be a string",
		`{"nats":{"replicas":0}}`:           "broker.nats.replicas must be a whole number from 1",
		`{"nats":{"servers":[]}}`:           "unknown key broker.nats.servers",
		`{"redis":{},"nats":{}}`:            "broker has redis already",
		`{"redis":{"password":1}}`:          "broker.redis.password must be a string",
		`{"redis":{"timeout":0}}`:           "broker.redis.timeout must be a whole number of milliseconds",
		`{"redis":{"lease":15000}}`:         "broker.redis.lease was removed: the key grace sets the lease of a server, 15 s by default; remove this key",
		`{"nats":{"lease":15000}}`:          "broker.nats.lease was removed: ",
		`{"nats":{"memory":true}}`:          "broker.nats.memory was removed: memory is the default; for files, set broker.nats.files to true instead",
		`{"redis":{"prefix":"{"}}`:          "broker.redis.prefix must be a string without braces",
		`{"redis":{"database":-1}}`:         "broker.redis.database must be a whole number from 0",
		`{"redis":{"cluster":"yes"}}`:       "broker.redis.cluster must be true or false",
		`{"redis":{"sentinelMaster":null}}`: "broker.redis.sentinelMaster must be a string",
	} {
		_, err := brokerConfig(t, broker, nil)
		assert.ErrorContains(t, err, says, broker)
	}
}

// An error that only Redis or NATS can report, and their absence, is reported at the start with the config's key.
func TestBrokerThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for broker, says := range map[string]string{
		`{"redis":{"addresses":["127.0.0.1:1"],"requireAtStart":true,"timeout":500}}`: "broker.redis.addresses: ",
		`{"nats":{"url":"nats://127.0.0.1:1","requireAtStart":true}}`:                 "broker.nats.url: nats://127.0.0.1:1: ",
	} {
		c, err := brokerConfig(t, broker, nil)
		require.NoError(t, err, broker)
		_, err = newService(c, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, says, broker)
		assert.NotContains(t, err.Error(), "\n")
	}
}

// Without its broker the server starts, and says so with the config's key.
func TestStartsAlone(t *testing.T) {
	t.Parallel()
	for broker, says := range map[string]struct{ msg, err string }{
		`{"redis":{"addresses":["127.0.0.1:1"],"timeout":500}}`: {"redis is away: this node serves its own clients alone", "broker.redis.addresses: no Redis server answers at 127.0.0.1:1"},
		`{"nats":{"url":"nats://127.0.0.1:1","timeout":500}}`:   {"NATS is away; this node serves its own clients alone", "broker.nats.url: nats://127.0.0.1:1: "},
	} {
		c, err := brokerConfig(t, broker, nil)
		require.NoError(t, err)
		log := newLogText()
		s, err := newService(c, newLogger(log, false))
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.listener.Close(); _ = s.pushy.Close() })
		assert.ErrorContains(t, s.pushy.Stats().Away, "127.0.0.1:1")
		var line struct{ Msg, Error string }
		first, _, _ := strings.Cut(log.String(), "\n")
		require.NoError(t, json.Unmarshal([]byte(first), &line))
		assert.Contains(t, line.Msg, says.msg)
		assert.True(t, strings.HasPrefix(line.Error, says.err), line.Error)
	}
}
