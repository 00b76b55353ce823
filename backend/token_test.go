package backend_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/pushytest"
)

// The tokens, and what is refused, are those of package pushy.
func TestSignToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the time of both calls is the same
		const conn = "0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8"
		channels := []string{"private-x"}
		for name, c := range map[string]struct {
			token backend.Token
			says  string // "": it is signed
		}{
			"conn": {backend.Token{Channels: channels, Conn: conn}, ""},
			"user": {backend.Token{Channels: channels, User: "42"}, ""},
			"all": {backend.Token{
				Channels:     []string{"Private-A", "private-b"},
				Conn:         conn,
				User:         "42",
				Expires:      time.Now().Add(time.Minute + time.Millisecond),
				Data:         map[string]string{"name": "Ann"},
				ClientEvents: true,
			}, ""},
			"nullData":    {backend.Token{Channels: channels, User: "42", Data: json.RawMessage("null")}, ""},
			"noChannel":   {backend.Token{Conn: conn}, "sub: must have 1 to 100 channels"},
			"manyNames":   {backend.Token{Conn: conn, Channels: make([]string, 101)}, "not 101"},
			"badName":     {backend.Token{Conn: conn, Channels: []string{"a:b"}}, "sub[0]: must not contain :"},
			"nobody":      {backend.Token{Channels: channels}, "conn or user is needed"},
			"badConn":     {backend.Token{Channels: channels, Conn: "1"}, "conn: must be a UUID v4"},
			"longUser":    {backend.Token{Channels: channels, User: strings.Repeat("x", 129)}, "user: must be UTF-8 of at most"},
			"tooLong":     {backend.Token{Channels: channels, User: "42", Expires: time.Now().Add(25 * time.Hour)}, "exp: must be at most"},
			"past":        {backend.Token{Channels: channels, User: "42", Expires: time.Now()}, "exp: is not in the future"},
			"dataANumber": {backend.Token{Channels: channels, User: "42", Data: 7}, "presence data must be an object, not "},
			"dataNoJSON":  {backend.Token{Channels: channels, User: "42", Data: func() {}}, "unsupported type"},
			"tooLarge":    {backend.Token{Channels: channels, User: "42", Data: map[string]string{"a": strings.Repeat("x", 8000)}}, "more than 8192 bytes"},
		} {
			signed, err := backend.SignToken(secret, c.token)
			same, sameErr := pushy.SignToken(secret, pushy.Token(c.token))
			assert.Equal(t, same, signed, name)
			if c.says == "" {
				require.NoError(t, err, name)
				assert.True(t, strings.HasPrefix(signed, "v2."), name)
				continue
			}
			require.ErrorContains(t, err, c.says, name)
			assert.Equal(t, strings.TrimPrefix(sameErr.Error(), "pushy: "), strings.TrimPrefix(err.Error(), "backend: "), name)
		}
		_, err := backend.SignToken("", backend.Token{Channels: channels, User: "42"})
		require.ErrorContains(t, err, "empty secret key")
	})
}

// An auth endpoint in a process without a Server lets clients into private channels.
func TestAuthEndpoint(t *testing.T) {
	onNodes(t, 1, func(t *testing.T, nodes []node) {
		client := nodes[0].connect("42")
		auth := pushytest.Endpoint(authEndpoint{
			secretKey: secret,
			rooms:     map[string][]string{"ann": {"private-lobby"}},
		}, "/auth", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "session", Value: "ann"}) })
		refused := func(grant pushytest.Grant) string {
			_, err := client.TrySubscribe("private-cellar", grant)
			var e *pushytest.RefusedError
			require.ErrorAs(t, err, &e)
			return e.Reason
		}
		success := client.Subscribe("private-lobby", auth)
		require.Len(t, success.Presence, 1)
		assert.Contains(t, string(success.Presence[0]), `"name":"ann"`)
		assert.Contains(t, refused(auth), "403")
		for key, user := range map[string]string{
			"another key of the same length": "42",
			secret:                           "43",
		} {
			token, err := backend.SignToken(key, backend.Token{
				Channels: []string{"private-cellar"},
				User:     user,
			})
			require.NoError(t, err)
			assert.NotEmpty(t, refused(pushytest.Token(token, nil)))
		}
		token, err := backend.SignToken(secret, backend.Token{
			Channels: []string{"private-cellar"},
			User:     "42",
		})
		require.NoError(t, err)
		client.Subscribe("private-cellar", pushytest.Token(token, nil))
	})
}
