package webhook_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/webhook"
)

// Two Senders with one name would overwrite each other's records.
func TestNamesOfSendersDiffer(t *testing.T) {
	t.Parallel()
	inTime(t, func(t *testing.T) {
		srv := newServer(t, pushy.Options{})
		defer srv.Close()
		rc := newReceiver(t)
		o := webhook.Options{
			URL:       "https://app.example.com/hooks",
			Secret:    secret,
			Transport: rc,
			Events:    []string{"x"},
		}
		_, err := webhook.New(srv, o)
		require.Error(t, err)
		o.Events = nil
		first, err := webhook.New(srv, o)
		require.NoError(t, err, "one that was refused does not have the name")
		_, err = webhook.New(srv, o)
		require.ErrorContains(t, err, `the Server has a Sender with Options.Name "" already`)
		o.Name = "other"
		second, err := webhook.New(srv, o)
		require.NoError(t, err)
		require.NoError(t, first.Close(t.Context()))
		require.NoError(t, second.Close(t.Context()))
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	// The secret keys of the server, one of which has the form of a secret of webhooks.
	old := secretOf("o")
	srv, err := pushy.New(pushy.Options{
		SecretKey:     "0123456789abcdef0123456789abcdef",
		OldSecretKeys: []string{old, base64.StdEncoding.EncodeToString([]byte("abcdefabcdefabcdefabcdefabcdef"))},
	})
	require.NoError(t, err)
	defer srv.Close()
	whsec := func(key string) string { return "whsec_" + base64.StdEncoding.EncodeToString([]byte(key)) }
	good := webhook.Options{
		URL:    "https://app.example.com/hooks",
		Secret: secret,
	}
	for name, c := range map[string]struct {
		change func(o *webhook.Options)
		want   string
	}{
		"noURL":          {func(o *webhook.Options) { o.URL = "" }, "Options.URL is not like"},
		"scheme":         {func(o *webhook.Options) { o.URL = "ftp://app.example.com/" }, "Options.URL is not like"},
		"password":       {func(o *webhook.Options) { o.URL = "https://me:pw@app.example.com/" }, "must have no user"},
		"publicHTTP":     {func(o *webhook.Options) { o.URL = "http://203.0.113.7/" }, "must begin with https"},
		"linkLocal":      {func(o *webhook.Options) { o.URL = "https://169.254.169.254/" }, "is link-local"},
		"mapped":         {func(o *webhook.Options) { o.URL = "http://[::ffff:169.254.169.254]/" }, "is link-local"},
		"noSecret":       {func(o *webhook.Options) { o.Secret = "" }, `Options.Secret does not begin with "whsec_"`},
		"notBase64":      {func(o *webhook.Options) { o.Secret = "whsec_!" }, "Options.Secret is not"},
		"shortSecret":    {func(o *webhook.Options) { o.Secret = whsec("short") }, "must have 24 to 64"},
		"oldSecret":      {func(o *webhook.Options) { o.OldSecrets = []string{secret, "x"} }, "Options.OldSecrets[1] does not"},
		"secretKey":      {func(o *webhook.Options) { o.Secret = whsec("0123456789abcdef0123456789abcdef") }, "Options.Secret is a secret key"},
		"oldKey":         {func(o *webhook.Options) { o.Secret = old }, "Options.Secret is a secret key"},
		"oldKeyAsBase64": {func(o *webhook.Options) { o.OldSecrets = []string{whsec("abcdefabcdefabcdefabcdefabcdef")} }, "Options.OldSecrets[0] is a secret key"},
		"event":          {func(o *webhook.Options) { o.Events = []string{"member.jumped"} }, `"member.jumped", which is not an event`},
		"delay":          {func(o *webhook.Options) { o.Delay = time.Hour }, "at most 1m0s"},
		"delayUnit":      {func(o *webhook.Options) { o.Delay = 3 }, "less than 1 ms"},
		"name":           {func(o *webhook.Options) { o.Name = "a:b" }, "Options.Name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := good
			c.change(&o)
			_, err := webhook.New(srv, o)
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), secret)
		})
	}
	_, err = webhook.New(nil, good)
	require.ErrorContains(t, err, "the Server is nil")
}

// bare is a Broker without the optional interfaces.
type bare struct{ broker.Broker }

func TestNewNeedsTheBroker(t *testing.T) {
	t.Parallel()
	srv := newServer(t, pushy.Options{Broker: bare{memory.New()}})
	defer srv.Close()
	_, err := webhook.New(srv, webhook.Options{
		URL:    "https://app.example.com/hooks",
		Secret: secret,
	})
	require.ErrorContains(t, err, "has no Ledger")

	ended := newServer(t, pushy.Options{Broker: memory.New()})
	require.NoError(t, ended.Close())
	_, err = webhook.New(ended, webhook.Options{
		URL:    "https://app.example.com/hooks",
		Secret: secret,
	})
	require.ErrorIs(t, err, broker.ErrClosed)
}

// Two Senders of one server with different names do not disturb each other, and two secrets sign
// each request.
func TestCloseSendsWhatWaits(t *testing.T) {
	t.Parallel()
	inTime(t, func(t *testing.T) {
		one := newReceiver(t)
		two := newReceiver(t)
		srv := newServer(t, pushy.Options{})
		first := newSender(t, srv, one, webhook.Options{})
		second := newSender(t, srv, two, webhook.Options{
			Name:   "audit",
			Events: []string{webhook.MemberLeft},
		})
		connect(t, srv, "42", "private-room")
		require.NoError(t, srv.Shutdown(context.Background()))
		require.NoError(t, first.Close(context.Background()))
		assert.Equal(t, []string{
			"channel.occupied private-room",
			"member.joined private-room user=42",
			"member.left private-room user=42 closed",
			"channel.vacated private-room",
		}, one.take())
		require.NoError(t, second.Close(context.Background()))
		assert.Equal(t, []string{"member.left private-room user=42 closed"}, two.take())
		require.NoError(t, second.Close(context.Background()), "a second Close has no effect")
	})
}

func TestCloseSaysWhatWasNotSent(t *testing.T) {
	t.Parallel()
	inTime(t, func(t *testing.T) {
		rc := newReceiver(t)
		rc.reply(http.StatusServiceUnavailable, "")
		srv := newServer(t, pushy.Options{})
		s := newSender(t, srv, rc, webhook.Options{})
		connect(t, srv, "42", "private-room")
		require.NoError(t, srv.Shutdown(context.Background()))
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := s.Close(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "4 events were not sent")
		assert.True(t, errors.Is(s.Close(context.Background()), nil))
	})
}
