package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/backend"
)

const webhookSecret = "whsec_dGhpcnR5LXR3byBieXRlcyBvZiBhIG5ldyBzZWNyZXQ="

func TestWebhooksConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config string
		env    string
		want   string
	}{
		"noURL":       {`{"secret":"` + webhookSecret + `"}`, "", "webhooks.url is missing"},
		"noSecret":    {`{"url":"https://a.example/"}`, "", "webhooks.secret is missing; it can also be given in PUSHY_WEBHOOK_SECRET"},
		"environment": {`{"url":"https://a.example/"}`, webhookSecret, ""},
		"badSecret":   {`{"url":"https://a.example/","secret":"x"}`, "", `webhooks.secret does not begin with "whsec_"`},
		"badURL":      {`{"url":"https://169.254.169.254/","secret":"` + webhookSecret + `"}`, "", "webhooks.url the address is not allowed"},
		"secretKey": {`{"url":"https://a.example/","secret":"whsec_c2VjcmV0IG9mIGF0IGxlYXN0IDI0IGJ5dGVz"}`, "",
			"webhooks.secret is a secret key of the server"},
		"events":     {`{"url":"https://a.example/","events":["x"]}`, webhookSecret, `webhooks.events has "x", which is not an event`},
		"null":       {`{"events":[null]}`, "", ":webhooks.events must be an array of strings"},
		"channels":   {`{"channels":["Private-"]}`, "", ":webhooks.channels must be an array of beginnings of names, in lower case"},
		"delay":      {`{"delay":3}`, "", ":webhooks.delay must be a string such as"},
		"longDelay":  {`{"url":"https://a.example/","delay":"2m"}`, webhookSecret, "webhooks.delay is 2m0s, at most 1m0s is allowed"},
		"unknownKey": {`{"uri":"x"}`, "", "unknown key webhooks.uri"},
		"all": {`{"url":"http://10.0.0.7/hooks","oldSecrets":[],"events":["connection.opened"],"channels":["private-"],"delay":"0s"}`,
			webhookSecret, ""},
		"format":   {`{"format":"soketi"}`, "", `:webhooks.format must be "standard" or "pusher"`},
		"standard": {`{"url":"https://a.example/","format":"standard"}`, webhookSecret, ""},
		"noPusher": {`{"url":"https://a.example/","format":"pusher"}`, "", "pusher is missing: webhooks.format"},
		"pusher":   {`{"url":"https://a.example/","format":"pusher"}` + pusherBlock, "", ""},
		"pusherSecret": {`{"url":"https://a.example/","format":"pusher","secret":"` + webhookSecret + `"}` + pusherBlock, "",
			"webhooks.secret and PUSHY_WEBHOOK_SECRET must not be set"},
		"pusherEnvironment": {`{"url":"https://a.example/","format":"pusher"}` + pusherBlock, webhookSecret,
			"webhooks.secret and PUSHY_WEBHOOK_SECRET must not be set"},
		"pusherOldSecrets": {`{"url":"https://a.example/","format":"pusher","oldSecrets":["x"]}` + pusherBlock, "",
			"webhooks.oldSecrets must not be set"},
		"pusherEvents": {`{"url":"https://a.example/","format":"pusher","events":["connection.opened"]}` + pusherBlock, "",
			`webhooks.events has "connection.opened"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := writeConfig(t, `{"secretKey":"secret of at least 24 bytes","webhooks":`+c.config+`}`)
			cfg, err := loadConfig(file, func(name string) string {
				if name == "PUSHY_WEBHOOK_SECRET" {
					return c.env
				}
				return ""
			})
			if c.want == "" {
				require.NoError(t, err)
				require.NotNil(t, cfg.webhooks)
				return
			}
			require.ErrorContains(t, err, trimColon(c.want))
		})
	}
}

// pusherBlock follows the webhooks in a config.
const pusherBlock = `,"pusher":{"app":"1","key":"app-key","secret":"the secret of the application"}`

func trimColon(s string) string {
	if s[0] == ':' {
		return s[1:]
	}
	return s
}

// A process sends the events of the channels that its config names, and those of its shutdown
// before it ends.
func TestProcessSendsWebhooks(t *testing.T) {
	t.Parallel()
	events := make(chan backend.WebhookEvent, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hook, err := backend.VerifyWebhook(r, webhookSecret)
		assert.NoError(t, err)
		for _, e := range hook.Events {
			events <- e
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0,
		"webhooks":{"url":"`+receiver.URL+`","channels":["news"]}}`, "PUSHY_WEBHOOK_SECRET="+webhookSecret)
	next := func() string {
		select {
		case e := <-events:
			return e.Event + " " + e.Channel
		case <-time.After(patience):
			return "nothing"
		}
	}
	c := connect(t, "ws://"+p.addr+"/pushy/socket/websocket", nil)
	for _, channel := range []string{"chat", "news-1"} {
		message := `{"command":"subscribe","data":{"channel":"` + channel + `"}}`
		require.NoError(t, wsutil.WriteClientText(c.conn, []byte(message)))
	}
	assert.Equal(t, "channel.occupied news-1", next())
	p.signal(t, syscall.SIGTERM)
	assert.Equal(t, "channel.vacated news-1", next())
	c.closeCode()
	assert.Equal(t, 0, p.status(t))
}

// With the format "pusher", a process signs with the key and the secret of pusher, which can be in the
// environment. The channels are chosen without regard to the case of their names.
func TestProcessSendsPusherWebhooks(t *testing.T) {
	t.Parallel()
	const own = "the secret of the application"
	bodies := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		mac := hmac.New(sha256.New, []byte(own))
		mac.Write(body)
		assert.Equal(t, "app-key", r.Header.Get("X-Pusher-Key"))
		assert.Equal(t, hex.EncodeToString(mac.Sum(nil)), r.Header.Get("X-Pusher-Signature"))
		bodies <- string(body)
	}))
	defer receiver.Close()
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0,"pusher":{"app":"1","key":"app-key"},
		"webhooks":{"url":"`+receiver.URL+`","channels":["app."],"format":"pusher"}}`, "PUSHY_PUSHER_SECRET="+own)
	conn, _, _, err := ws.Dial(t.Context(), "ws://"+p.addr+"/app/app-key?protocol=7")
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	for _, channel := range []string{"chat", "App.News"} {
		message := `{"event":"pusher:subscribe","data":{"channel":"` + channel + `"}}`
		require.NoError(t, wsutil.WriteClientText(conn, []byte(message)))
	}
	select {
	case body := <-bodies:
		assert.Contains(t, body, `"events":[{"name":"channel_occupied","channel":"App.News"}]}`)
	case <-time.After(patience):
		t.Error("no request")
	}
}
