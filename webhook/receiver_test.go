package webhook_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/webhook"
)

var secret = secretOf("1")

func secretOf(s string) string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(s, 32)))
}

// receiver is a web application that receives webhooks, without a socket. It accepts an event
// once, and records what it has received.
type receiver struct {
	t        testing.TB
	mu       sync.Mutex
	status   func() int             // of the answers, 204 if it is nil
	after    string                 // the Retry-After of the answers
	events   []backend.WebhookEvent // in order, without those that arrived again
	known    map[string]int         // how often an event was accepted, by id
	requests []backend.Webhook      // accepted or not
	times    []time.Time
	bodies   [][]byte
}

var _ http.RoundTripper = (*receiver)(nil)

func newReceiver(t testing.TB) *receiver {
	return &receiver{
		t:     t,
		known: map[string]int{},
	}
}

func (rc *receiver) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	hook, err := backend.VerifyWebhook(r, secret)
	assert.NoError(rc.t, err)
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.requests = append(rc.requests, hook)
	rc.times = append(rc.times, time.Now())
	rc.bodies = append(rc.bodies, body)
	status := http.StatusNoContent
	if rc.status != nil {
		status = rc.status()
	}
	header := http.Header{}
	if rc.after != "" {
		header.Set("Retry-After", rc.after)
	}
	if status == http.StatusNoContent {
		for _, e := range hook.Events {
			rc.known[e.ID]++
			if rc.known[e.ID] == 1 {
				rc.events = append(rc.events, e)
			}
		}
	}
	return &http.Response{
		StatusCode: status,
		Header:     header,
		Body:       http.NoBody,
		Request:    r,
	}, nil
}

// reply sets the status of the answers from now on.
func (rc *receiver) reply(status int, after string) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.status = func() int { return status }
	rc.after = after
}

// downUntil makes the receiver answer with a status until a time.
func (rc *receiver) downUntil(status int, until time.Time) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.status = func() int {
		if time.Now().Before(until) {
			return status
		}
		return http.StatusNoContent
	}
}

// tries returns the number of requests.
func (rc *receiver) tries() int {
	synctest.Wait()
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return len(rc.requests)
}

// take returns the events that arrived since the last take, as strings.
func (rc *receiver) take() (list []string) {
	synctest.Wait()
	rc.mu.Lock()
	defer rc.mu.Unlock()
	for _, e := range rc.events {
		list = append(list, show(e))
	}
	rc.events = nil
	return list
}

func show(e backend.WebhookEvent) string {
	s := e.Event
	if e.Channel != "" {
		s += " " + e.Channel
	}
	if e.Name != "" {
		s += " " + e.Name + "=" + string(e.Data)
	}
	if e.User != "" {
		s += " user=" + e.User
	}
	if e.Reason != "" {
		s += " " + e.Reason
	}
	if e.Count != 0 {
		s += fmt.Sprint(" ", e.Count)
	}
	return s
}

// once checks that no event was accepted twice.
func (rc *receiver) once() {
	rc.t.Helper()
	rc.mu.Lock()
	defer rc.mu.Unlock()
	for id, n := range rc.known {
		assert.Equal(rc.t, 1, n, "%s was accepted several times", id)
	}
}

func accept(r *http.Request) (any, error) { return r.Header.Get("X-User"), nil }

func as(user string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("X-User", user) }
}

// channels allows client events in channels with "talk" in their name, and keeps the last event of
// those with "kept" for a minute.
func channels(name string) pushy.ChannelOptions {
	var o pushy.ChannelOptions
	if strings.Contains(name, "talk") {
		o.ClientEvent = func(_ *pushy.Conn, _ string, data json.RawMessage) (json.RawMessage, error) {
			if string(data) == `"secret"` {
				return nil, nil
			}
			return data, nil
		}
	}
	if strings.Contains(name, "kept") {
		o.Keep = broker.Keep{
			Size: 1,
			TTL:  time.Minute,
		}
	}
	return o
}

const secretKey = "correct horse battery staple"

func newServer(t testing.TB, o pushy.Options) *pushy.Server {
	t.Helper()
	o.SecretKey = secretKey
	o.Limits.PresenceBytes = 64 << 10
	o.Limits.MessageBytes = 1 << 20
	o.Limits.Channels = 20_000
	o.Limits.CommandRate = -1
	o.Limits.JoinRate = -1
	o.Accept = accept
	o.Channel = channels
	srv, err := pushy.New(o)
	require.NoError(t, err)
	return srv
}

// newSender returns a Sender for the receiver.
func newSender(t testing.TB, srv *pushy.Server, rc *receiver, o webhook.Options) *webhook.Sender {
	t.Helper()
	o.URL = "https://app.example.com/hooks"
	o.Secret = secret
	o.Transport = rc
	s, err := webhook.New(srv, o)
	require.NoError(t, err)
	return s
}

// onServer runs a test in its own time, on one Server.
func onServer(t *testing.T, o webhook.Options, run func(t *testing.T, srv *pushy.Server, kit *pushytest.Kit, rc *receiver)) {
	t.Helper()
	t.Parallel()
	inTime(t, func(t *testing.T) {
		rc := newReceiver(t)
		srv := newServer(t, pushy.Options{})
		s := newSender(t, srv, rc, o)
		t.Cleanup(func() {
			assert.NoError(t, srv.Shutdown(context.Background()))
			assert.NoError(t, s.Close(context.Background()))
		})
		kit := pushytest.New(t, srv)
		kit.Allow("webhook.(*Sender).run")
		run(t, srv, kit, rc)
	})
}

// inTime runs a test in its own time.
func inTime(t *testing.T, run func(t *testing.T)) { synctest.Test(t, run) }

// connect connects a client of a user, which subscribes to private channels, and waits until that
// was reported.
func connect(t *testing.T, srv *pushy.Server, user string, channels ...string) *pushytest.Client {
	t.Helper()
	kit := pushytest.New(t, srv)
	kit.Allow("webhook.")
	c := kit.Connect(as(user))
	for _, ch := range channels {
		c.Subscribe(ch, pushytest.Member(nil))
	}
	time.Sleep(time.Second)
	synctest.Wait()
	return c
}
