package webhook_test

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/webhook"
)

// A panic of Options.Transport is a try that has failed.
func TestTransportPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rc := newReceiver(t)
		srv := newServer(t, pushy.Options{Logger: slog.New(slog.DiscardHandler)})
		s, err := webhook.New(srv, webhook.Options{
			URL:       "https://app.example.com/hooks",
			Secret:    secret,
			Transport: &panicking{next: rc},
		})
		require.NoError(t, err)
		kit := pushytest.New(t, srv)
		kit.Allow("webhook.")
		kit.Connect().Subscribe("news")
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{"channel.occupied news"}, rc.take())
		require.NoError(t, srv.Shutdown(context.Background()))
		require.NoError(t, s.Close(context.Background()))
	})
}

type panicking struct {
	next http.RoundTripper
	n    int
}

func (p *panicking) RoundTrip(r *http.Request) (*http.Response, error) {
	p.n++
	if p.n == 1 {
		panic("no")
	}
	return p.next.RoundTrip(r)
}
