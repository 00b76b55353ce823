package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

func TestLongestPrefixDecides(t *testing.T) {
	t.Parallel()
	c, err := parseConfig([]byte(`{"secretKey":"s","channels":[
		{"prefix":"chat-","history":1},{"prefix":"chat-long-","perUser":true},{"prefix":"","history":3}]}`), "")
	require.NoError(t, err)
	for name, want := range map[string]pushy.ChannelOptions{
		"chat-":       {Keep: broker.Keep{Size: 1}},
		"chat-lon":    {Keep: broker.Keep{Size: 1}},
		"chat-long-1": {Presence: pushy.PresenceOptions{PerUser: true}},
		"news":        {Keep: broker.Keep{Size: 3}},
	} {
		assert.Equal(t, want, c.serverOptions().Channel(name), name)
	}
	c, err = parseConfig([]byte(`{"secretKey":"s","channels":[{"prefix":"chat-","history":1}]}`), "")
	require.NoError(t, err)
	assert.Zero(t, c.serverOptions().Channel("news"))
}

func TestWrongChannels(t *testing.T) {
	t.Parallel()
	for channels, says := range map[string]string{
		`{}`:                                          "1:29: channels must be an array of objects",
		`[{"prefix":"a"},"b"]`:                        "1:45: channels[1] must be an object",
		`[{"history":1}]`:                             `1:30: channels[0].prefix is missing; "" is for all channels`,
		`[{"prefix":"a"},{"prefix":"a"}]`:             `1:46: channels[1].prefix is "a", as that of channels[0]`,
		`[{"prefix":"a","prefix":"b"}]`:               "1:44: channels[0] prefix is given twice",
		`[{"prefix":"Chat-"}]`:                        "1:40: channels[0].prefix must be a string in lower case",
		`[{"prefix":7}]`:                              "channels[0].prefix must be a string",
		`[{"prefix":"a","histroy":1}]`:                "1:44: unknown key channels[0].histroy",
		`[{"prefix":"a","history":-1}]`:               "1:54: channels[0].history must be a whole number of events from 0 to 100000",
		`[{"prefix":"a","history":100001}]`:           "channels[0].history must be",
		`[{"prefix":"a","history":1.5}]`:              "channels[0].history must be",
		`[{"prefix":"a","ttl":"5"}]`:                  `channels[0].ttl must be a string such as "5m", from "1s" to "8784h"`,
		`[{"prefix":"a","ttl":300}]`:                  "channels[0].ttl must be",
		`[{"prefix":"a","ttl":"0s"}]`:                 "channels[0].ttl must be",
		`[{"prefix":"a","ttl":"-5m"}]`:                "channels[0].ttl must be",
		`[{"prefix":"a","ttl":"8785h"}]`:              "channels[0].ttl must be",
		`[{"prefix":"a","access":"open"}]`:            `channels[0].access must be "name", "private" or "public"`,
		`[{"prefix":"a","access":null}]`:              "channels[0].access must be",
		`[{"prefix":"a","presence":"off"}]`:           "channels[0].presence must be true or false",
		`[{"prefix":"a","perUser":1}]`:                "channels[0].perUser must be true or false",
		`[{"prefix":"a","clientState":null}]`:         "channels[0].clientState must be true or false",
		`[],"grace":15`:                               `grace must be a string such as "15s", at least "1s"`,
		`[],"grace":"500ms"`:                          "grace must be",
		`[],"grace":"-1s"`:                            "grace must be",
		`[],"grace":"0s"`:                             "grace must be",
		`[],"compress":-1`:                            "compress must be a number of bytes, or a string such as \"1K\"; 0 is off",
		`[],"compress":true`:                          "compress must be",
		`[],"compress":"4096M"`:                       "compress must be",
		`[],"returnRate":1000001`:                     "returnRate must be a whole number of clients a second, at most 1000000",
		`[],"returnRate":"2"`:                         "returnRate must be",
		`[],"port[0]":1`:                              "unknown key port[0]",
		`[{"prefix":""}],"limits":{"keepBytes":1000}`: "limits.triggerBytes is 262144, but with channels it must be at most limits.keepBytes, which is 1000",
	} {
		file := filepath.Join(t.TempDir(), "config.json")
		require.NoError(t, os.WriteFile(file, []byte(`{"secretKey":"s","channels":`+channels+`}`), 0o600))
		_, err := loadConfig(file, func(string) string { return "" })
		require.ErrorContains(t, err, says, channels)
		assert.True(t, strings.HasPrefix(err.Error(), file+":"), "the file is named: %v", err)
	}
}

// What the config says of channels applies to their subscribers.
func TestChannelsApply(t *testing.T) {
	t.Parallel()
	s := startService(t, `{"channels":[{"prefix":"news","history":2},{"prefix":"hall","access":"private"}]}`, defaultDrainTimeout, nil)
	for range 3 {
		require.Equal(t, http.StatusOK, postTrigger(t, "http://"+s.addr+"/pushy", secret))
	}
	c := connect(t, "ws://"+s.addr+"/pushy/socket/websocket?v=2", nil)
	for _, step := range []struct{ send, receives string }{
		{`{"command":"subscribe","data":{"channel":"news","rewind":9}}`, `"replay":2}`},
		{"", `"offset":2}`},
		{"", `"offset":3}`},
		{`{"command":"subscribe","data":{"channel":"hall"}}`, `"event":"pushy:subscription-needauth"`},
		{`{"command":"subscribe","data":{"channel":"weather","rewind":9}}`, `"reason":"off"`},
	} {
		if step.send != "" {
			require.NoError(t, wsutil.WriteClientText(c.conn, []byte(step.send)))
		}
		assert.Contains(t, c.receive(), step.receives)
	}
}
