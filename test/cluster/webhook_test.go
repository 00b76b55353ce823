package cluster_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/webhook"
)

var (
	webhookSecret    = "whsec_" + base64.StdEncoding.EncodeToString([]byte("thirty-two bytes of a new secret"))
	oldWebhookSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("thirty-two bytes of a secret, old"))
)

// newWebhooks makes a node send webhooks, which both secrets sign.
func newWebhooks(srv *pushy.Server, url string) (*webhook.Sender, error) {
	return webhook.New(srv, webhook.Options{
		URL:        url,
		Secret:     webhookSecret,
		OldSecrets: []string{oldWebhookSecret},
	})
}

// webhooks is an application that verifies what it receives with the Go library of Standard
// Webhooks.
type webhooks struct {
	t   testing.TB
	url string

	mu    sync.Mutex
	seen  []string       // events, in the order in which they were accepted first
	times map[string]int // how often an event was accepted, by id
	last  request
}

type request struct {
	header http.Header
	body   []byte
}

func receiveWebhooks(t testing.TB) *webhooks {
	rc := &webhooks{
		t:     t,
		times: map[string]int{},
	}
	srv := httptest.NewServer(rc)
	t.Cleanup(srv.Close)
	rc.url = srv.URL + "/webhooks"
	return rc
}

func (rc *webhooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	assert.NoError(rc.t, err)
	for _, secret := range []string{webhookSecret, oldWebhookSecret} {
		assert.NoError(rc.t, verifier(rc.t, secret).Verify(body, r.Header))
	}
	var content struct {
		Data struct {
			Events []struct{ ID, Event, Channel, Reason string }
		}
	}
	assert.NoError(rc.t, json.Unmarshal(body, &content))
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.last = request{r.Header, body}
	for _, e := range content.Data.Events {
		rc.times[e.ID]++
		if rc.times[e.ID] == 1 {
			rc.seen = append(rc.seen, strings.TrimSpace(e.Event+" "+e.Channel+" "+e.Reason))
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func verifier(t testing.TB, secret string) *standardwebhooks.Webhook {
	v, err := standardwebhooks.NewWebhook(secret)
	assert.NoError(t, err)
	return v
}

// await waits for events in any order. A node that is killed just after the receiver has accepted
// an event cannot say so, so an event may arrive again under its id.
func (rc *webhooks) await(want ...string) {
	rc.t.Helper()
	soon(rc.t, patience, strings.Join(want, ", "), func() bool {
		rc.mu.Lock()
		defer rc.mu.Unlock()
		return len(rc.seen) >= len(want)
	})
	rc.mu.Lock()
	defer rc.mu.Unlock()
	assert.ElementsMatch(rc.t, want, rc.seen)
	rc.seen = nil
}

// operations.md, acceptance test 4, on real stores: the webhooks verify, and kill -9 of the last
// node of a channel is reported once, after its lease. The node that is killed first is the one
// that sends, so another one continues.
func TestWebhooksOfKilledNodes(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		rc := receiveWebhooks(t)
		s.Lease, s.Webhooks = killedLease, rc.url
		sender := s.child(t)
		second := s.child(t)
		j := newJudge(t)
		j.lossy = true
		ann := newMember(j, "Ann", "websocket")
		require.NoError(t, ann.connect(sender.url))
		require.Equal(t, "pushy:subscription-success", ann.join("private-ann"))
		bob := newMember(j, "Bob", "websocket")
		require.NoError(t, bob.connect(second.url))
		require.Equal(t, "pushy:subscription-success", bob.join("private-bob"))
		rc.await("channel.occupied private-ann", "member.joined private-ann",
			"channel.occupied private-bob", "member.joined private-bob")

		sender.kill()
		rc.await("member.left private-ann lost", "channel.vacated private-ann")
		third := s.child(t)
		second.kill()
		rc.await("member.left private-bob lost", "channel.vacated private-bob")
		carl := newMember(j, "Carl", "websocket")
		require.NoError(t, carl.connect(third.url))
		require.Equal(t, "pushy:subscription-success", carl.join("private-carl"))
		rc.await("channel.occupied private-carl", "member.joined private-carl")
		assert.NoError(t, third.stop())
	})
}

// What a receiver with the library of Standard Webhooks refuses.
func TestChangedWebhooksAreRefused(t *testing.T) {
	t.Parallel()
	rc := receiveWebhooks(t)
	srv, err := pushy.New(options(nil, 0, nil))
	require.NoError(t, err)
	hooks, err := newWebhooks(srv, rc.url)
	require.NoError(t, err)
	j := newJudge(t)
	web := httptest.NewServer(srv)
	defer web.Close()
	ann := newMember(j, "Ann", "websocket")
	require.NoError(t, ann.connect(web.URL))
	require.Equal(t, "pushy:subscription-success", ann.join("private-ann"))
	rc.await("channel.occupied private-ann", "member.joined private-ann")
	_ = srv.Close()
	require.NoError(t, hooks.Close(t.Context()))

	rc.mu.Lock()
	defer rc.mu.Unlock()
	v := verifier(t, webhookSecret)
	require.NoError(t, v.Verify(rc.last.body, rc.last.header))
	for name, change := range map[string]func(r *request){
		"id":   func(r *request) { r.header.Set("Webhook-Id", "msg_other") },
		"time": func(r *request) { r.header.Set("Webhook-Timestamp", "1700000000") },
		"body": func(r *request) { r.body = append(r.body, ' ') },
	} {
		changed := request{rc.last.header.Clone(), append([]byte(nil), rc.last.body...)}
		change(&changed)
		assert.Error(t, v.Verify(changed.body, changed.header), name)
	}
}
