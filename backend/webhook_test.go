package backend_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/internal/webhooksign"
)

var (
	webhookSecret    = "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("n"), 32))
	oldWebhookSecret = "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("o"), 24))
)

const webhookBody = `{"type":"pushy.events","timestamp":"2026-11-26T12:00:03.120Z","data":{"events":[` +
	`{"id":"e.1","event":"member.joined","channel":"private-room","member":{"name":"Ann"},"memberId":"m1","user":"42","at":1700000000117,"revision":1},` +
	`{"id":"n-1","event":"events.lost","at":1700000000118,"reason":"overflow","count":17}]}}`

// signedWebhook returns a request that the secrets have signed.
func signedWebhook(t testing.TB, body string, at time.Time, secrets ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequest("POST", "/webhooks", strings.NewReader(body))
	var keys []webhooksign.Key
	for _, s := range secrets {
		key, err := webhooksign.ParseKey(s)
		require.NoError(t, err)
		keys = append(keys, key)
	}
	webhooksign.Sign(r.Header, keys, "msg_1", at, []byte(body))
	return r
}

func TestVerifyWebhook(t *testing.T) {
	t.Parallel()
	at := time.Now().Truncate(time.Second)
	hook, err := backend.VerifyWebhook(signedWebhook(t, webhookBody, at, webhookSecret), webhookSecret)
	require.NoError(t, err)
	assert.Equal(t, "msg_1", hook.ID)
	assert.Equal(t, at, hook.Time)
	require.Len(t, hook.Events, 2)
	assert.Equal(t, "private-room", hook.Events[0].Channel)
	assert.JSONEq(t, `{"name":"Ann"}`, string(hook.Events[0].Member))
	assert.Equal(t, 17, hook.Events[1].Count)

	// While the secret is changed, either side can be first.
	for _, c := range [][2][]string{
		{{webhookSecret, oldWebhookSecret}, {oldWebhookSecret}},
		{{webhookSecret, oldWebhookSecret}, {webhookSecret}},
		{{oldWebhookSecret}, {webhookSecret, oldWebhookSecret}},
	} {
		_, err := backend.VerifyWebhook(signedWebhook(t, webhookBody, at, c[0]...), c[1]...)
		require.NoError(t, err)
	}
}

// The vector of the specification of Standard Webhooks.
func TestVerifyWebhookOfTheSpecification(t *testing.T) {
	t.Parallel()
	key, err := webhooksign.ParseKey("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	require.NoError(t, err)
	header := http.Header{}
	webhooksign.Sign(header, []webhooksign.Key{key}, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0),
		[]byte(`{"test": 2432232314}`))
	assert.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", header.Get("webhook-signature"))
}

func TestVerifyWebhookRefuses(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, change := range map[string]func(r *http.Request){
		"id":        func(r *http.Request) { r.Header.Set("Webhook-Id", "msg_2") },
		"noID":      func(r *http.Request) { r.Header.Del("Webhook-Id") },
		"time":      func(r *http.Request) { r.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix()-1, 10)) },
		"timeForm":  func(r *http.Request) { r.Header.Set("Webhook-Timestamp", "0"+strconv.FormatInt(now.Unix(), 10)) },
		"noTime":    func(r *http.Request) { r.Header.Del("Webhook-Timestamp") },
		"body":      func(r *http.Request) { *r = *withBody(r, strings.Replace(webhookBody, "42", "43", 1)) },
		"space":     func(r *http.Request) { *r = *withBody(r, webhookBody+" ") },
		"signature": func(r *http.Request) { r.Header.Set("Webhook-Signature", "v1,AAAA") },
		"version": func(r *http.Request) {
			r.Header.Set("Webhook-Signature", strings.Replace(r.Header.Get("Webhook-Signature"), "v1,", "v2,", 1))
		},
		"noSignature": func(r *http.Request) { r.Header.Del("Webhook-Signature") },
		"twice":       func(r *http.Request) { r.Header.Add("Webhook-Signature", "v1,AAAA") },
		"manySignatures": func(r *http.Request) {
			r.Header.Set("Webhook-Signature", strings.Repeat("v1,AAAA ", 20)+r.Header.Get("Webhook-Signature"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := signedWebhook(t, webhookBody, now, webhookSecret)
			change(r)
			_, err := backend.VerifyWebhook(r, webhookSecret)
			require.ErrorIs(t, err, backend.ErrInvalidWebhook)
		})
	}
	for name, r := range map[string]*http.Request{
		"old":         signedWebhook(t, webhookBody, now.Add(-301*time.Second), webhookSecret),
		"future":      signedWebhook(t, webhookBody, now.Add(302*time.Second), webhookSecret),
		"otherSecret": signedWebhook(t, webhookBody, now, oldWebhookSecret),
		"otherType":   signedWebhook(t, `{"type":"other"}`, now, webhookSecret),
		"notJSON":     signedWebhook(t, `{`, now, webhookSecret),
		"large":       signedWebhook(t, strings.Repeat(" ", 1<<20)+webhookBody, now, webhookSecret),
	} {
		_, err := backend.VerifyWebhook(r, webhookSecret)
		require.ErrorIs(t, err, backend.ErrInvalidWebhook, name)
	}
	for _, secret := range []string{"", "whsec_", "x", strings.TrimPrefix(webhookSecret, "whsec_")} {
		_, err := backend.VerifyWebhook(signedWebhook(t, webhookBody, now, webhookSecret), secret)
		require.Error(t, err)
		require.False(t, errors.Is(err, backend.ErrInvalidWebhook), "it is the receiver's mistake")
	}
	_, err := backend.VerifyWebhook(signedWebhook(t, webhookBody, now, webhookSecret))
	require.ErrorContains(t, err, "no secret")
}

func withBody(r *http.Request, body string) *http.Request {
	changed := httptest.NewRequest("POST", "/webhooks", strings.NewReader(body))
	changed.Header = r.Header
	return changed
}

// Nothing that a stranger sends is accepted, or makes VerifyWebhook panic.
func FuzzVerifyWebhook(f *testing.F) {
	now := strconv.FormatInt(time.Now().Unix(), 10)
	f.Add("msg_1", now, "v1,AAAA", webhookBody)
	f.Add("", now, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1a,x", `{"type":"pushy.events"}`)
	f.Add("a.b", "-1", "v1, v1,", "")
	f.Add("a", "99999999999999999999", strings.Repeat(" ", 30), "{")
	f.Fuzz(func(t *testing.T, id, at, signature, body string) {
		r := httptest.NewRequest("POST", "/webhooks", strings.NewReader(body))
		r.Header = http.Header{
			"Webhook-Id":        {id},
			"Webhook-Timestamp": {at},
			"Webhook-Signature": {signature},
		}
		_, err := backend.VerifyWebhook(r, webhookSecret, oldWebhookSecret)
		require.ErrorIs(t, err, backend.ErrInvalidWebhook)

		// The same content with a signature is refused for no other reason than what it says.
		hook, err := backend.VerifyWebhook(signedWebhook(t, body, time.Now(), oldWebhookSecret), webhookSecret, oldWebhookSecret)
		if err != nil {
			require.ErrorIs(t, err, backend.ErrInvalidWebhook)
		} else {
			require.Equal(t, "msg_1", hook.ID)
		}
	})
}
