package subscriber_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/subscriber"
)

// A server with TLS on a real socket, which gets the headers of the handshake.
func TestTLS(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Accept: func(r *http.Request) (any, error) {
		if r.Header.Get("Cookie") != "user=ann" {
			return nil, pushy.ErrDenied
		}
		return nil, nil
	}})
	web := httptest.NewTLSServer(srv)
	t.Cleanup(web.Close)
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	o := subscriber.Options{
		Header:    http.Header{"Cookie": {"user=ann"}},
		TLSConfig: &tls.Config{RootCAs: roots},
	}
	for _, path := range []string{"/pushy", "/pushy/socket/websocket"} {
		c, err := subscriber.Dial(t.Context(), web.URL+path, o)
		require.NoError(t, err)
		s := subscribe(t, c, "news", nil)
		publish(t, srv, "news", "n", path)
		for e, err := range s.Events() {
			require.NoError(t, err)
			assert.JSONEq(t, `"`+path+`"`, string(e.Data))
			break
		}
		c.Close()
	}
	o.Header = nil
	_, err := subscriber.Dial(t.Context(), web.URL+"/pushy", o)
	var closed *subscriber.CloseError
	require.ErrorAs(t, err, &closed)
	assert.Equal(t, http.StatusForbidden, closed.Status)
}
