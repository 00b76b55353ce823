package pushy_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gopushy/pushy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sockjsDoors are the doors of SockJS over HTTP.
var sockjsDoors = []struct{ method, path string }{
	{"GET", "/info"}, {"POST", "/0/s/xhr"}, {"POST", "/0/s/xhr_streaming"}, {"GET", "/0/s/eventsource"},
	{"GET", "/0/s/htmlfile?c=x"}, {"GET", "/0/s/jsonp?c=x"}, {"POST", "/0/s/xhr_send"}, {"POST", "/0/s/jsonp_send"},
	{"OPTIONS", "/0/s/xhr"}, {"GET", "/0/s/websocket"}, {"GET", "/iframe.html"},
}

// knock makes a request at a door and returns the answer's head.
func knock(t *testing.T, baseURL, method, path string, header ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientPatience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, baseURL+"/pushy/socket"+path, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// sockjs.md rows 18, 19 and 21: a page of an origin that is not allowed gets in
// at no door, and no session is opened for it.
func TestRow19OriginsAtEveryDoor(t *testing.T) {
	t.Parallel()
	srv, baseURL := serve(t, pushy.Options{
		Origins: []string{"https://friend.example"}, SockJS: pushy.SockJS{Legacy: true, ScriptURL: "/s.js"},
	})
	refused := uint64(0)
	for _, header := range [][]string{
		{"Origin", "http://evil.example"}, {"Origin", "null"}, {"Origin", "http://friend.example"},
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
	} {
		for _, door := range sockjsDoors {
			res := knock(t, baseURL, door.method, door.path, header...)
			assert.Equal(t, 403, res.StatusCode, "%s %s", door, header)
			assert.Equal(t, "Origin", res.Header.Get("Vary"))
			assert.Empty(t, res.Header.Get("Access-Control-Allow-Origin"))
			refused++
			assert.Equal(t, refused, srv.Stats().Refused["origin"])
		}
	}
	assert.Zero(t, srv.Stats().Connections)
	for _, door := range sockjsDoors {
		res := knock(t, baseURL, door.method, door.path, "Origin", "https://friend.example")
		assert.NotEqual(t, 403, res.StatusCode, door)
		assert.Equal(t, "Origin", res.Header.Get("Vary"))
		assert.Equal(t, "https://friend.example", res.Header.Get("Access-Control-Allow-Origin"))
		assert.Equal(t, "true", res.Header.Get("Access-Control-Allow-Credentials"))
	}
}

// sockjs.md row 22: sessions beyond the cap are refused on every transport, and
// counted; those that are there go on.
func TestRow22ConnectionsAreCapped(t *testing.T) {
	t.Parallel()
	srv, baseURL := serve(t, pushy.Options{Limits: pushy.Limits{Connections: 1}, SockJS: pushy.SockJS{Legacy: true}})
	keeper := dial(t, baseURL, true)
	refused := uint64(0)
	for range 100 {
		for _, door := range sockjsDoors[1:6] {
			res := knock(t, baseURL, door.method, door.path)
			require.Equal(t, 503, res.StatusCode, door)
			require.Equal(t, "5", res.Header.Get("Retry-After"))
			_, err := io.Copy(io.Discard, res.Body) // so that one connection is enough
			require.NoError(t, err)
			refused++
		}
	}
	_, err := upgrade(t, baseURL, true)
	require.Error(t, err)
	assert.Equal(t, refused+1, srv.Stats().Refused["connections"])
	assert.Equal(t, 1, srv.Stats().Connections)
	keeper.Send(`{"command":"SUBSCRIBE","data":{"channel":"a"}}`)
	assert.Contains(t, keeper.Receive(), "pushy:subscription-success")
}

// sockjs.md row 15: who a client is was decided by the request that opened the
// session; later ones prove nothing. Row 31: all are told of a shutdown.
func TestRow15AcceptDecidesOnce(t *testing.T) {
	t.Parallel()
	users := make(chan any, 10)
	srv, baseURL := serve(t, pushy.Options{
		Accept: func(r *http.Request) (any, error) { return r.Header.Get("X-User"), nil },
		Hooks:  pushy.Hooks{Connect: func(c *pushy.Conn) { users <- c.User() }},
	})
	read := func(res *http.Response) string {
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return string(text)
	}
	assert.Equal(t, "o\n", read(knock(t, baseURL, "POST", "/0/id/xhr", "X-User", "ann")))
	assert.True(t, strings.HasPrefix(read(knock(t, baseURL, "POST", "/0/id/xhr", "X-User", "mallory")), `a["`))
	assert.Equal(t, "ann", <-users)
	assert.Equal(t, 1, srv.Stats().Connections)
	down := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		down <- srv.Shutdown(ctx)
	}()
	assert.Equal(t, `c[3001,"server shutting down"]`+"\n", read(knock(t, baseURL, "POST", "/0/id/xhr")))
	assert.NoError(t, <-down)
	assert.Empty(t, users)
	assert.Equal(t, 503, knock(t, baseURL, "POST", "/0/new/xhr").StatusCode)
}
