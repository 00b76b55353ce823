package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/webhook"
)

const secret = "whsec_dGhpcnR5LXR3byBieXRlcyBvZiBhIG5ldyBzZWNyZXQ="

// The app knows who is in a channel of a Server that sends it webhooks.
func TestOnline(t *testing.T) {
	t.Parallel()
	received := make(chan struct{}, 100)
	online := &Online{
		Secrets: []string{secret},
		Reload:  func(reason string) { t.Error("events were lost:", reason) },
	}
	mux := routes(online)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r)
		if r.Method == "POST" {
			received <- struct{}{}
		}
	}))
	defer app.Close()
	srv, err := pushy.New(pushy.Options{
		SecretKey: "the secret key of the example",
		Accept:    func(r *http.Request) (any, error) { return r.Header.Get("X-User"), nil },
	})
	require.NoError(t, err)
	hooks, err := webhook.New(srv, webhook.Options{
		URL:    app.URL + "/webhooks",
		Secret: secret,
		Delay:  -1,
	})
	require.NoError(t, err)
	// expect waits for the webhooks after which these users are in the channel.
	expect := func(want string) {
		t.Helper()
		timeout := time.After(time.Minute)
		got := ""
		for got != want {
			select {
			case <-received:
			case <-timeout:
				require.Equal(t, want, got)
			}
			r, err := http.Get(app.URL + "/online/private-room")
			require.NoError(t, err)
			text, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			_ = r.Body.Close()
			got = strings.TrimSpace(string(text))
		}
	}
	kit := pushytest.New(t, srv)
	kit.Allow("webhook.", "net/http.")
	ann := kit.Connect(func(r *http.Request) { r.Header.Set("X-User", "ann") })
	ann.Subscribe("private-room", pushytest.Member(nil))
	expect(`["ann"]`)
	bob := kit.Connect(func(r *http.Request) { r.Header.Set("X-User", "bob") })
	bob.Subscribe("private-room", pushytest.Member(nil))
	expect(`["ann","bob"]`)
	ann.Drop()
	expect(`["bob"]`)
	require.NoError(t, srv.Shutdown(context.Background()))
	require.NoError(t, hooks.Close(context.Background()))
	expect("[]")

	// Others are refused.
	r, err := http.Post(app.URL+"/webhooks", "application/json", strings.NewReader(`{}`))
	require.NoError(t, err)
	defer r.Body.Close()
	assert.Equal(t, http.StatusUnauthorized, r.StatusCode)
}
