package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/testlog"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/webhook"
)

// The application of Pusher's documentation.
const (
	pusherKey    = "278d425bdf160c739803"
	pusherSecret = "7ad3773142a6692b25b8"
)

// pusherReceiver records requests in the format of Pusher.
type pusherReceiver struct {
	mu       sync.Mutex
	status   int
	requests []pusherRequest
}

type pusherRequest struct {
	header http.Header
	body   string
}

func (rc *pusherReceiver) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.requests = append(rc.requests, pusherRequest{r.Header, string(body)})
	return &http.Response{
		StatusCode: rc.status,
		Body:       http.NoBody,
		Request:    r,
	}, nil
}

func (rc *pusherReceiver) reply(status int) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.status = status
}

// take returns the requests that arrived since the last take.
func (rc *pusherReceiver) take() (list []pusherRequest) {
	synctest.Wait()
	rc.mu.Lock()
	defer rc.mu.Unlock()
	list = rc.requests
	rc.requests = nil
	return list
}

// withPusher runs a test in its own time, on one Server that sends in Pusher's format. It begins at a time
// that is not over.
func withPusher(t *testing.T, at time.Time, log io.Writer,
	run func(t *testing.T, srv *pushy.Server, rc *pusherReceiver),
) {
	t.Helper()
	t.Parallel()
	inTime(t, func(t *testing.T) {
		time.Sleep(time.Until(at))
		rc := &pusherReceiver{status: http.StatusOK}
		srv := newServer(t, pushy.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
		s := newPusherSender(t, srv, rc)
		run(t, srv, rc)
		assert.NoError(t, srv.Shutdown(context.Background()))
		assert.NoError(t, s.Close(context.Background()))
	})
}

// newPusherSender returns a Sender of events; the default are those of Options.
func newPusherSender(t *testing.T, srv *pushy.Server, rc *pusherReceiver, events ...string) *webhook.Sender {
	t.Helper()
	s, err := webhook.New(srv, webhook.Options{
		URL:       "https://app.example.com/hooks",
		Format:    webhook.Pusher(pusherKey, pusherSecret),
		Events:    events,
		Transport: rc,
	})
	require.NoError(t, err)
	return s
}

func clientOf(t *testing.T, srv *pushy.Server) *pushytest.Client {
	t.Helper()
	kit := pushytest.New(t, srv)
	kit.Allow("webhook.(*Sender).run")
	return kit.Connect()
}

// The vector of the signature: a request at a known time.
func TestPusherVector(t *testing.T) {
	const gather = 50 * time.Millisecond
	at := time.UnixMilli(1327078148132)
	withPusher(t, at.Add(-gather), io.Discard, func(t *testing.T, srv *pushy.Server, rc *pusherReceiver) {
		clientOf(t, srv).Subscribe("my-channel")
		time.Sleep(time.Second)
		got := rc.take()
		require.Len(t, got, 1)
		assert.Equal(t, `{"time_ms":1327078148132,"events":[{"name":"channel_occupied","channel":"my-channel"}]}`,
			got[0].body)
		head := got[0].header
		assert.Equal(t, []string{"application/json"}, head["Content-Type"], "Pusher's SDK for node compares the whole value")
		assert.Equal(t, []string{pusherKey}, head["X-Pusher-Key"])
		assert.Equal(t, []string{"c19001ae3963ccb13bf618e5b16ba9848e7e74df0993aa0689168e341c6833cf"},
			head["X-Pusher-Signature"])
		assert.Empty(t, head.Values("Webhook-Signature"))
	})
}

// A request that is not accepted is tried for 5 minutes, with the same body, whatever the status is. What
// is lost is logged, because the format has no event for it.
func TestPusherTriesForFiveMinutes(t *testing.T) {
	var log testlog.Log
	withPusher(t, time.Time{}, &log, func(t *testing.T, srv *pushy.Server, rc *pusherReceiver) {
		rc.reply(http.StatusGone)
		ann := clientOf(t, srv)
		ann.Subscribe("news")
		time.Sleep(4 * time.Minute)
		tries := rc.take()
		assert.GreaterOrEqual(t, len(tries), 7)
		for _, one := range tries {
			assert.Equal(t, tries[0].body, one.body)
			assert.Equal(t, pusherSum(one.body), one.header.Get("X-Pusher-Signature"))
		}
		assert.NotContains(t, log.String(), "were not sent")
		time.Sleep(2 * time.Minute)
		assert.Contains(t, log.String(), `"events were not sent: the receiver of webhooks has not accepted them" name="" events=1 for=5m0s`)
		rc.reply(http.StatusOK)
		rc.take()
		ann.Subscribe("talk")
		time.Sleep(time.Minute)
		got := rc.take()
		require.Len(t, got, 1)
		assert.Contains(t, got[0].body, `"events":[{"name":"channel_occupied","channel":"talk"}]`, "without an event for what was lost")
		assert.NotContains(t, log.String(), "webhooks were lost", "it is logged once")
	})
}

// What is too large for a request is logged, too. The data of an event grow when they become a string.
func TestPusherLogsWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	inTime(t, func(t *testing.T) {
		var log testlog.Log
		large := json.RawMessage(`["` + strings.Repeat(`\\`, 250_000) + `"]`)
		srv, err := pushy.New(pushy.Options{
			SecretKey: secretKey,
			Logger:    log.Logger(),
			Channel: func(string) pushy.ChannelOptions {
				return pushy.ChannelOptions{ClientEvent: func(_ *pushy.Conn, event string, data json.RawMessage) (json.RawMessage, error) {
					if event == "client-large" {
						return large, nil
					}
					return data, nil
				}}
			},
		})
		require.NoError(t, err)
		rc := &pusherReceiver{status: http.StatusOK}
		s := newPusherSender(t, srv, rc, webhook.ClientEvent)
		ann := clientOf(t, srv)
		ann.Subscribe("private-talk", pushytest.Member(nil))
		ann.SendEvent("private-talk", "client-large", 1)
		time.Sleep(time.Second)
		assert.Empty(t, rc.take(), "there is nothing to send")
		assert.Contains(t, log.String(), `msg="webhooks were lost: read the lists of channels and members again" name="" events=1 reason=large`)
		ann.SendEvent("private-talk", "client-small", 1)
		time.Sleep(time.Second)
		got := rc.take()
		require.Len(t, got, 1)
		assert.Contains(t, got[0].body, `"event":"client-small","data":"1"`)
		assert.NoError(t, srv.Shutdown(context.Background()))
		assert.NoError(t, s.Close(context.Background()))
	})
}

