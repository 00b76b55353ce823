package pushy_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// A host's own Authorizer receives what a verified token says, and is not asked about a token that
// is wrong.
func TestAuthorizerReceivesClaims(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked []pushy.AuthRequest
		srv := startServer(t, pushy.Options{Authorizer: granting(func(r pushy.AuthRequest) { asked = append(asked, r) })})
		p := connectPeer(t, srv)
		expires := time.Now().Add(time.Minute).Truncate(time.Second)
		token, err := pushy.SignToken(peerKey, pushy.Token{
			Channels:     []string{"private-a", "Private-B"},
			Conn:         p.id,
			Expires:      expires,
			Data:         map[string]string{"name": "Ann"},
			ClientEvents: true,
		})
		require.NoError(t, err)
		claims := pushy.Claims{
			Channels:     []string{"private-a", "Private-B"},
			Conn:         p.id,
			Expires:      expires,
			Data:         json.RawMessage(`{"name":"Ann"}`),
			ClientEvents: true,
		}
		forged := token[:len(token)-1] + "!"
		for name, c := range map[string]struct {
			channel, auth string
			claims        *pushy.Claims
			refused       bool
		}{
			"none":                   {"private-c", "", nil, false},
			"own form":               {"private-d", "ticket", nil, false},
			"right":                  {"private-a", token, &claims, false},
			"right, other case":      {"private-b", token, &claims, false},
			"other private channel":  {"private-e", token, nil, true},
			"other public channel":   {"news", token, nil, false},
			"forged":                 {"private-a", forged, nil, true},
			"forged, public channel": {"open", forged, nil, true},
		} {
			asked = nil
			p.send(`{"command":"unsubscribe","data":{"channel":"` + c.channel + `"}}`)
			p.next()
			p.send(`{"command":"subscribe","data":{"channel":"` + c.channel + `","auth":"` + c.auth + `"}}`)
			answer := p.next()
			if c.refused {
				assert.Equal(t, "pushy:subscription-failed", answer.Event, name)
				assert.Empty(t, asked, name)
				continue
			}
			assert.Equal(t, "pushy:subscription-success", answer.Event, name)
			require.Len(t, asked, 1, name)
			assert.Equal(t, "pushy", asked[0].Protocol, name)
			if c.claims == nil {
				assert.Nil(t, asked[0].Claims, name)
				assert.Zero(t, *asked[0].Grant, name)
				continue
			}
			require.NotNil(t, asked[0].Claims, name)
			assert.True(t, c.claims.Expires.Equal(asked[0].Claims.Expires), name)
			got := *asked[0].Claims
			got.Expires = expires
			assert.Equal(t, *c.claims, got, name)
			assert.True(t, asked[0].Grant.ClientEvents, name)
			assert.JSONEq(t, `{"name":"Ann"}`, string(asked[0].Grant.Data), name)
		}
	})
}

// A right token does not overrule a host's own Authorizer.
func TestClaimsDoNotOverruleTheAuthorizer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{Authorizer: allowAll{pushy.ErrDenied}})
		p := connectPeer(t, srv)
		token, err := pushy.SignToken(peerKey, pushy.Token{Channels: []string{"private-a"}, Conn: p.id})
		require.NoError(t, err)
		p.send(`{"command":"subscribe","data":{"channel":"private-a","auth":"` + token + `"}}`)
		assert.Equal(t, "pushy:subscription-failed", p.next().Event)
	})
}
