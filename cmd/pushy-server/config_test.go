package main

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

func TestConfigOfTheOriginal(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/original.json")
	require.NoError(t, err)
	c, err := parseConfig(text, "")
	require.NoError(t, err)
	assert.Equal(t, ":8234", c.address())
	assert.False(t, c.ssl)
	assert.Equal(t, pushy.Options{
		SecretKey: "mySuperSecretKey", Prefix: "/pushy",
		SockJS: pushy.SockJS{
			Prefix: "/pushy/socket", ResponseLimit: 128 << 10, DisconnectDelay: 5 * time.Second,
			Legacy: true, ScriptURL: "http://cdn.sockjs.org/sockjs-0.3.min.js",
		},
		Origins: []string{"*"}, Heartbeat: 25 * time.Second,
	}, c.options)
	assert.Equal(t, []warning{
		{"delay under 1000 read as seconds; write milliseconds", []any{"key", "sockjs.heartbeat_delay", "seconds", int64(25)}},
		{"delay under 1000 read as seconds; write milliseconds", []any{"key", "sockjs.disconnect_delay", "seconds", int64(5)}},
	}, c.warnings)
}

func TestConfigKeys(t *testing.T) {
	t.Parallel()
	plain := func() *config {
		return &config{port: 8123, options: pushy.Options{
			SecretKey: "file", Prefix: "/pushy", SockJS: pushy.SockJS{Prefix: "/pushy/socket", Legacy: true}, Origins: []string{"*"},
		}}
	}
	warned := func(c *config, key, message string, attrs ...any) { c.warn(key, message, attrs...) }
	tests := []struct {
		name string
		text string // what stands beside the secret key
		want func(*config)
	}{
		{"nothing", ``, func(*config) {}},
		{"port", `,"port":80`, func(c *config) { c.port = 80 }},
		{"port as text", `,"port":"8443"`, func(c *config) { c.port = 8443 }},
		{"port free", `,"port":0`, func(c *config) { c.port = 0 }},
		{"port highest", `,"port":65535`, func(c *config) { c.port = 65535 }},
		{"host address", `,"host":"127.0.0.1"`, func(c *config) { c.host = "127.0.0.1" }},
		{"host IPv6", `,"host":"::1"`, func(c *config) { c.host = "::1" }},
		{"host name", `,"host":"localhost"`, func(c *config) { c.host = "localhost" }},
		{"host all", `,"host":""`, func(*config) {}},
		{"ssl off", `,"ssl":false`, func(*config) {}},
		{"ssl", `,"ssl":true,"cert":"c.pem","key":"k.pem"`, func(c *config) { c.ssl, c.certFile, c.keyFile = true, "c.pem", "k.pem" }},
		{"certificate without ssl", `,"cert":"c.pem","key":"k.pem"`, func(c *config) {
			c.certFile, c.keyFile = "c.pem", "k.pem"
			warned(c, "cert", "config key without effect: ssl is not true")
			warned(c, "key", "config key without effect: ssl is not true")
		}},
		{"origins list", `,"origins":["https://a.example","http://b.example:8080"]`, func(c *config) {
			c.originsGiven, c.options.Origins = true, []string{"https://a.example", "http://b.example:8080"}
			c.options.SockJS.Legacy = false
		}},
		{"origins any", `,"origins":["*"]`, func(c *config) { c.originsGiven = true }},
		{"origins none", `,"origins":[]`, func(c *config) {
			c.originsGiven, c.options.Origins, c.options.SockJS.Legacy = true, nil, false
		}},
		{"prefix", `,"prefix":"/rt/"`, func(c *config) { c.options.Prefix, c.options.SockJS.Prefix = "/rt", "/rt/socket" }},
		{"old keys", `,"oldSecretKeys":["one","two"]`, func(c *config) { c.options.OldSecretKeys = []string{"one", "two"} }},
		{"no old keys", `,"oldSecretKeys":[]`, func(c *config) { c.options.OldSecretKeys = []string{} }},
		{"no version 1", `,"disableV1":true`, func(c *config) { c.options.DisableV1 = true }},
		{"private events", `,"allowPrivateEvents":true`, func(c *config) { c.options.AllowPrivateEvents = true }},
		{"grace", `,"grace":"30s"`, func(c *config) { c.options.Grace = 30 * time.Second }},
		{"repeat window", `,"repeatWindow":"15m"`, func(c *config) { c.options.RepeatWindow = 15 * time.Minute }},
		{"compress", `,"compress":512`, func(c *config) { c.compress = 512 }},
		{"compress from 1 KiB", `,"compress":"1K"`, func(c *config) { c.compress = 1024 }},
		{"compress off", `,"compress":0`, func(*config) {}},
		{"return rate", `,"returnRate":500`, func(c *config) { c.options.ReturnRate = 500 }},
		{"no return rate", `,"returnRate":-1`, func(c *config) { c.options.ReturnRate = -1 }},
		{"drain delay", `,"drainDelay":"5s"`, func(c *config) { c.drainDelay = 5 * time.Second }},
		{"no drain delay", `,"drainDelay":"0s"`, func(*config) {}},
		{"drain timeout", `,"drainTimeout":"1m"`, func(c *config) { c.drainTimeout = time.Minute }},
		{"channels", `,"channels":[{"prefix":"chat-","history":100,"ttl":"5m"},
			{"prefix":"","access":"private","perUser":true,"clientState":true},{"prefix":"quiet-","presence":false}]`, func(c *config) {
			c.channels = []channelRule{
				{"chat-", pushy.ChannelOptions{Keep: broker.Keep{Size: 100, TTL: 5 * time.Minute}}},
				{"", pushy.ChannelOptions{
					Access:   pushy.AccessPrivate,
					Presence: pushy.PresenceOptions{PerUser: true, ClientState: true},
				}},
				{"quiet-", pushy.ChannelOptions{Presence: pushy.PresenceOptions{Off: true}}},
			}
		}},
		{"no channels", `,"channels":[]`, func(*config) {}},
		{"channels without effect", `,"channels":[{"prefix":"a","ttl":"1h"},{"prefix":"b","presence":false,"perUser":true}]`, func(c *config) {
			c.channels = []channelRule{
				{"a", pushy.ChannelOptions{Keep: broker.Keep{TTL: time.Hour}}},
				{"b", pushy.ChannelOptions{Presence: pushy.PresenceOptions{Off: true, PerUser: true}}},
			}
			warned(c, "channels[0].ttl", "config key without effect: history is not set")
			warned(c, "channels[1].perUser", "config key without effect: presence is false")
		}},
		{"trusted proxies", `,"trustedProxies":["10.1.2.3/8","192.0.2.1","2001:db8::/32","::1"],"limits":{"perAddress":5}`, func(c *config) {
			c.options.Limits.PerAddress = 5
			for _, network := range []string{"10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128"} {
				c.trustedProxies = append(c.trustedProxies, netip.MustParsePrefix(network))
			}
		}},
		{"trusted proxies without a limit", `,"trustedProxies":["127.0.0.1"],"limits":{"connectRate":-1}`, func(c *config) {
			c.trustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
			c.options.Limits.ConnectRate = -1
			warned(c, "trustedProxies", "config key without effect: limits.perAddress is not set and limits.connectRate is off")
		}},
		{"no trusted proxies", `,"trustedProxies":[]`, func(*config) {}},
		{"prefix root", `,"prefix":"/"`, func(c *config) { c.options.Prefix, c.options.SockJS.Prefix = "/", "/socket" }},
		{"SockJS prefix", `,"sockjs":{"prefix":"/ws"}`, func(c *config) { c.options.SockJS.Prefix = "/ws" }},
		{"both prefixes", `,"sockjs":{"prefix":"/ws/"},"prefix":"/rt"`, func(c *config) {
			c.options.Prefix, c.options.SockJS.Prefix = "/rt", "/ws"
		}},
		{"SockJS prefix over the triggers", `,"sockjs":{"prefix":"/"}`, func(c *config) {
			c.options.SockJS.Prefix = "/"
		}},
		{"SockJS prefix of the triggers alone", `,"sockjs":{"prefix":"/pushy/channel/"}`, func(c *config) {
			c.options.SockJS.Prefix = "/pushy/channel"
		}},
		{"same prefixes", `,"sockjs":{"prefix":"/pushy"}`, func(c *config) {
			c.options.SockJS.Prefix = "/pushy"
		}},
		{"SockJS prefix that begins like the other", `,"sockjs":{"prefix":"/push"}`, func(c *config) { c.options.SockJS.Prefix = "/push" }},
		{"websocket", `,"sockjs":{"websocket":true}`, func(*config) {}},
		{"no websocket", `,"sockjs":{"websocket":false}`, func(c *config) { c.options.SockJS.DisableWebSocket = true }},
		{"heartbeat", `,"sockjs":{"heartbeat_delay":1000}`, func(c *config) { c.options.Heartbeat = time.Second }},
		{"heartbeat longest", `,"sockjs":{"heartbeat_delay":86400000}`, func(c *config) { c.options.Heartbeat = 24 * time.Hour }},
		{"heartbeat in seconds", `,"sockjs":{"heartbeat_delay":999}`, func(c *config) {
			c.options.Heartbeat = 999 * time.Second
			warned(c, "sockjs.heartbeat_delay", "delay under 1000 read as seconds; write milliseconds", "seconds", int64(999))
		}},
		{"disconnect delay", `,"sockjs":{"disconnect_delay":4000}`, func(c *config) { c.options.SockJS.DisconnectDelay = 4 * time.Second }},
		{"response limit", `,"sockjs":{"response_limit":131072}`, func(c *config) { c.options.SockJS.ResponseLimit = 128 << 10 }},
		{"response limit in K", `,"sockjs":{"response_limit":"128k"}`, func(c *config) { c.options.SockJS.ResponseLimit = 128 << 10 }},
		{"response limit as text", `,"sockjs":{"response_limit":"4096"}`, func(c *config) { c.options.SockJS.ResponseLimit = 4096 }},
		{"jsessionid", `,"sockjs":{"jsessionid":true}`, func(c *config) { c.options.SockJS.JSessionID = true }},
		{"sockjs_url without scheme", `,"sockjs":{"sockjs_url":"//cdn.example.com/sockjs.js"}`, func(c *config) {
			c.options.SockJS.ScriptURL = "//cdn.example.com/sockjs.js"
		}},
		{"sockjs_url of the same host", `,"sockjs":{"sockjs_url":"/sockjs.js"}`, func(c *config) { c.options.SockJS.ScriptURL = "/sockjs.js" }},
		{"unknown in sockjs", `,"sockjs":{"log":null,"Websocket":false}`, func(c *config) {
			warned(c, "sockjs.log", "unknown config key ignored")
			warned(c, "sockjs.Websocket", "unknown config key ignored")
		}},
		{"limits", `,"limits":{"connections":1,"perAddress":10,"channels":2,"members":3,"presenceBytes":4,"messageBytes":5,"triggerBytes":6,
			"commandRate":-1,"commandBurst":8,"connBuffer":9,"maxBuffered":5000000000,"pagedMembers":10,"keepBytes":11,"maxMemory":7000000000,"maxKept":6000000000,
			"connectRate":12,"connectBurst":13,"publishRate":14,"joinRate":15,"joinBurst":16,"acceptRate":17}`, func(c *config) {
			c.options.Limits = pushy.Limits{
				Connections: 1, PerAddress: 10, Channels: 2, Members: 3, PresenceBytes: 4, MessageBytes: 5, TriggerBytes: 6,
				CommandRate: -1, CommandBurst: 8, ConnBuffer: 9, PagedMembers: 10, KeepBytes: 11,
				ConnectRate: 12, ConnectBurst: 13, PublishRate: 14, JoinRate: 15, JoinBurst: 16, AcceptRate: 17,
				Memory: 7_000_000_000,
			}
			c.options.MaxBuffered = 5_000_000_000
			c.options.MaxKept = 6_000_000_000
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseConfig([]byte("\n {\"secretKey\":\"file\""+test.text+"}\n"), "")
			require.NoError(t, err)
			want := plain()
			test.want(want)
			assert.Equal(t, want, got)
			assert.NoError(t, check(got.serverOptions()), "pushy must take what the config gives it")
		})
	}
}