func pusherSum(body string) string {
	mac := hmac.New(sha256.New, []byte(pusherSecret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func TestPusherRefuses(t *testing.T) {
	t.Parallel()
	old := "an old secret key of the server"
	var log testlog.Log
	srv, err := pushy.New(pushy.Options{
		SecretKey:     secretKey,
		OldSecretKeys: []string{old},
		Logger:        log.Logger(),
	})
	require.NoError(t, err)
	defer srv.Close()
	for name, c := range map[string]struct {
		key, secret string
		change      func(o *webhook.Options)
		want        string
	}{
		"noKey":      {"", pusherSecret, nil, "Options.Format: the key"},
		"key":        {"a key", pusherSecret, nil, "Options.Format: the key"},
		"noSecret":   {pusherKey, "", nil, "Options.Format: the secret is empty"},
		"secretKey":  {pusherKey, secretKey, nil, "Options.Format: the secret is a secret key of the server"},
		"oldKey":     {pusherKey, old, nil, "Options.Format: the secret is a secret key of the server"},
		"secret":     {pusherKey, pusherSecret, func(o *webhook.Options) { o.Secret = secret }, "Options.Secret is set"},
		"oldSecrets": {pusherKey, pusherSecret, func(o *webhook.Options) { o.OldSecrets = []string{secret} }, "Options.OldSecrets is set"},
		"connections": {pusherKey, pusherSecret, func(o *webhook.Options) { o.Events = []string{webhook.ConnectionOpened} },
			`Options.Events has "connection.opened", which Options.Format does not have`},
		"lost": {pusherKey, pusherSecret, func(o *webhook.Options) { o.Events = []string{webhook.EventsLost} },
			`Options.Events has "events.lost", which Options.Format does not have`},
	} {
		o := webhook.Options{
			URL:    "https://app.example.com/hooks",
			Format: webhook.Pusher(c.key, c.secret),
		}
		if c.change != nil {
			c.change(&o)
		}
		_, err := webhook.New(srv, o)
		require.ErrorContains(t, err, c.want, name)
		for _, s := range []string{pusherSecret, secretKey, old, secret} {
			assert.NotContains(t, err.Error(), s, name)
		}
	}
	s, err := webhook.New(srv, webhook.Options{
		URL:    "https://app.example.com/hooks",
		Format: webhook.Pusher("1", "short"),
	})
	require.NoError(t, err)
	assert.Contains(t, log.String(), "is under 16 bytes")
	require.NoError(t, s.Close(t.Context()))
}