func TestResponseLimit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{`1`: 1, `131072`: 131072, `"131072"`: 131072, `"128K"`: 131072, `"128k"`: 131072, `"2M"`: 2 << 20} {
		got, ok := parseBytes([]byte(text))
		assert.True(t, ok, text)
		assert.Equal(t, want, got, text)
	}
}

func TestSecretFromEnvironment(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{}`, `{"secretKey":""}`, `{"secretKey":"file"}`} {
		c, err := parseConfig([]byte(text), "environment")
		require.NoError(t, err, text)
		assert.Equal(t, "environment", c.options.SecretKey, text)
	}
}

// TestManual compares the package comment with the settings that the program reads.
func TestManual(t *testing.T) {
	t.Parallel()
	text := manual()
	assert.True(t, strings.HasPrefix(text, "Pushy-server is "), "begins with %.40q", text)
	assert.NotContains(t, text, "//\n")
	assert.NotContains(t, text, "package main")
	for _, settings := range [][]setting{topSettings, sockjsSettings, channelSettings, limitSettings, metricsSettings, redisSettings, natsSettings} {
		for _, s := range settings {
			name := s.key[strings.LastIndexByte(s.key, '.')+1:]
			described := regexp.MustCompile(`(?m)^\t *([a-zA-Z]+, )*` + regexp.QuoteMeta(name) + `\b`)
			assert.Equal(t, s.rule != "", described.MatchString(text), "%s: a setting without a rule was removed and is not described", name)
		}
	}
	for line := range strings.Lines(text) {
		assert.LessOrEqual(t, len(strings.ReplaceAll(line, "\t", "    ")), 85, line)
	}
}

func FuzzConfig(f *testing.F) {
	original, err := os.ReadFile("testdata/original.json")
	require.NoError(f, err)
	f.Add(original)
	for _, seed := range []string{
		``, `{}`, `null`, `[{}]`, `{"secretKey":"s"} x`, `{"port":"08123","secretKey":"s"}`, `{"a":1,"a":2}`,
		`{"secretKey":"s","origins":["https://a.example"],"prefix":"/x","limits":{"connections":-1}}`,
		`{"secretKey":"s","channels":[{"prefix":"a-","history":5,"ttl":"1m"},{"prefix":"a"}],"grace":"2s"}`,
		`{"secretKey":"s","sockjs":{"prefix":"/x","heartbeat_delay":1e3}}`, "{\"\xff\":1}", "\ufeff{}", `{"\ud800":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig(text, "")
		if err != nil {
			assert.NotContains(t, err.Error(), "\n")
			return
		}
		assert.NoError(t, check(c.serverOptions()), "pushy must take what the config gives it")
	})
}
